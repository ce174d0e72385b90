"""`./lab bench ...`: what the lab's network costs to build, side by side with other ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from bench.build import Result, measure_build
from bench.report import Summary, as_json, summaries
from bench.shop import Load, measure_shop
from bench.shop import Result as ShopResult
from bench.tools import Tool
from bench.tunnel import Result as TunnelResult
from bench.tunnel import measure_tunnel
from underlay.cli.context import Settings, pass_settings
from underlay.cli.progress import Bar
from underlay.errors import InputError, NotReady, Problem
from underlay.hosts.base import Lab

#: Columns of the table; where there are fewer, lines wrap rather than lose figures.
_WIDTH = 110


class _Sizes(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between them."""

    name = "N,N,..."

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read them; click's usage error (exit 2) if one is not a number."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(word) for word in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers like 10,50,200", param, ctx)


def _figures(verb: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option that says where a verb's figures go."""
    return click.option(
        "--json",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path(f"reports/bench-{verb}.json"),
        show_default=True,
        help="Where every single figure goes.",
    )


@click.group()
def bench() -> None:
    """Measure what the lab's network costs to build, and what its shop can take."""


@bench.command()
@click.option(
    "--sizes", type=_Sizes(), default="10,50,200,500,1000", show_default=True, help="Namespaces on the one bridge."
)
@click.option("--runs", default=5, show_default=True, help="Runs of each tool at each size; medians are shown.")
@click.option(
    "--mininet-runs", type=int, help="Fewer runs of Mininet, which takes minutes at 1,000. [default: as the others]"
)
@click.option(
    "--limit", default=180.0, show_default=True, help="Seconds for one step; a tool over it is left out at that size."
)
@click.option(
    "--without", multiple=True, type=click.Choice([str(tool) for tool in Tool]), help="Leave a tool out; repeat it."
)
@_figures("build")
def build(
    *, sizes: tuple[int, ...], runs: int, mininet_runs: int | None, limit: float, without: tuple[str, ...], path: Path
) -> None:
    """Build and remove a network of N namespaces on one bridge, in five ways, and compare.

    Underlay's own provisioning, the same as a shell script (`./lab explain`), `ip -batch`, its floor (`ip -batch`
    without anything inside the namespaces, so it does less), and Mininet if it is installed. It works in network
    namespaces of its own and checks afterwards that this machine's network is as it was. All five sizes with Mininet
    take 20 minutes on 2 CPUs. Ctrl-C ends it early and shows what there is.

    \b
    Examples:
      ./lab bench build
      ./lab bench build --sizes 10,50 --runs 3
      ./lab bench build --sizes 1000 --without mininet --without explain
    """
    _refuse_unwritable(path)
    with Bar() as bar:

        def progress(number: int, total: int, what: str) -> None:
            bar.step(f"{number}/{total}: {what}")

        fewer = {Tool.MININET: runs if mininet_runs is None else mininet_runs} | {Tool(name): 0 for name in without}
        result = measure_build(sizes, runs, limit, progress, fewer)
    click.echo(render(result, Console().width), nl=False)
    path.write_text(as_json(result))
    click.echo(f"every figure is in {path}")
    result.ensure_unchanged()
    click.echo("this machine's own network is as it was before")


@bench.command()
@click.option(
    "--beside",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True),
    help="The plan of another lab that is up, measured in turns with this one; repeat it.",
)
@click.option("--rounds", default=5, show_default=True, help="Rounds; medians are shown.")
@click.option("--requests", default=2000, show_default=True, help="Requests in one go.")
@click.option("--at-once", default=50, show_default=True, help="Requests at a time.")
@_figures("shop")
@pass_settings
def shop(settings: Settings, *, beside: tuple[Path, ...], rounds: int, requests: int, at_once: int, path: Path) -> None:
    """Put load on the shop of the lab that is up, and compare with others that are up.

    Requests a second from the other host, through edge and gateway and of the edge alone; how long the shop's own
    services take to start, and their memory. They are started again for it, so the shop is away for a moment.

    \b
    Examples:
      ./lab bench shop
      ./lab bench shop --rounds 9
      ./lab bench shop --beside /tmp/other/topology.yaml
    """
    _refuse_unwritable(path)
    labs = [settings.lab(), *(_beside(Settings(plan, settings.kind)) for plan in beside)]
    with Bar() as bar:
        result = measure_shop(
            labs, rounds, Load(requests, at_once), lambda number, total: bar.step(f"round {number}/{total}")
        )
    click.echo(render_shop(result, Console().width), nl=False)
    path.write_text(result.as_json())
    click.echo(f"every figure is in {path}")


@bench.command()
@click.option("--rounds", default=7, show_default=True, help="Rounds; medians are shown.")
@_figures("tunnel")
@pass_settings
def tunnel(settings: Settings, *, rounds: int, path: Path) -> None:
    """Measure what the tunnel of phase 3 costs, beside the underlay it goes over and a cable on one host.

    Bytes a second of one TCP connection, and round trips, in turns. Nothing of the lab is changed.

    \b
    Examples:
      ./lab bench tunnel
      ./lab bench tunnel --rounds 15
    """
    _refuse_unwritable(path)
    with Bar() as bar:
        result = measure_tunnel(settings.lab(), rounds, lambda number, total: bar.step(f"round {number}/{total}"))
    click.echo(render_tunnel(result, Console().width), nl=False)
    path.write_text(result.as_json())
    click.echo(f"every figure is in {path}")


def _beside(other: Settings) -> Lab:
    """Return another plan's lab; what is said of it names that plan."""
    try:
        return other.lab()
    except NotReady as error:
        raise NotReady(*(other.spelled_problem(problem) for problem in error.problems)) from error


def _refuse_unwritable(path: Path) -> None:
    """Raise InputError, before anything is measured, if the figures could not be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        what = f"the figures cannot be written there: {error.strerror}"
        raise InputError(Problem(f"--json {path}", what, "name a file in a directory of yours")) from error


def render_shop(result: ShopResult, columns: int) -> str:
    """Return the table for a terminal of so many columns: a row for each lab, with how many times the first's it is."""
    title = (
        f"medians of {result.rounds} rounds of {result.load.requests} requests, {result.load.at_once} at a time; "
        f"Linux {result.kernel}, {result.cpus} CPUs"
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in ("lab", "requests/s", "x first", "edge alone", "x first", "start", "memory"):
        table.add_column(column, justify="left" if column == "lab" else "right", no_wrap=True)
    first = next(iter(result.hosts))
    for lab in result.hosts:
        rates = (
            text
            for what in ("shop", "edge")
            for text in (
                f"{result.median(lab, what):.0f}",
                f"{result.median(lab, what) / result.median(first, what):.2f}",
            )
        )
        memory = result.median(lab, "memory") / 2**20
        table.add_row(lab, *rates, f"{result.median(lab, 'start'):.2f} s", f"{memory:.0f} MiB")
    console = Console(width=max(_WIDTH, columns))
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def render_tunnel(result: TunnelResult, columns: int) -> str:
    """Return the table for a terminal of so many columns: a row for each way, beside the underlay's."""
    title = f"medians of {result.rounds} rounds; Linux {result.kernel}, {result.cpus} CPUs"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in ("way", "throughput", "x underlay", "round trip", "x underlay"):
        table.add_column(column, justify="left" if column == "way" else "right", no_wrap=True)
    for way in dict.fromkeys(sample.way for sample in result.samples):
        rate, trip = (result.median(way, what) for what in ("throughput", "trip"))
        rates, trips = (
            value / result.median("underlay", what) for value, what in ((rate, "throughput"), (trip, "trip"))
        )
        table.add_row(way, f"{rate / 2**20:.0f} MiB/s", f"{rates:.2f}", f"{trip * 1e6:.0f} us", f"{trips:.2f}")
    console = Console(width=max(_WIDTH, columns))
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def render(result: Result, columns: int) -> str:
    """Return the table, and below it what was left out or went wrong, for a terminal of so many columns."""
    console = Console(width=max(_WIDTH, columns))
    with console.capture() as captured:
        console.print(_table(result))
        for tool, why in result.machine.missing.items():
            console.print(f"{tool} was left out: {why}", markup=False, highlight=False)
        for item in summaries(result):
            if item.error:
                console.print(f"{item.tool} at {item.size}: {item.error}", markup=False, highlight=False)
    return captured.get()


def _table(result: Result) -> Table:
    place = result.machine
    load = " to ".join(f"{value:.1f}" for value in result.load)
    title = f"medians in seconds; Linux {place.kernel}, {place.cpus} CPUs, load {load}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in (
        "namespaces",
        "tool",
        "runs",
        "up",
        "x ours",
        "down",
        "x ours",
        "up, whole",
        "down, whole",
        "settled",
    ):
        table.add_column(column, justify="left" if column == "tool" else "right", no_wrap=True)
    for item in summaries(result):
        table.add_row(*_row(item), end_section=item.tool is Tool.MININET)
    return table


def _row(item: Summary) -> tuple[str, ...]:
    figures = item.figures
    if figures is None:
        return (str(item.size), str(item.tool), "0", *"-" * 7)
    return (
        str(item.size),
        str(item.tool),
        str(item.runs),
        f"{figures.up:.3f}",
        f"{item.up_ratio:.1f}" if item.up_ratio else "-",
        f"{figures.down:.3f}",
        f"{item.down_ratio:.1f}" if item.down_ratio else "-",
        f"{figures.up_whole:.3f}",
        f"{figures.down_whole:.3f}",
        f"{figures.settled:.3f}",
    )
