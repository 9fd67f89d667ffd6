from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from iceshelves.cli import servers
from iceshelves.cli.servers import Contexts, Server, choose, context_name_for, load, normalised_url, save
from iceshelves.core.errors import Failed, InvalidInput, NotFound, Unauthenticated
from iceshelves.core.secret import Secret

HERE = Server("http://127.0.0.1:8000/iceshelves", Secret("isv_here"))
THERE = Server("https://there.test/iceshelves", Secret("isv_there"))
BOTH = Contexts("here", {"here": HERE, "there": THERE})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://h:8000", "http://h:8000/iceshelves"),
        ("http://h:8000/iceshelves/", "http://h:8000/iceshelves"),
        ("http://h:8000/iceshelves/api", "http://h:8000/iceshelves"),
        ("https://h/behind/a/proxy", "https://h/behind/a/proxy/iceshelves"),
        ("localhost:8000", "http://localhost:8000/iceshelves"),
        ("ice.example.org", "https://ice.example.org/iceshelves"),
        ("[::1]:8000", "http://[::1]:8000/iceshelves"),
    ],
)
def test_the_address_of_a_server_may_be_written_in_several_ways(given: str, meant: str) -> None:
    assert normalised_url(given) == meant


@pytest.mark.parametrize(
    "given", ["", "ftp://h", "http://", "http://u:p@h", "http://h?x=1", "http://h:99999", "http://h#f"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput):
        normalised_url(given)


def test_contexts_are_kept_for_their_owner_only_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "config" / "contexts.json"
    save(path, BOTH)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path) == BOTH
    assert [each.name for each in path.parent.iterdir()] == ["contexts.json"]


def test_no_file_means_no_contexts(tmp_path: Path) -> None:
    assert load(tmp_path / "none.json") == Contexts()


@pytest.mark.parametrize("content", ["{", "[]", '{"contexts": {"a": {}}}', '{"contexts": {"a": {"url": 1}}}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "contexts.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=r"contexts\.json"):
        load(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed):
        save(tmp_path / "file" / "contexts.json", BOTH)


def test_the_named_context_wins_over_the_environment_and_that_over_the_current_one() -> None:
    environment = {"ICESHELVES_SERVER": "http://env.test", "ICESHELVES_TOKEN": "isv_env"}
    assert choose(BOTH, "there", environment) == THERE
    assert choose(BOTH, None, environment).url == "http://env.test/iceshelves"
    assert choose(BOTH, None, {}) == HERE
    assert choose(BOTH, None, {"ICESHELVES_TOKEN": "isv_env"}) == Server(HERE.url, Secret("isv_env"))


def test_a_server_from_the_environment_takes_its_saved_token_and_no_others() -> None:
    assert choose(BOTH, None, {"ICESHELVES_SERVER": "https://there.test"}) == THERE
    with pytest.raises(Unauthenticated):
        choose(BOTH, None, {"ICESHELVES_SERVER": "https://elsewhere.test"})


def test_nobody_is_logged_in_at_first() -> None:
    with pytest.raises(Unauthenticated, match="not logged in"):
        choose(Contexts(), None, {})


def test_forgetting_the_current_context_leaves_none_current() -> None:
    assert BOTH.without("here") == Contexts(None, {"there": THERE})
    assert BOTH.without("there").current == "here"
    with pytest.raises(NotFound):
        BOTH.using("nowhere")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/x", "https://a.b", "http://[::1]:80/x"])
def test_a_contexts_default_name_is_one_that_is_allowed(url: str) -> None:
    name = context_name_for(url)
    assert Contexts().with_server(name, HERE).current == name


def test_login_tries_the_token_before_it_saves_it(
    run: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ICESHELVES_SERVER")
    token = tmp_path / "token"
    token.write_text("isv_new\n")
    server.on("GET", "/api/whoami", {"error": "no", "error_code": "invalid_token"}, status=401)
    assert run("login", "http://a.test:8000", "--token-file", str(token)).code == 1
    assert not servers.contexts_file().exists()
    server.on("GET", "/api/whoami", {"name": "admin", "role": "admin"})
    done = run("login", "http://a.test:8000", "--token-file", str(token), "--name", "a")
    assert done.code == 0
    assert "admin" in done.out
    assert "not encrypted" in done.err
    assert "isv_new" not in done.out + done.err
    assert load(servers.contexts_file()).get("a") == Server(
        "http://a.test:8000/iceshelves", Secret("isv_new")
    )


@pytest.mark.parametrize("content", ["", "two words", "ünicode"])
def test_what_is_no_token_is_not_sent(run: Any, server: Any, tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    assert run("login", "http://a.test", "--token-file", str(token)).code == 1
    assert server.sent == []


def test_contexts_can_be_listed_chosen_and_forgotten(run: Any) -> None:
    save(servers.contexts_file(), BOTH)
    assert run("context", "use", "there").code == 0
    listed = run("context", "list", "--format", "json").json
    assert listed == [
        {"name": "here", "url": HERE.url, "current": False},
        {"name": "there", "url": THERE.url, "current": True},
    ]
    assert run("context", "remove", "there").code == 0
    assert run("context", "use", "there").code == 1
    assert load(servers.contexts_file()) == Contexts(None, {"here": HERE})
