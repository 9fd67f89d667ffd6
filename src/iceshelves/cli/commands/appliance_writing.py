"""``appliance new``, ``lint`` and ``import``: for authors, and without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from iceshelves.cli.findings import tell_findings
from iceshelves.cli.recipes import tell_worst
from iceshelves.core.errors import InvalidInput

if TYPE_CHECKING:
    from iceshelves.appliances.model import Base
    from iceshelves.core.finding import Finding

_PATH: Final = click.Path(path_type=Path)
_BASE: Final = "debian/12"


@click.command()
@click.argument("path", type=_PATH)
@click.option("--base", metavar="OS/RELEASE", help=f"What it is built on.  [default: {_BASE}]")
@click.option("--from", "source", metavar="NAME", help="Start from a copy of this built-in appliance.")
def new(path: Path, base: str | None, source: str | None) -> None:
    """Make a working recipe to start from.

    It is called as its folder, PATH.  A copy of a built-in appliance keeps the base that it was written for.
    """
    from iceshelves.appliances import new as make
    from iceshelves.appliances.library import MINIMAL

    if base is not None and source is not None:
        raise click.UsageError("A copy keeps its base: give --base or --from, not both.")
    make(path, path.resolve().name, _base(base or _BASE), source or MINIMAL)
    click.echo(f"Made {path}.  Edit it, then: iceshelves appliance lint {path}")


@click.command()
@click.argument("paths", metavar="FOLDER...", type=_PATH, nargs=-1, required=True)
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", help="Form of the output."
)
def lint(paths: tuple[Path, ...], format_: str) -> int:
    """Check recipes and say what is wrong where.

    Each finding is a line FILE:LINE: level: message (code), and the status is 1 if any is an error.
    """
    from iceshelves.appliances import lint as find

    found: list[tuple[Path, Finding]] = [(path, finding) for path in paths for finding in find(path)]
    return tell_findings(found, format_, "1 recipe" if len(paths) == 1 else f"{len(paths)} recipes")


@click.command("import")
@click.argument("folder", type=_PATH)
@click.option("--into", type=_PATH, metavar="FOLDER", help="The new folder.  [default: its name, here]")
def import_(folder: Path, into: Path | None) -> None:
    """Make a recipe of the Incus Appliance Registry into one of ours.

    FOLDER has an appliance.yaml and an image.yaml of distrobuilder or a config.yaml with cloud-init's
    user-data.  What was refused as unsafe, or cannot be carried over, is told with its line in the original.
    """
    from iceshelves.appliances import import_original

    target = into or Path(folder.resolve().name)
    findings = import_original(folder, target)
    tell_worst(findings, folder)
    click.echo(f"Made {target}.  Look at it, then: iceshelves appliance lint {target}")


def _base(text: str) -> Base:
    """The base that ``OS/RELEASE`` means.  Raises :class:`InvalidInput` ``unknown_base``."""
    from iceshelves.appliances.model import Base
    from iceshelves.appliances.releases import RELEASES, code_name

    name, _, release = text.partition("/")
    for distribution in RELEASES:
        if name == distribution and release.replace(".", "").isalnum():
            code = code_name(distribution, release)
            if code is not None:
                return Base(distribution, code)
    raise InvalidInput(
        f"{text[:80]!r} is not a base that recipes can have.",
        code="unknown_base",
        hint=f"Write one of {', '.join(RELEASES)} and its release, such as debian/12 or ubuntu/noble.",
    )
