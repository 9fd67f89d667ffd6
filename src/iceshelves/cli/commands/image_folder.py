"""``image push`` and ``serve``: a registry that is a folder, brought to its readers without a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from iceshelves.cli.commands.serve import Address, given_tls, tls_options
from iceshelves.cli.output import Output, output_options
from iceshelves.core.units import format_size

_TREE: Final = click.option(
    "--tree",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    required=True,
    help="The folder of a registry, or a copy of its tree.",
)


@click.command()
@_TREE
@click.argument("destination")
@click.option("--delete", is_flag=True, help="Remove images there that the registry has no longer.")
@output_options
def push(tree: Path, destination: str, delete: bool, output: Output) -> None:
    """Copy a registry to where a web server has its files.

    DESTINATION is a folder, or USER@HOST:FOLDER for one that is reached by SSH; both need rsync.  Clients may
    read there meanwhile: images come first, and each index last.

    Clients keep a catalogue for an hour, so --delete belongs into a push an hour after the last one.
    """
    from iceshelves.cli.folder_shelf import tree_in
    from iceshelves.cli.pushing import push as push_tree

    pushed = push_tree(tree_in(tree), destination, delete=delete)
    sent = f"{pushed.files} files sent, {format_size(pushed.bytes)}." if pushed.files else "Nothing to send."
    gone = f"  {pushed.deleted} deleted." if pushed.deleted else ""
    output.one({"destination": destination, **asdict(pushed)}, lambda: sent + gone)


@click.command()
@_TREE
@click.option(
    "--listen", type=Address(), default="127.0.0.1:8080", show_default=True, help="Where to listen."
)
@tls_options
def serve(tree: Path, listen: tuple[str, int], tls_certificate: Path | None, tls_key: Path | None) -> None:
    """Serve a registry that is a folder.

    Stock clients read by HTTPS only: give a certificate, or put a proxy in front that has one.
    """
    from iceshelves.cli.folder_shelf import tree_in
    from iceshelves.server.tree import serve_tree

    tls = given_tls(tls_certificate, tls_key)
    serve_tree(tree_in(tree), *listen, tls)
