"""Converge, check and remove, on resources that keep their state in a dictionary instead of in the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from provision import engine
from provision.engine import Difference
from provision.kernel.network import Network
from provision.marks import Mark, Places
from provision.resource import Command, Found, Kind, Phase, Resource, Section, Step
from provision.supervisor import Supervisor
from provision.system import NotOurs, System
from underlay.errors import NotReady
from underlay.topology import Timeouts

_MARK = Mark("phase9", 9)
_FOREIGN = "foreign"


@dataclass(slots=True)
class World:
    """What is there: values by name. What is queued becomes true at the next commit, all at once, as in a batch."""

    things: dict[str, str] = field(default_factory=dict)
    queued: list[tuple[str, str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def commit(self) -> None:
        if self.queued:
            self.log.append("batch " + " ".join(name for name, _ in self.queued))
            self.things.update(self.queued)
            self.queued.clear()


class Wire(Network):
    """The network of a host on which nothing but our world changes."""

    def __init__(self, world: World) -> None:
        super().__init__("host1")
        self._world = world

    def flush(self) -> None:
        self._world.commit()
        super().flush()


@dataclass(frozen=True)
class Thing(Resource):
    """A value in the world. ``after`` must be true before it can be made, ``breaks`` is lost when it is made.

    ``silent`` is how often it says that it is not ready.
    """

    world: World
    name: str
    value: str = "1"
    after: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    in_batch: bool = False
    stubborn: bool = False
    silent: int = 0

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(f"thing {name}" for name in self.after)

    @property
    def identity(self) -> str:
        return f"thing {self.name}"

    @property
    def batched(self) -> bool:
        return self.in_batch

    def observe(self, system: System) -> str | None:
        assert system.host == "host1"
        seen = self.world.things.get(self.name)
        if seen is None:
            return "is missing"
        if seen == _FOREIGN:
            raise NotOurs(system.host, f"a thing {self.name}", ("rm", self.name))
        return None if seen == self.value else f"is {seen}, planned {self.value}"

    def prepare(self, system: System) -> None:
        assert system.host == "host1"
        self.world.log.append(f"prepare {self.name}")

    def apply(self, system: System) -> None:
        assert system.host == "host1"
        missing = [name for name in self.after if name not in self.world.things]
        assert not missing, f"{self.name} needs {missing}"
        if self.in_batch:
            self.world.queued.append((self.name, self.value))
            return
        self.world.log.append(f"make {self.name}")
        if not self.stubborn:
            self.world.things[self.name] = self.value
        for name in self.breaks:
            self.world.things.pop(name, None)

    def ready(self, system: System) -> str | None:
        asked = self.world.log.count(f"ask {self.name}")
        self.world.log.append(f"ask {self.name}")
        return "not yet" if asked < self.silent else None

    def say(self, mark: Mark) -> Sequence[Step]:
        return (Command((mark.phase, self.name)),)


def kind(world: World, prefix: str = "", *, remove_all: bool = False, stuck: bool = False) -> Kind:
    """A kind that finds all things in the world whose name begins with ``prefix``, but foreign ones."""

    def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
        assert system.host == "host1"
        assert all(identity.startswith("thing ") for identity in wanted)
        for name in [
            name for name in world.things if name.startswith(prefix) and _FOREIGN not in (name, world.things[name])
        ]:
            yield Found(f"thing {name}", remover(name), preparer(name))

    def remover(name: str) -> Callable[[System], None]:
        def remove(_: System) -> None:
            world.log.append(f"remove {name}")
            if not stuck:
                del world.things[name]

        return remove

    def preparer(name: str) -> Callable[[System], None]:
        return lambda _: world.log.append(f"stop {name}")

    def everything(_: System) -> None:
        world.log.append(f"remove all {prefix}")
        for name in [name for name in world.things if name.startswith(prefix)]:
            del world.things[name]

    return Kind((Thing,), discover, everything if remove_all else None)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def system(world: World, tmp_path: Path) -> System:
    timeouts = Timeouts(connect=0.1, command=1, ready=0.1, cache=1)
    supervisor = Supervisor("host1", timeouts.command, tmp_path / "supervisor.sock")
    mark = replace(_MARK, places=Places(tmp_path / "settings", tmp_path / "state", tmp_path / "run"))
    return System("host1", mark, timeouts, Wire(world), supervisor)


def phase(*resources: Resource) -> Phase:
    """A phase of two sections, so that order goes across them."""
    half = len(resources) // 2
    return Phase(_MARK, (Section("One", "", resources[:half]), Section("Two", "", resources[half:])))


def converge(made: Phase, system: System, *kinds: Kind) -> tuple[list[str], tuple[Difference, ...]]:
    told: list[Difference] = []
    returned = engine.converge(made, system, told.append, kinds, wait=False)
    assert tuple(told) == returned
    return [str(item) for item in returned], returned


def applied(world: World) -> list[str]:
    return [line for line in world.log if line.split()[0] in {"make", "batch"}]


def test_all_is_made_in_order_and_the_second_run_changes_nothing(world: World, system: System) -> None:
    made = phase(*(Thing(world, name) for name in "abcd"))
    said, _ = converge(made, system)
    assert said == [f"thing {name}: is missing" for name in "abcd"]
    assert applied(world) == ["make a", "make b", "make c", "make d"]
    world.log.clear()
    assert converge(made, system) == ([], ())
    assert world.log == []


def test_only_what_differs_is_mended(world: World, system: System) -> None:
    world.things = {"a": "1", "b": "2", "c": "1"}
    said, _ = converge(phase(*(Thing(world, name) for name in "abc")), system)
    assert said == ["thing b: is 2, planned 1"]
    assert applied(world) == ["make b"]


def test_batched_resources_travel_together_until_one_that_cannot_wait(world: World, system: System) -> None:
    made = phase(
        Thing(world, "a", in_batch=True),
        Thing(world, "b", in_batch=True),
        Thing(world, "c", after=("a", "b")),
        Thing(world, "d", in_batch=True),
        Thing(world, "e", in_batch=True),
    )
    converge(made, system)
    assert applied(world) == ["batch a b", "make c", "batch d e"]


def test_check_says_what_differs_and_touches_nothing(world: World, system: System) -> None:
    world.things = {"a": "2", "x": "1", _FOREIGN: "1"}
    before = dict(world.things)
    found = engine.check(phase(Thing(world, "a"), Thing(world, "b")), system, (kind(world),))
    assert [str(item) for item in found] == [
        "thing x: is there but not planned",
        "thing a: is 2, planned 1",
        "thing b: is missing",
    ]
    assert world.things == before
    assert world.log == []


def test_check_of_what_is_as_planned_is_empty(world: World, system: System) -> None:
    world.things = {"a": "1", _FOREIGN: "1"}
    assert engine.check(phase(Thing(world, "a")), system, (kind(world),)) == ()


def test_all_is_prepared_before_anything_goes_or_is_made_and_surplus_goes_first(world: World, system: System) -> None:
    world.things = {"x": "1", "y": "1", "b": "2", _FOREIGN: "1"}
    said, _ = converge(phase(Thing(world, "a"), Thing(world, "b")), system, kind(world))
    assert said == [
        "thing x: is there but not planned",
        "thing y: is there but not planned",
        "thing a: is missing",
        "thing b: is 2, planned 1",
    ]
    assert world.log == [
        "prepare a", "prepare b", "stop x", "stop y", "remove x", "remove y", "make a", "make b",
    ]  # fmt: skip
    assert world.things == {"a": "1", "b": "1", _FOREIGN: "1"}


def test_what_mending_broke_is_mended_in_the_next_pass(world: World, system: System) -> None:
    world.things = {"port": "1"}
    made = phase(Thing(world, "port", after=("bridge",)), Thing(world, "bridge", breaks=("port",)))
    said, _ = converge(made, system)
    assert said == ["thing bridge: is missing", "thing port: is missing"]
    assert engine.check(made, system, ()) == ()


def test_what_never_becomes_true_is_an_error_that_names_it(world: World, system: System) -> None:
    made = phase(Thing(world, "a"), Thing(world, "b", stubborn=True))
    with pytest.raises(NotReady) as caught:
        engine.converge(made, system, lambda _: None, (), wait=False)
    (problem,) = caught.value.problems
    assert problem.where == "host1"
    assert "thing b: is missing" in problem.what
    assert "attempts" in problem.what
    assert 2 <= world.log.count("make b") <= 10


def test_once_is_once(world: World, system: System) -> None:
    made = phase(Thing(world, "a", stubborn=True))
    mended, blocked = engine.converge_once(made, system, lambda _: None, ())
    assert (len(mended), blocked) == (1, ())
    assert applied(world) == ["make a"]


def test_remove_takes_all_that_is_ours_and_nothing_else(world: World, system: System) -> None:
    world.things = {"a": "1", "b": "2", _FOREIGN: "1"}
    told: list[Difference] = []
    removed = engine.remove(phase(Thing(world, "a")), system, told.append, (kind(world),))
    assert [item.identity for item in removed] == ["thing a", "thing b"]
    assert tuple(told) == removed
    assert world.things == {_FOREIGN: "1"}
    assert world.log == ["stop a", "stop b", "remove a", "remove b"]
    assert engine.remove(phase(Thing(world, "a")), system, told.append, (kind(world),)) == ()


def test_kinds_go_in_their_order(world: World, system: System) -> None:
    world.things = {"net-a": "1", "program-a": "1"}
    engine.remove(phase(), system, lambda _: None, (kind(world, "program"), kind(world, "net")))
    assert [line for line in world.log if line.startswith("remove")] == ["remove program-a", "remove net-a"]


def test_removal_that_leaves_something_is_an_error_that_names_it(world: World, system: System) -> None:
    world.things = {"a": "1"}
    with pytest.raises(NotReady, match="thing a could not be removed"):
        engine.remove(phase(), system, lambda _: None, (kind(world, stuck=True),))


def test_whole_kind_goes_at_once_only_if_none_of_it_stays(world: World, system: System) -> None:
    world.things = {"a": "1", "x": "1"}
    kinds = (kind(world, remove_all=True),)
    engine.converge(phase(Thing(world, "a")), system, lambda _: None, kinds, wait=False)
    assert world.log == ["stop x", "remove x"]
    assert world.things == {"a": "1"}
    world.log.clear()
    engine.remove(phase(), system, lambda _: None, kinds)
    assert world.log == ["remove all "]
    assert world.things == {}


def test_resource_that_two_sections_want_is_made_once_where_it_is_first(world: World, system: System) -> None:
    shared = Thing(world, "shared")
    made = Phase(
        _MARK, (Section("One", "", (shared, Thing(world, "a"))), Section("Two", "", (Thing(world, "b"), shared)))
    )
    converge(made, system)
    assert applied(world) == ["make shared", "make a", "make b"]


def test_what_is_not_ours_is_one_difference_among_others(world: World, system: System) -> None:
    world.things = {"a": _FOREIGN, "x": "1"}
    made = phase(Thing(world, "a"), Thing(world, "b", after=("a",)), Thing(world, "c", after=("b",)), Thing(world, "d"))
    found = engine.check(made, system, (kind(world),))
    assert [str(item) for item in found] == [
        "thing x: is there but not planned",
        "thing a: a thing a is in the way: it does not carry our mark",
        "thing b: cannot be made without thing a, which is blocked",
        "thing c: cannot be made without thing b, which is blocked",
        "thing d: is missing",
    ]
    assert [item.remedy for item in found] == ["", "if nobody needs it: ./lab exec host1 -- rm a", "", "", ""]


def test_all_else_is_mended_before_what_is_in_the_way_is_an_error(world: World, system: System) -> None:
    world.things = {"a": _FOREIGN, "x": "1"}
    made = phase(Thing(world, "a"), Thing(world, "b", after=("a",)), Thing(world, "c"))
    told: list[Difference] = []
    with pytest.raises(NotReady) as caught:
        engine.converge(made, system, told.append, (kind(world),))
    assert world.things == {"a": _FOREIGN, "c": "1"}, "what is not ours is left alone, and nothing is put onto it"
    assert [item.identity for item in told] == ["thing x", "thing c"]
    assert [problem.hint for problem in caught.value.problems] == ["if nobody needs it: ./lab exec host1 -- rm a", ""]
    assert "ask c" not in world.log, "what may need it is not waited for"
    world.things["a"] = "2"
    assert [item.identity for item in engine.converge(made, system, told.append, (kind(world),))] == [
        "thing a",
        "thing b",
    ]


def test_every_resource_is_waited_for(world: World, system: System) -> None:
    made = phase(Thing(world, "a", silent=2), Thing(world, "b"))
    engine.converge(made, system, lambda _: None, ())
    assert [world.log.count(f"ask {name}") for name in "ab"] == [3, 1], "who has said that it is ready is asked no more"


def test_what_does_not_get_ready_is_an_error_that_names_it(world: World, system: System) -> None:
    with pytest.raises(NotReady, match="thing a: not yet"):
        engine.converge(phase(Thing(world, "a", silent=1000), Thing(world, "b")), system, lambda _: None, ())
