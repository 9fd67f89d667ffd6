"""``version``."""

from __future__ import annotations

import click

from iceshelves import __version__
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.output import Output, facts, output_options
from iceshelves.core.errors import IceShelvesError


@click.command()
@output_options
@pass_app
def version(app: App, output: Output) -> None:
    """Print the versions of the client and the server."""
    found = {"client": __version__, "server": None, "api": None, "problem": None}
    try:
        about = app.client.get("/api")
        found |= {"server": about["version"], "api": about["api_version"]}
    except IceShelvesError as error:
        found["problem"] = error.message
    server = found["server"] or f"unknown: {found['problem']}"
    output.one(found, lambda: facts([("Client", __version__), ("Server", server), ("API", found["api"])]))
