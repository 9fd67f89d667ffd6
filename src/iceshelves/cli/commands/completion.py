"""``completion``."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from iceshelves.cli import bash  # noqa: F401 - replaces click's completion for bash
from iceshelves.cli.main import COMPLETION, PROGRAM


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    The names of deployments, clusters and eggs come live from the current server.

    \b
    bash:  iceshelves completion bash > ~/.local/share/bash-completion/completions/iceshelves
    zsh:   iceshelves completion zsh > "${fpath[1]}/_iceshelves"
    fish:  iceshelves completion fish > ~/.config/fish/completions/iceshelves.fish
    """
    kind: type[ShellComplete] | None = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, COMPLETION).source(), nl=False)
