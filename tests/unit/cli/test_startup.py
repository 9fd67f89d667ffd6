from __future__ import annotations

import subprocess
import sys

import click
import pytest

from iceshelves.cli.commands import appliance, cluster, egg, image
from iceshelves.cli.main import SECTIONS, cli, run

#: each of these alone costs as much as the whole of ``--help`` may
SLOW = {
    "pydantic",
    "sqlalchemy",
    "rich",
    "aiohttp",
    "yaml",
    "jinja2",
    "http.client",
    "asyncio",
    "websockets",
    "ssl",
}
LAZIES = {
    " ".join([*path, name]): lazy
    for path, sections in (
        ((), SECTIONS),
        (("egg",), egg.SECTIONS),
        (("cluster",), cluster.SECTIONS),
        (("appliance",), appliance.SECTIONS),
        (("image",), image.SECTIONS),
    )
    for entries in sections.values()
    for name, lazy in entries.items()
}


def imported_by(*arguments: str) -> set[str]:
    program = (
        "import sys; from iceshelves.cli.main import run; run(sys.argv[1:]);"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert "Usage:" in done.stdout
    return set(done.stderr.split())


def test_help_imports_nothing_slow_and_no_command() -> None:
    modules = imported_by("--help")
    assert not SLOW & modules
    assert not [name for name in modules if name.startswith("iceshelves.cli.commands.")]


def test_a_commands_help_imports_neither_the_server_nor_a_view() -> None:
    modules = imported_by("deploy", "--help")
    assert not {"pydantic", "sqlalchemy", "rich", "aiohttp", "jinja2", "iceshelves.server"} & modules


@pytest.mark.parametrize("name", LAZIES)
def test_what_the_overview_says_is_what_the_command_says(name: str) -> None:
    command = LAZIES[name].load()
    assert (command.help or "").split("\n\n")[0] == LAZIES[name].summary
    assert command.name == name.split()[-1]


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    found = [path] if path else []
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        found += every_command(inner, (*path, name))
    return found


@pytest.mark.parametrize("path", every_command(cli), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: iceshelves {' '.join(path)}")
    assert lines[2].strip()


def test_a_slip_of_the_fingers_is_a_usage_error_with_a_proposal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deplyo"]) == 2
    assert "Did you mean 'deploy'?" in capsys.readouterr().err
