"""What differs between two plans, said by the keys of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from underlay.topology.model import Plan
from underlay.topology.render import Json, plan_as_data

#: The parts of a plan that a host is started with: what differs there needs hosts to start anew.
STARTED_WITH = ("lab", "domain", "hosts", "underlay")


def differences(old: Plan, new: Plan) -> tuple[str, ...]:
    """Return the keys of what differs, such as ``services.edge.port``; nothing for equal plans.

    What a plan may leave out is compared as if it were said. ``hosts (order)`` stands for another order.
    """
    return tuple(_differences(plan_as_data(old), plan_as_data(new), ""))


def needing_a_start(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the keys that stand for what a host is started with."""
    return tuple(key for key in keys if key.replace(" ", ".").partition(".")[0] in STARTED_WITH)


def _differences(old: Mapping[str, Json], new: Mapping[str, Json], above: str) -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{above}{key}.")
        elif before != after:
            yield f"{above}{key}"
    if old.keys() == new.keys() and list(old) != list(new):
        yield f"{above.rstrip('.')} (order)"
