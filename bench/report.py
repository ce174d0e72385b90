"""What the figures come to: medians, ratios, and the raw data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median

from bench.build import Result
from bench.inside import Figures
from bench.tools import Tool


@dataclass(frozen=True, slots=True)
class Summary:
    """One tool at one size: medians in seconds of ``runs`` runs, and how many times ours each takes.

    ``figures`` is None if no run ended well; ``error`` says why the first that did not end well did not.
    """

    size: int
    tool: Tool
    runs: int
    figures: Figures | None
    up_ratio: float | None
    down_ratio: float | None
    error: str


#: What the raw data's numbers mean; it stands in the file, so that it explains itself.
DEFINITIONS = {
    "seconds": "all figures",
    "up": "the work: underlay from the list in memory to the kernel's last acknowledgement, Mininet from its topology "
    "in memory to the end of start(); scripts have no resident form, so for them it is up_whole",
    "up_whole": "from the start of the process, with interpreter and imports, to the same moment (underlay: its end)",
    "down": "the work of removal, until no link but the loopback and no name of a namespace is left",
    "down_whole": "the same from the start of the removing process to its end (Mininet has only one process)",
    "settled": "from the start of the removing process until the kernel has cleaned up after every namespace",
}


def summaries(result: Result) -> Iterator[Summary]:
    """Yield one summary for each size and tool that was measured, in order."""
    for size in result.sizes:
        ours = _medians(result, size, Tool.OURS)
        for tool in Tool:
            of_tool = [item for item in result.measurements if item.size == size and item.tool is tool]
            if not of_tool:
                continue
            found = _medians(result, size, tool)
            yield Summary(
                size,
                tool,
                sum(1 for item in of_tool if item.figures),
                found,
                found.up / ours.up if found and ours else None,
                found.down / ours.down if found and ours else None,
                next((item.error for item in of_tool if item.error), ""),
            )


def as_json(result: Result) -> str:
    """Return everything as JSON: definitions, machine, each single figure."""
    return json.dumps({"definitions": DEFINITIONS, **asdict(result)}, indent=1) + "\n"


def _medians(result: Result, size: int, tool: Tool) -> Figures | None:
    found = [item.figures for item in result.measurements if item.size == size and item.tool is tool and item.figures]
    if not found:
        return None

    def middle(of: Callable[[Figures], float]) -> float:
        return median(of(item) for item in found)

    return Figures(
        up=middle(lambda item: item.up),
        up_whole=middle(lambda item: item.up_whole),
        down=middle(lambda item: item.down),
        down_whole=middle(lambda item: item.down_whole),
        settled=middle(lambda item: item.settled),
    )
