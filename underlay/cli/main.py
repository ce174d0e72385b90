"""The command's frame: options that all verbs share, verbs loaded when they are used, errors as people read them."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from underlay import __version__
from underlay.cli.context import COMPLETE_VARIABLE, Settings
from underlay.ending import ending
from underlay.errors import Exit, UnderlayError
from underlay.hosts.find import HOSTS_VARIABLE, KINDS, PLAN_VARIABLE
from underlay.signals import usual_signals

#: Verb -> (module of underlay.cli, name in it, line in --help), in the order of the help. A table, so that `--help`
#: and a quick verb do not pay for the imports of all others.
_VERBS = {
    "up": ("up", "up", "Bring the lab up: packages, images, hosts, all phases."),
    "test": ("test", "test", "Run every test that this machine can run."),
    "down": ("down", "down", "Remove the lab; nothing is left."),
    "status": ("status", "status", "Show hosts, namespaces, services and addresses."),
    "exec": ("reach", "exec_", "Run a command on a host, or in one of its namespaces."),
    "shell": ("reach", "shell", "Open a shell on a host, or in one of its namespaces."),
    "logs": ("reach", "logs", "Show what a host or one of its programs said."),
    "converge": ("phase", "converge", "Make the hosts as a phase says; a second run changes nothing."),
    "check": ("phase", "check", "Say what differs from a phase, by name."),
    "explain": ("phase", "explain", "Print a phase as a shell script to read and run."),
    "remove": ("phase", "remove", "Take a phase away from the hosts."),
    "plan": ("plan", "plan", "Show what topology.yaml comes to."),
    "image": ("image", "image", "Build, list, check and remove the image that hosts are booted from."),
    "vm-env": ("vmenv", "vm_env", "Start libvirt where none runs yet, and stop it."),
    "vagrant": ("vagrant", "vagrant", "Run vagrant, in the network that vm-env made."),
    "vm": ("vm", "vm", "The Vagrantfile's steps."),
    "bench": ("bench", "bench", "Measure what the network costs to build, and what the shop can take."),
    "leftovers": ("leftovers", "leftovers", "Compare what the machine holds before and after a lab."),
    "completion": ("completion", "completion", "Print the completion script for a shell."),
}

_EPILOG = """\b
Examples:
  ./lab up                                     from an empty machine to all phases
  ./lab test                                   prove it
  ./lab exec host1 --in gateway-1 -- ip route  look around
  ./lab explain phase1 --host host1 | less     read what was done
  ./lab down                                   leave nothing

\b
Exit codes: 0 good, 1 a check failed, 2 bad input or usage, 3 the lab or the machine is not in a state to answer,
70 a fault of ours, with its traceback in a file.
"""

_NEXT_STEP = "the next `up` or `down` takes it from here"


class _Verbs(click.Group):
    """A group whose verbs are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the verbs in the order of the table."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in _VERBS:
            return None
        module, name, _ = _VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"underlay.cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb. That the reader of its output has gone away (`... | head`) is no failure.

        Rooms below spell a command `./lab VERB`; only here it is known which options it needs to mean the same lab.
        """
        try:
            return super().invoke(ctx)
        except UnderlayError as error:
            if isinstance(ctx.obj, Settings):
                error.problems = tuple(ctx.obj.spelled_problem(problem) for problem in error.problems)
            raise
        except BrokenPipeError:
            # What is still to be flushed goes nowhere (Python's documentation of SIGPIPE, module signal).
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return int(Exit.GOOD)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, _, line) in _VERBS.items()])


@click.group(
    cls=_Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="underlay")
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path),
    envvar=PLAN_VARIABLE,
    show_envvar=True,
    help="The plan. [default: topology.yaml of this checkout]",
)
@click.option(
    "--hosts",
    "kind",
    type=click.Choice(tuple(KINDS)),
    envvar=HOSTS_VARIABLE,
    show_envvar=True,
    help="The kind of hosts, for verbs that work on a lab. [default: whatever is up]",
)
@click.option("-v", "--verbose", is_flag=True, help="Say each program that is started.")
@click.pass_context
def cli(context: click.Context, plan_path: Path | None, kind: str | None, *, verbose: bool) -> None:
    """Underlay shows what is under `docker run`, and proves it.

    Two Linux hosts, a small shop, and container networking built by hand on them, with tests that judge by traffic.
    """
    if verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stderr)
    context.obj = Settings(plan_path.absolute() if plan_path else None, kind)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. A person's mistake is shown without a traceback."""
    usual_signals()
    try:
        result = cli.main(args=arguments, prog_name="./lab", complete_var=COMPLETE_VARIABLE, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else str(error))
        return int(Exit.USAGE)
    except click.ClickException as error:
        error.show()
        return int(Exit.USAGE)
    except click.Abort as error:
        return ending(error.__cause__ or KeyboardInterrupt(), _NEXT_STEP)  # click puts it in place of Ctrl-C
    except (Exception, KeyboardInterrupt) as error:
        return ending(error, _NEXT_STEP)
    return result if isinstance(result, int) else int(Exit.GOOD)
