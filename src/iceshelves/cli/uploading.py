"""Sending large files to the server in pieces, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Final

import click

from iceshelves.cli.client import Client
from iceshelves.core.errors import Failed, NotFound
from iceshelves.core.units import format_size

PIECE: Final = 8 * 1024 * 1024


def upload(client: Client, path: Path) -> str:
    """Send what the server lacks of the file at ``path``; its SHA-256, by which it is known there.

    Raises :class:`NotFound` ``file_not_found``, and :class:`Failed` where the server takes no more.
    """
    with _opened(path) as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        size = os.fstat(stream.fileno()).st_size
        place = f"/api/uploads/{sha256}"
        here = int(client.get(place)["size"])
        if 0 < here < size:
            click.echo(f"{path.name}: going on after {format_size(here)}.", err=True)
        with _meter(path.name, here, size) as advance:
            while here < size:
                stream.seek(here)
                there = int(client.put_bytes(place, stream.read(PIECE), offset=here)["size"])
                if there <= here:
                    raise Failed(
                        f"The server takes no more of {path.name} than {format_size(here)}.",
                        code="upload_refused",
                        hint="Look for its reason in the server's log.",
                    )
                advance(there - here)
                here = there
    return sha256


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read: {error.strerror}.", code="file_not_found", hint="Check its name."
        ) from error
    with stream:
        yield stream


@contextmanager
def _meter(name: str, here: int, size: int) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal, else a line at the end; nothing where there is nothing to send."""
    if here >= size:
        yield lambda _: None
    elif sys.stderr.isatty():
        with click.progressbar(length=size, label=name, file=sys.stderr) as bar:
            bar.update(here)
            yield bar.update
    else:
        yield lambda _: None
        click.echo(f"{name}: {format_size(size - here)} sent.", err=True)
