"""`./lab completion`: completion for bash, zsh and fish."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from underlay.cli.context import COMPLETE_VARIABLE


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell; it completes `./lab` and `lab`.

    \b
    Examples:
      eval "$(./lab completion bash)"
      ./lab completion fish | source
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"there is no completion for {shell}")
    script = made(context.find_root().command, {}, "lab", COMPLETE_VARIABLE).source()
    if shell == "bash":
        script += "\ncomplete -o nosort -F _lab_completion ./lab\n"
    click.echo(script)
