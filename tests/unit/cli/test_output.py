from __future__ import annotations

import csv
import io
import os
from typing import Any

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iceshelves.cli.output import Column, Output, facts, pick, table
from iceshelves.cli.text import one_line, printable, shorten, width

ENTRIES: list[dict[str, Any]] = [
    {"id": 1, "egg": {"name": "web"}, "on": True},
    {"id": 2, "egg": None, "on": False},
]
COLUMNS = [Column("ID", "id"), Column("EGG", "egg.name"), Column("ON", lambda entry: entry["on"])]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(columns: int) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))

    return of


def test_a_table_has_headings_and_aligned_columns() -> None:
    lines = click.unstyle(table(["A", "LONG"], [["1", "x"], ["22222", "y"]])).splitlines()
    assert lines == ["A      LONG", "1      x", "22222  y"]


@given(st.lists(st.lists(st.text(max_size=60), min_size=3, max_size=3), max_size=5))
def test_any_text_makes_lines_of_one_width(rows: list[list[str]]) -> None:
    lines = click.unstyle(table(["A", "B", "C"], rows)).split("\n")
    assert len(lines) == len(rows) + 1


def test_a_table_fits_the_terminal_by_shortening_its_widest_column(terminal: Any) -> None:
    terminal(40)
    text = click.unstyle(table(["ID", "NAME", "MESSAGE"], [["1", "short", "a very long message " * 5]]))
    assert all(width(line) <= 40 for line in text.splitlines())
    assert "short" in text
    assert "…" in text


def test_names_are_the_last_to_be_shortened(terminal: Any) -> None:
    row = ["12", "local:a-rather-long-name", "hello-web 1.0.0", "completed-at-last"]
    terminal(52)
    assert row[1] in table(["ID", "NAME", "EGG", "STATUS"], [row])
    terminal(20)
    assert row[1] not in table(["ID", "NAME", "EGG", "STATUS"], [row])


def test_a_pipe_gets_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert "x" * 500 in table(["A"], [["x" * 500]])


def test_wide_characters_count_twice() -> None:
    assert width("日本") == 4
    assert width("e\u0301") == 1
    assert shorten("日本語", 5) == "日本…"


def test_a_guest_cannot_drive_the_terminal() -> None:
    hostile = "\x1b]0;title\x07a\x1b[2Jb\x1b[31mc\x9b2Jd\x08e\x00\u202ef\r\ng"
    shown = printable(hostile)
    assert not set(shown) & {"\x1b", "\x07", "\x08", "\x9b", "\x00", "\u202e", "\r"}
    assert shown.startswith("abc")
    assert shown.endswith("f\ng")
    assert one_line("a\n\x1b[2Jb\tc") == "a b c"


def test_json_is_what_the_server_said(capsys: pytest.CaptureFixture[str]) -> None:
    Output("json").many(ENTRIES, COLUMNS, "none")
    assert yaml.safe_load(capsys.readouterr().out) == ENTRIES
    Output("yaml").many(ENTRIES, COLUMNS, "none")
    assert yaml.safe_load(capsys.readouterr().out) == ENTRIES


def test_chosen_fields_may_be_nested_and_missing_parts_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    Output("json", ("id", "egg.name")).many(ENTRIES, COLUMNS, "none")
    assert yaml.safe_load(capsys.readouterr().out) == [
        {"id": 1, "egg.name": "web"},
        {"id": 2, "egg.name": None},
    ]


def test_an_unknown_field_names_those_that_there_are() -> None:
    with pytest.raises(click.UsageError, match="egg, id, on"):
        Output("json", ("idd",)).many(ENTRIES, COLUMNS, "none")


def test_csv_is_safe_to_open_in_a_spreadsheet(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [{"v": value} for value in ('=cmd|"x"', "-5.2", "+x", "a,b", "@x")]
    Output("csv").many(entries, [Column("V", "v")], "none")
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [["v"], ['\'=cmd|"x"'], ["-5.2"], ["'+x"], ["a,b"], ["'@x"]]


def test_nothing_is_an_empty_list_for_programs_and_a_word_for_people(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output("json").many([], COLUMNS, "Nothing here.")
    assert capsys.readouterr().out == "[]\n"
    Output().many([], COLUMNS, "Nothing here.")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "Nothing here.\n")


def test_facts_leave_out_what_is_not_known() -> None:
    assert click.unstyle(facts([("A", 1), ("Bcd", None), ("E", "x\ny"), ("F", [])])) == "A  1\nE  x\n   y"


def test_a_path_through_something_that_is_no_object_leads_nowhere() -> None:
    assert pick({"a": [1]}, "a.b") is None


@pytest.mark.parametrize(
    "arguments",
    [("--json", ""), ("--json", "id", "--format", "yaml"), ("--format", "xml"), ("--json", "nonsense")],
)
def test_wrong_output_options_are_usage_errors(
    run: Any, server: Any, listed: Any, arguments: tuple[str, ...]
) -> None:
    server.on("GET", "/api/clusters", listed("clusters", {"id": 1, "name": "local"}))
    assert run("cluster", "list", *arguments).code == 2


def test_no_colour_where_none_is_wanted(
    run: Any, one_deployment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda _stream=None, color=None: color is False)
    assert "\x1b[" in run("list").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("list").out
