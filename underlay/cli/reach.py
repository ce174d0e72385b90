"""`./lab exec`, `shell` and `logs`: reach into a host."""

from __future__ import annotations

import sys

import click

from underlay.cli.context import Settings, complete_host, complete_namespace, pass_settings
from underlay.errors import Exit
from underlay.hosts import layout
from underlay.process import attach

_IN = click.option(
    "--in", "namespace", metavar="NAMESPACE", shell_complete=complete_namespace, help="In this network namespace."
)
_HOST = click.argument("host", shell_complete=complete_host)


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@_HOST
@_IN
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_settings
def exec_(settings: Settings, host: str, namespace: str | None, command: tuple[str, ...]) -> int:
    """Run a command on a host as root, or in one of its network namespaces.

    Streams and the exit code pass through. A `--` keeps the command's own options apart.

    \b
    Examples:
      ./lab exec host1 -- ip -br address
      ./lab exec host1 --in gateway-1 -- dig +short product
      ./lab exec host2 -- curl -si http://host1:8080/api/products
    """
    machine = settings.host(host)
    return attach(machine.argv(command, namespace=namespace, tty=sys.stdin.isatty()), where=host)


@click.command()
@_HOST
@_IN
@pass_settings
def shell(settings: Settings, host: str, namespace: str | None) -> int:
    """Open a shell on a host as root, or in one of its network namespaces.

    \b
    Examples:
      ./lab shell host1
      ./lab shell host1 --in redis-1
    """
    machine = settings.host(host)
    return attach(machine.argv(("bash", "--login"), namespace=namespace, tty=sys.stdin.isatty()), where=host)


@click.command()
@_HOST
@click.argument("program", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until Ctrl-C.")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(0), help="How many last lines.")
@pass_settings
def logs(settings: Settings, host: str, program: str | None, lines: int, *, follow: bool) -> int:
    """Show the last lines of a program's log, or of the supervisor's own.

    \b
    Examples:
      ./lab logs host1                  the supervisor: what was started, what ended
      ./lab logs host1 gateway-1 -f     one program
    """
    machine = settings.host(host)
    path = f"{layout.LOG_DIRECTORY}/{program or 'supervisord'}.log"
    if not machine.run(("test", "-f", path), check=False).ok:
        found = machine.run(("ls", layout.LOG_DIRECTORY)).stdout.split()
        names = sorted(name.removesuffix(".log") for name in found if name.endswith(".log"))
        raise click.UsageError(f"{host} has no log of {program}; it has logs of: {', '.join(names)}")
    command = ("tail", "-n", str(lines), *(("-F",) if follow else ()), path)
    code = attach(machine.argv(command, tty=False), where=host)
    return int(Exit.GOOD) if follow else code
