"""The rules of the house: who may know whom, who may start programs and pause, how long a file may be.

All of it is read from the source; nothing of it is imported but the names of the phases.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from underlay.phases import PHASES

ROOT = Path(__file__).parents[1]
OURS = ("underlay", "provision", "services", "acceptance", "bench", "tests", "conftest")
#: What every room but the services may use.
COMMON = (
    *("underlay.errors", "underlay.ending", "underlay.signals"),
    *("underlay.process", "underlay.wait", "underlay.progress", "underlay.repository"),
    *("underlay.durable", "underlay.libc", "underlay.mountinfo", "underlay.unixhttp"),
)
#: Room -> what it may import of ours, itself aside. A module belongs to the longest name that it begins with.
ROOMS = {
    "underlay": ("underlay.topology", *COMMON),
    "underlay.__main__": ("underlay.cli",),
    "underlay.errors": (),
    "underlay.topology": ("underlay.errors",),
    "underlay.hosts": ("underlay.topology", "underlay.needs", "underlay.packages", *COMMON),
    "underlay.image": ("underlay.topology", "underlay.artifacts", "underlay.needs", "underlay.packages", *COMMON),
    "underlay.box": ("underlay.image", "underlay.artifacts", "underlay.needs", "underlay.packages", *COMMON),
    # It builds in a host, of the image.
    "underlay.shop": (
        *("underlay.topology", "underlay.hosts", "underlay.image"),
        *("underlay.artifacts", "underlay.needs", "underlay.packages", *COMMON),
    ),
    "underlay.cli": ("underlay",),
    "provision": ("underlay.topology", "underlay.phases", *COMMON),
    # It does to a running machine what makes an image.
    "provision.host": ("underlay.image", "underlay.box", *COMMON),
    # It runs commands, those of phases among them, which it imports by their names.
    "provision.host.resident": ("underlay.phases", *COMMON),
    "services": (),
    "acceptance": ("underlay.topology", "underlay.phases", "underlay.hosts", *COMMON),
    "bench": ("provision", "underlay.topology", "underlay.hosts", *COMMON),
    "conftest": ("acceptance", "underlay.topology", "underlay.phases", "underlay.hosts", *COMMON),
}
#: Where a verb of `./lab bench` reaches the measurements, which are made with the code that they measure.
EXCEPTIONS = {("underlay.cli.bench", "bench")}
#: Who starts programs otherwise than by underlay.process, and why.
STARTERS = {
    "underlay.process": "the one place",
    "underlay.hosts.namespace.launch": "forks into the namespaces of a new host",
    "underlay.hosts.vagrant.cli": "python-vagrant starts vagrant",
    "underlay.hosts.resident": "talks with its helper on a host while it runs",
    "provision.host.resident": "is that helper: forks what it is asked to run",
    "underlay.hosts.namespace.boot": "becomes the host's first process",
    "acceptance.apart": "becomes other users, each in a process of its own",
    "acceptance.observe": "runs on a host, where there is nothing of ours",
    "acceptance.listeners": "runs on a host, where there is nothing of ours",
    "acceptance.capture": "runs on a host, where there is nothing of ours",
    "bench.inside": "talks with the program that runs Mininet while it runs",
    "bench.starting": "runs on a host, which may hold another version of us",
}
#: Where a Python is started without -P, and why.
SAFE_OTHERWISE = {
    "underlay.image.recipe": "words for pip, which is run with PYTHONSAFEPATH; the file is part of the image's key",
}
#: Who pauses, and why.
PAUSERS = {
    "underlay.wait": "the one place",
    "bench.gone": "standard library only: the Python that has Mininet need not be able to run us",
    "bench.starting": "runs on a host, which may hold another version of us",
}
_STARTING = re.compile(r"os\.(exec\w+|fork\w*|posix_spawnp?|spawn\w+|system|popen)|subprocess(\..+)?|pty\..+")
LONGEST = 400
#: Files that are made or hold data: they may be as long as they are.
DATA = {".json", ".txt", ".yaml", ".conf", ".lock"}


@cache
def files() -> tuple[Path, ...]:
    """Every file that is or can be in the repository."""
    return tuple(sorted(_below(ROOT)))


def _below(directory: Path) -> Iterator[Path]:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    for path in directory.iterdir():
        if path.name in ignored or path.name == ".git" or path.is_symlink():
            continue
        if path.is_dir():
            yield from _below(path)
        elif path.suffix != ".pyc":
            yield path


@cache
def modules() -> dict[str, ast.Module]:
    """Every Python module of ours by its name."""
    found: dict[str, ast.Module] = {}
    for path in files():
        if path.suffix == ".py":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def product() -> dict[str, ast.Module]:
    """The modules that are no tests."""
    return {name: tree for name, tree in modules().items() if not within(name, "tests")}


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


@cache
def imports(module: str) -> frozenset[str]:
    """The full names of all that a module imports, wherever in it; `from a import b` is a.b."""
    return frozenset(_imports(module, modules()[module]))


def _imports(module: str, tree: ast.Module) -> Iterator[str]:
    package = module if (ROOT / module.replace(".", "/")).is_dir() else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    return max((room for room in ROOMS if within(module, room)), key=len, default=None)


@cache
def uses(module: str) -> frozenset[str]:
    """Dotted names that a module uses (``time.sleep``), and what it imports."""
    dotted = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(modules()[module])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return frozenset(dotted) | imports(module)


def test_there_is_something_to_look_at() -> None:
    assert {"underlay.topology.model", "underlay.cli.main", "provision.engine", "services.order.app"} <= set(modules())
    assert {ROOT / "lab", ROOT / "topology.yaml"} <= set(files())


@pytest.mark.parametrize("room", ROOMS)
def test_who_may_know_whom(room: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module in product()
        if room_of(module) == room
        for name in sorted(imports(module))
        if any(within(name, top) for top in OURS)
        and not any(within(name, allowed) for allowed in (room if "." in room else "", *ROOMS[room]) if allowed)
        and not (within(name, room) and room_of(name) == room)
        and name != "underlay.__version__"
        and not any(module == user and within(name, used) for user, used in EXCEPTIONS)
    ]
    assert wrong == []


def test_what_holds_in_every_phase_knows_none() -> None:
    phases = tuple(f"acceptance.{phase}" for phase in PHASES)
    shared = [name for name in product() if within(name, "acceptance") and not any(within(name, top) for top in phases)]
    wrong = [f"{name} imports {used}" for name in shared for used in imports(name) if used.startswith(phases)]
    assert "acceptance.suite.flows" in shared
    assert wrong == []


def test_every_module_is_in_a_room() -> None:
    assert [name for name in product() if room_of(name) is None] == []


def test_nothing_of_the_product_imports_the_tests() -> None:
    assert [name for name in product() if any(within(used, "tests") for used in imports(name))] == []


def test_one_test_looks_at_the_shipped_plan() -> None:
    """README invites to change it; the others bring their own (``tests.plans``)."""
    named = re.compile(r"""(ROOT|REPOSITORY|parents\[\d\]\)?) / ["']topology\.yaml["']""")
    tests = [path for path in files() if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")]
    found = {path.name for path in tests if named.search(path.read_text(encoding="utf-8"))}
    assert found == {"test_shipped.py", Path(__file__).name}


def test_programs_are_started_in_few_places() -> None:
    starters = {name for name in product() if any(_STARTING.fullmatch(used) for used in uses(name))}
    assert starters - set(STARTERS) == set()
    assert set(STARTERS) - starters == set(), "an exception that nobody needs any more"


def test_no_shell_is_asked() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]
    assert found == []


def _runs_a_module(words: list[ast.expr]) -> Iterator[ast.expr]:
    """Each `-m` of an argument list that follows a Python named by a variable: sys.executable, a path."""
    options: list[object] | None = None
    for word in words:
        if not isinstance(word, ast.Constant):
            options = []
        elif options is not None and word.value == "-m" and "-P" not in options:
            yield word
        elif options is not None and str(word.value).startswith("-"):
            options.append(word.value)
        else:
            options = None


def test_python_is_not_led_by_the_current_directory() -> None:
    """What root starts on the workstation is started with -P; hosts say the same in their environment."""
    found = {
        f"{name}:{word.lineno}"
        for name, tree in product().items()
        if name not in SAFE_OTHERWISE
        for node in ast.walk(tree)
        if isinstance(node, ast.List | ast.Tuple)
        for word in _runs_a_module(node.elts)
    }
    assert found == set()


@pytest.mark.parametrize("name", ["lab", "Vagrantfile", "tox.ini", ".ci/run"])
def test_scripts_do_not_let_it_either(name: str) -> None:
    """Every Python with options of its own has -P as the first of them."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    python = re.compile(r"""(?:python3?"?,?|"\$(?:python|name)") +"?(-\S*)""")
    assert [line.strip() for line in lines for option in python.findall(line) if not option.startswith("-P")] == []


def test_only_one_place_pauses() -> None:
    pausing = {name for name in modules() if {"time.sleep", "asyncio.sleep"} & uses(name)}
    assert pausing == set(PAUSERS)


def test_no_error_is_swallowed_unseen() -> None:
    """No bare except; `except Exception` only where it stands with its reason, and raises or answers."""
    bare = [
        f"{name}:{node.lineno}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (all(isinstance(line, ast.Pass) for line in node.body) and _is_broad(node.type)))
    ]
    assert bare == []


def _is_broad(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"Exception", "BaseException"}


def test_files_can_be_read_in_one_sitting() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in files()
        if path.suffix not in DATA and "golden" not in path.parts
        if (lines := len(path.read_bytes().splitlines())) > LONGEST
    }
    assert too_long == {}


def test_no_file_knows_the_machine_that_it_was_written_on() -> None:
    # A home directory, or a directory of somebody's own below /tmp, /work or /mnt.
    place = re.compile(rf"{re.escape(str(ROOT))}\b|/(?:root|work)/\w|/home/(?!me\b|somebody\b)\w")
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files()
        if path != Path(__file__)
        for match in place.finditer(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert found == set()


def test_each_phase_has_its_tox_environment_and_its_folder_of_tests() -> None:
    """The list in underlay/phases.py is the one that counts; tox and the suite cannot read it."""
    sections = re.findall(r"^\[testenv:(phase\w+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    assert tuple(sections) == PHASES
    assert tuple(sorted(path.name for path in (ROOT / "acceptance").glob("phase*"))) == PHASES
    assert tuple(sorted(path.name for path in (ROOT / "provision").glob("phase?"))) == PHASES


def requirements() -> list[Path]:
    return sorted((ROOT / "requirements").glob("*.txt"))


def test_there_are_requirements() -> None:
    assert {path.name for path in requirements()} >= {"image.txt", "lab.txt", "test.txt"}


@pytest.mark.parametrize("path", requirements(), ids=lambda path: path.name)
def test_requirements_are_pinned_by_hash_and_name_no_place(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert "index-url" not in text.replace("--no-emit-index-url", "")
    entries = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    assert entries
    pinned = re.compile(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+( ;[^-]+)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert [entry for entry in entries if not pinned.fullmatch(entry)] == []
