"""Completion for bash, which splits words at the colon of ``cluster:name``.  It replaces click's own."""

from __future__ import annotations

import os
from typing import Final

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

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
