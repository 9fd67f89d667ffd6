"""``completion``: click's scripts, but for bash, which splits words at the colon of ``cluster:name``."""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import (
    BashComplete,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

PROGRAM: Final = "iceshelves"
VARIABLE: Final = "_ICESHELVES_COMPLETE"

# The whole line goes to the program, which knows words with colons; what bash has before the last colon of
# its own word must not come back.  That bash treats the colon so can be seen in COMP_WORDBREAKS.
_BASH: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' line type value cut=""
    local word="${COMP_LINE:0:COMP_POINT}"
    word="${word##*[[:space:]]}"
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then
        cut="${word%%:*}:"
    fi
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("${value#"$cut"}")
                if [[ $value == *: ]]; then compopt -o nospace; fi
                ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class ColonBashComplete(BashComplete):
    """Bash completion whose words are those of the command line, not bash's own."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and the one that is being typed."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        if line[-1:].isspace() or not words:
            return words, ""
        return words[:-1], words[-1]


add_completion_class(ColonBashComplete, "bash")


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
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source(), nl=False)
