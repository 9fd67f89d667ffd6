"""``image list``, ``verify``, ``gc`` and ``remote-line``: a registry looked at and looked after."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import click

from iceshelves.cli import asking
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_image
from iceshelves.cli.listing import limit_option, told_if_cut
from iceshelves.cli.output import Column, Output, output_options, table
from iceshelves.cli.problems import ERROR
from iceshelves.cli.servers import PREFIX
from iceshelves.cli.shelf import Retention, Shelf, Wanted, shelf_option
from iceshelves.cli.steps import age
from iceshelves.cli.text import printable
from iceshelves.cli.values import Duration
from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.units import format_size

_COLUMNS: Final = (
    Column("NAME", "appliance"),
    Column("VERSION", "version"),
    Column("ARCH", "architecture"),
    Column("SERIAL", "serial"),
    Column("CHANNELS", "channels"),
    Column("TYPES", lambda entry: list(entry["fingerprints"])),
    Column("FINGERPRINT", lambda entry: next(iter(entry["fingerprints"].values()), "")[:12]),
    Column("SIZE", lambda entry: format_size(int(entry["size"]))),
    Column("AGE", lambda entry: age(entry.get("published_at"))),
)
_COLOURS: Final = {"error": "red", "warning": "yellow"}
#: what a remote may be called; a colon ends its name, and it becomes the name of a file
_REMOTE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@click.command("list")
@click.option("--channel", metavar="NAME", help="Only what this channel shows.")
@click.option("--appliance", metavar="NAME", shell_complete=complete_image, help="Only this appliance.")
@click.option("--arch", metavar="NAME", help="Only this architecture.")
@limit_option(100)
@shelf_option
@output_options
def list_images(
    shelf: Shelf, channel: str | None, appliance: str | None, arch: str | None, limit: int, output: Output
) -> None:
    """List published images, the newest first."""
    entries = shelf.images(Wanted(channel, appliance, arch), limit)
    narrowed = channel or appliance or arch
    empty = "No such images." if narrowed else "No images.  Try: iceshelves image build nginx"
    output.many(entries, _COLUMNS, empty)
    told_if_cut(entries, limit)


@click.command()
@click.option("--everything", is_flag=True, help="Read files again that were found good before.")
@shelf_option
@output_options
def verify(shelf: Shelf, everything: bool, output: Output) -> int:
    """Check everything that is published.

    Files and their hashes, catalogues and indexes, aliases, deltas.  The status is 1 if there is an error.
    """
    found = shelf.verify(everything=everything)
    if output.is_for_people:
        for finding in found["findings"]:
            click.echo(_finding(finding))
        click.echo(_verified(found), err=True)
    else:
        output.one(found, str)
    return 0 if found["clean"] else ERROR


@click.command()
@click.option(
    "--newest",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=5,
    show_default=True,
    help="Keep this many builds of each appliance in each channel.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, 36500),
    metavar="N",
    default=30,
    show_default=True,
    help="Keep all that are younger.",
)
@click.option(
    "--grace",
    type=Duration(),
    default="48h",
    show_default=True,
    help="Keep files this long after the last channel has shown them; 1h at least.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@shelf_option
@output_options
def gc(
    shelf: Shelf, newest: int, days: float, grace: float, dry_run: bool, yes: bool, output: Output
) -> None:
    """Remove what no channel has needed for a while.

    Builds that are neither among the newest nor young go out of their channels first, and their files after
    the grace: clients keep a catalogue for an hour and may ask for what it names.
    """
    retention = Retention(newest, days, int(grace))
    if dry_run or not yes:
        plan = shelf.plan_gc(retention)
        if dry_run:
            output.one(plan, lambda: _collected(plan, "would go"))
            return
        _confirm(plan)
    done = shelf.collect(retention)
    output.one(done, lambda: _collected(done, "gone"))


@click.command("remote-line")
@click.option(
    "--name", metavar="NAME", default="iceshelves", show_default=True, help="What to call the remote."
)
@click.option("--channel", metavar="NAME", help="Another channel than stable.")
@click.option("--lxd", is_flag=True, help="For lxc, LXD's client, instead of incus.")
@output_options
@pass_app
def remote_line(app: App, name: str, channel: str | None, lxd: bool, output: Output) -> None:
    """Print the lines that add the registry to a stock client.

    Paste them into a shell.  Where no authority that this machine knows has signed the server's certificate,
    there are lines that pin it.
    """
    from iceshelves.cli.remotes import PROGRAMS, Remote, certificate_to_pin

    if not _REMOTE.fullmatch(name):
        raise click.UsageError(f"{name!r} cannot be a remote's name: use letters, digits, '.', '_' and '-'.")
    url = _url(app, channel)
    remote = Remote(name, url, certificate_to_pin(url))
    program = PROGRAMS["lxd" if lxd else "incus"]
    lines = remote.lines(program)
    described = {"name": name, "url": url, "certificate": remote.certificate, "lines": lines}
    output.one(described, lambda: "\n".join(lines))
    if output.is_for_people:
        if lxd and remote.certificate:
            click.echo("LXD from a snap: first  export LXD_CONF=~/snap/lxd/common/config", err=True)
        click.echo(f"Next:  {program.command} image list {name}:", err=True)


def _url(app: App, channel: str | None) -> str:
    """The address of a channel for clients.  Raises :class:`InvalidInput` ``https_needed``."""
    found = app.client.get("/api/images/remote")
    server = app.server().url
    if urlsplit(server).scheme != "https":
        raise InvalidInput(
            f"Clients read image servers by HTTPS only, and {urlsplit(server).netloc} is used without.",
            code="https_needed",
            hint="Start the server with 'iceshelves serve --tls', or put a proxy in front that speaks HTTPS; "
            "then log in to that address.",
        )
    if channel is not None and channel not in found["channels"]:
        raise NotFound(
            f"No channel {channel!r} shows an image.",
            code="channel_not_found",
            hint=f"There is {', '.join(found['channels']) or 'none yet'}.",
        )
    url = server + str(found["path"]).removeprefix(PREFIX)
    return url if channel is None else f"{url}/{channel}"


def _finding(finding: Mapping[str, Any]) -> str:
    where, severity, code, message, hint = (
        printable(str(finding[name])) for name in ("where", "severity", "code", "message", "hint")
    )
    level = click.style(f"{severity}:", fg=_COLOURS.get(severity), bold=True)
    return f"{where}: {level} {message} ({code})" + (f"\n    {hint}" if hint else "")


def _verified(found: Mapping[str, Any]) -> str:
    errors = sum(finding["severity"] == "error" for finding in found["findings"])
    known = f", {found['known_good']} known to be good" if found["known_good"] else ""
    return (
        f"{_count(found['images'], 'image')} in {_count(found['views'], 'view')}, "
        f"{_count(found['files'], 'file')} ({format_size(int(found['read']))} read{known}): "
        f"{'clean' if found['clean'] else _count(errors, 'error')}."
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _collected(plan: Mapping[str, Any], went: str) -> str:
    parts = []
    if plan["withdrawals"]:
        names = ("channel", "appliance", "architecture", "version", "serial")
        rows = [[str(each[name]) for name in names] for each in plan["withdrawals"]]
        parts += [table(["OUT OF", "APPLIANCE", "ARCH", "VERSION", "SERIAL"], rows)]
    gone = f"{_count(len(plan['files']), 'file')} {went}, {format_size(int(plan['bytes']))}."
    return "\n".join([*parts, gone if plan["files"] else f"No file {went}."])


def _confirm(plan: Mapping[str, Any]) -> None:
    """Go on only if somebody says so; without a question where nothing is to go."""
    if not plan["withdrawals"] and not plan["files"]:
        return
    if not asking.somebody_is_there():
        raise InvalidInput(
            "Nobody is here to confirm what would go.",
            code="confirmation_needed",
            hint="See it with --dry-run, and add --yes if you mean it.",
        )
    click.echo(_collected(plan, "would go"), err=True)
    if not click.confirm("Remove this", default=False, err=True):
        raise InvalidInput("Nothing was removed.", code="not_confirmed", hint="Say yes if you mean it.")
