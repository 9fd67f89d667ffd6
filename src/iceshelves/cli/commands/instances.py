"""``instances``, and ``cluster scan``, ``adopt`` and ``release``: everything that is there, ours or not."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.checks import check_line
from iceshelves.cli.client import segment
from iceshelves.cli.completion import complete_cluster
from iceshelves.cli.listing import limit_option, told_if_cut
from iceshelves.cli.output import Column, Output, output_options, table
from iceshelves.cli.problems import ERROR
from iceshelves.cli.steps import age
from iceshelves.cli.text import printable
from iceshelves.core.errors import InvalidInput

#: each ownership in the words of the summary
_WORDS: Final = {
    "ours": "ours",
    "adopted": "adopted",
    "foreign": "not ours",
    "conflict": "in conflict",
}
_COLUMNS: Final = (
    Column("NAME", lambda entry: f"{entry['cluster']['name']}:{entry['name']}"),
    Column("OWNERSHIP", "ownership"),
    Column("KIND", "kind"),
    Column("POWER", "power"),
    Column("MEMBER", "member"),
    Column("SEEN", lambda entry: age(entry.get("seen_on"))),
    Column("REASON", "reason"),
)
_SCANNED: Final = ("NAME", "OWNERSHIP", "KIND", "POWER", "MEMBER", "REASON")
#: names that the API takes at once
_AT_ONCE: Final = 500


@click.command()
@click.option(
    "--cluster", metavar="NAME", shell_complete=complete_cluster, help="Only those on this cluster."
)
@click.option("--ownership", type=click.Choice(list(_WORDS)), help="Only those that are this to us.")
@click.option("--search", metavar="TEXT", help="Only those with this in their name or description.")
@limit_option(100)
@output_options
@pass_app
def instances(
    app: App, cluster: str | None, ownership: str | None, search: str | None, limit: int, output: Output
) -> None:
    """List the instances of all clusters, ours or not."""
    query = {"cluster": cluster, "ownership": ownership, "search": search}
    entries = list(app.client.items("/api/instances", "instances", limit=limit, **query))
    narrowed = cluster or ownership or search
    output.many(entries, _COLUMNS, "No such instances." if narrowed else "No instances on any cluster.")
    told_if_cut(entries, limit)


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@output_options
@pass_app
def scan(app: App, name: str, output: Output) -> None:
    """Look which instances of a cluster are ours, and which are not; nothing is changed."""
    found = _scan(app, name)
    output.one(found, lambda: _text(name, found))


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@click.argument("wanted", metavar="[INSTANCE]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that nobody has marked.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before --all; needed where there is no terminal.")
@pass_app
def adopt(app: App, name: str, wanted: tuple[str, ...], everything: bool, yes: bool) -> int:
    """Mark instances that we have not made as known to us; nothing else of them is changed.

    An adopted instance is listed as such.  It gets no deployment, and nothing here deletes it.
    """
    if bool(wanted) == everything:
        raise click.UsageError("Name the instances, or give --all.")
    if not everything:
        return _act(app, name, "adopt", wanted)
    names = [entry["name"] for entry in _scan(app, name)["instances"] if entry["ownership"] == "foreign"]
    if not names:
        click.echo(f"There is nothing to adopt on {name}.", err=True)
        return 0
    if not yes:
        _confirm(f"Mark {len(names)} instances of {name} as adopted?")
    return _act(app, name, "adopt", names)


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@click.argument("wanted", metavar="INSTANCE...", nargs=-1, required=True)
@pass_app
def release(app: App, name: str, wanted: tuple[str, ...]) -> int:
    """Take the mark of adoption away from instances; nothing else of them is changed."""
    return _act(app, name, "release", wanted)


def _confirm(question: str) -> None:
    """Raises :class:`InvalidInput` where nobody can answer; a no ends the command."""
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"{question}  Nobody is here to confirm it.",
            code="confirmation_needed",
            hint="Add --yes if you mean it.",
        )
    click.confirm(question, abort=True, err=True)


def _scan(app: App, name: str) -> dict[str, Any]:
    return app.client.post(f"/api/clusters/{segment(name)}/scan")


def _act(app: App, name: str, action: str, names: Sequence[str]) -> int:
    done = {"adopt": "adopted", "release": "released"}[action]
    status = 0
    for start in range(0, len(names), _AT_ONCE):
        body = {"names": list(names[start : start + _AT_ONCE])}
        ended = app.client.post(f"/api/clusters/{segment(name)}/{action}", body)
        for result in ended["results"]:
            error = result.get("error") or {}
            click.echo(
                check_line(
                    bool(result["ok"]), result["name"], error.get("message") or result.get("note") or done
                )
            )
            if error.get("hint"):
                click.echo(f"    {printable(str(error['hint']))}")
            status = status if result["ok"] else ERROR
    return status


def _text(name: str, found: Mapping[str, Any]) -> str:
    entries = found["instances"]
    if not entries:
        return f"There are no instances on {name}."
    rows = [[str(entry.get(title.lower()) or "") for title in _SCANNED] for entry in entries]
    counts = [f"{found['counts'][key]} {words}" for key, words in _WORDS.items() if found["counts"][key]]
    lines = [table(_SCANNED, rows), "", ", ".join(counts) + "."]
    if found["counts"]["foreign"]:
        lines.append(f"Mark those as known to us: iceshelves cluster adopt {name} INSTANCE...")
    return "\n".join(lines)
