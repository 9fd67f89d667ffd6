from __future__ import annotations

from typing import Any

import pytest
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from iceshelves.cli import servers
from iceshelves.cli.app import App
from iceshelves.cli.bash import ColonBashComplete
from iceshelves.cli.client import Client
from iceshelves.cli.main import cli
from iceshelves.cli.servers import Contexts, Server
from iceshelves.core.secret import Secret


@pytest.fixture
def complete(server: Any) -> Any:
    def call(arguments: list[str], incomplete: str) -> list[str]:
        app = App(lambda chosen: Client(chosen, server.dial))
        shell = ShellComplete(cli, {"obj": app}, "iceshelves", "_ICESHELVES_COMPLETE")
        found: list[CompletionItem[Any]] = shell.get_completions(arguments, incomplete)
        return [str(item.value) for item in found]

    return call


def test_commands_are_completed(complete: Any) -> None:
    assert complete([], "dep") == ["deploy"]
    assert complete(["cluster"], "t") == ["test"]


def test_live_names_come_from_the_server(complete: Any, one_deployment: Any, listed: Any) -> None:
    one_deployment.on("GET", "/api/eggs", listed("eggs", {"name": "hello-web"}, {"name": "debian-nginx"}))
    one_deployment.on("GET", "/api/operations", listed("operations", {"id": "op-1"}))
    one_deployment.on("GET", "/api/users", listed("users", {"name": "eve"}))
    assert complete(["show"], "local:w") == ["local:web"]
    assert complete(["show"], "other:") == []
    assert complete(["deploy"], "he") == ["hello-web"]
    assert complete(["deploy", "hello-web"], "") == ["local:"]
    assert complete(["list", "--cluster"], "l") == ["local"]
    assert set(complete(["operation", "watch"], "op")) == {"op-1"}
    assert complete(["user", "token"], "") == ["eve"]


def test_images_builds_and_appliances_are_completed(complete: Any, server: Any, listed: Any) -> None:
    images = ({"appliance": "nginx"}, {"appliance": "nginx"}, {"appliance": "redis"})
    server.on("GET", "/api/images", listed("images", *images))
    server.on("GET", "/api/builds", listed("builds", {"id": 12}, {"id": 3}))
    server.on("GET", "/api/appliances", listed("appliances", {"name": "haproxy"}))
    assert complete(["image", "rollback"], "n") == ["nginx"]
    assert complete(["image", "logs"], "1") == ["12"]
    assert complete(["image", "build"], "") == ["haproxy"]


def test_the_context_that_is_typed_is_the_one_that_is_asked(complete: Any, one_deployment: Any) -> None:
    there = Server("http://there.test/iceshelves", Secret("isv_there"))
    servers.save(servers.contexts_file(), Contexts().with_server("there", there))
    assert complete(["--context", "there", "show"], "") == ["local:web"]
    assert one_deployment.sent[0].headers["Authorization"] == "Bearer isv_there"
    assert complete(["context", "use"], "th") == ["there"]


@pytest.mark.parametrize("answer", [ConnectionRefusedError(111, "x"), TimeoutError()])
def test_a_server_that_is_away_completes_nothing(complete: Any, server: Any, answer: Exception) -> None:
    server.on("GET", "/api/deployments", answer)
    assert complete(["show"], "") == []


def test_bash_words_are_those_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = ColonBashComplete(cli, {}, "iceshelves", "_X")
    for line, expected in {
        "iceshelves show local:we": (["show"], "local:we"),
        "iceshelves show ": (["show"], ""),
        "iceshelves": ([], ""),
        "iceshelves deploy ./a\\ b lo": (["deploy", "./a b"], "lo"),
    }.items():
        monkeypatch.setenv("COMP_WORDS", line)
        assert shell.get_completion_args() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(run: Any, shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert f"_ICESHELVES_COMPLETE={shell}_complete" in done.out
    assert get_completion_class(shell) is not None
