"""Asking people: only where somebody can answer, and never a secret in the open."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.secret import Secret

_MOST: Final = 64 * 1024
#: where people can see for themselves what a server has to show
_COMPARE: Final = {
    "certificate": "incus info | grep fingerprint (lxc info on LXD)",
    "host_key": "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
}


def somebody_is_there() -> bool:
    """Whether questions can be asked: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


@dataclass(frozen=True, slots=True)
class Hidden:
    """A secret that is not on the command line: its ``name``, and the variable that may hold it."""

    name: str
    variable: str

    def read(self, file: str | None) -> Secret:
        """From ``file`` (``-``: standard input), from the environment, or asked for.

        Raises :class:`NotFound` and :class:`InvalidInput` ``secret_missing``.
        """
        if file is not None:
            text = text_of_file(file)
        elif self.variable in os.environ:
            text = os.environ[self.variable]
        elif somebody_is_there():
            text = click.prompt(self.name, hide_input=True, err=True)
        else:
            text = sys.stdin.read(_MOST)
        if not text.strip():
            raise InvalidInput(
                f"No {self.name.lower()} was given.",
                code="secret_missing",
                hint=f"Type it, pipe it, name its file, or set {self.variable}.",
            )
        return Secret(text.strip())


def text_of_file(path: str) -> str:
    """What is in a small file (``-``: standard input).  Raises :class:`NotFound`, :class:`InvalidInput`."""
    if path == "-":
        return sys.stdin.read(_MOST)
    try:
        with Path(path).open("rb") as stream:
            return stream.read(_MOST).decode()
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read: {error.strerror}.", code="file_not_found", hint="Check its name."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not text.", code="not_text", hint="Give the PEM form.") from error


def choose(question: str, answers: Sequence[tuple[str, str]]) -> str:
    """Let one of ``answers`` (value and words) be chosen by its number; the first is the default."""
    click.echo(question, err=True)
    for number, (_, words) in enumerate(answers, 1):
        click.echo(f"  {number}) {words}", err=True)
    chosen = click.prompt(
        "Choose", type=click.IntRange(1, len(answers)), default=1, err=True, show_default=True
    )
    return answers[chosen - 1][0]


def ask(question: str, default: str | None = None) -> str:
    """A line of text."""
    return str(click.prompt(question, default=default, err=True)).strip()


def confirm_fingerprint(where: str, kind: str, fingerprint: str) -> None:
    """Go on only if somebody vouches for the ``fingerprint`` of a certificate or host_key (``kind``).

    Enter alone does not do it.  Raises :class:`InvalidInput` ``not_confirmed``.
    """
    click.echo(f"{where} shows\n    {fingerprint}\nOn that machine: {_COMPARE[kind]}", err=True)
    if not click.confirm("Is it the same", default=False, err=True):
        raise InvalidInput(
            "Nobody vouched for it; nothing was trusted.",
            code="not_confirmed",
            hint="Compare the two first. If they differ, somebody stands in between.",
        )
