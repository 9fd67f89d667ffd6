from __future__ import annotations

import http.client
import io
from typing import Any

import pytest

from iceshelves.cli.client import Client
from iceshelves.cli.events import Event, Feed, parse
from iceshelves.core.errors import Failed, NotFound, Temporary

PATH = "/api/operations/op/events"


def read(text: str) -> list[Event]:
    return list(parse(io.BytesIO(text.encode())))


def test_events_are_read_as_the_standard_says() -> None:
    text = (
        ": a comment\n\n"
        'id: 1.2\nevent: log\ndata: {"a":\ndata: 1}\n\n'
        'event:operation\r\ndata:"ä"\r\n\r\n'
        "retry: 5\nnoise\n\n"
        "data: 3\n\n"
        "data: cut off"
    )
    assert read(text) == [
        Event("1.2", "log", {"a": 1}),
        Event("1.2", "operation", "ä"),
        Event("1.2", "message", 3),
    ]


@pytest.mark.parametrize("text", ["data: {no json\n\n", "data: " + "x" * 1_100_000])
def test_what_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(Failed):
        read(text)


def test_a_lost_stream_is_resumed_after_the_last_event(server: Any, client: Client, events: Any) -> None:
    server.stream(
        PATH,
        [*events("log", 1, "5.1"), *events("log", 2, "5.2"), ConnectionResetError(104, "x")],
        [*events("log", 3, "6.3")],
        [*events("log", 4, "7.4"), *events("end", {})],
    )
    losses: list[str] = []
    feed = Feed(client, PATH, on_loss=losses.append)
    assert [event.data for event in feed] == [1, 2, 3, 4]
    assert [sent.headers.get("Last-Event-ID") for sent in server.sent] == [None, "5.2", "6.3"]
    assert len(losses) == 2


def test_an_event_whose_handling_was_interrupted_comes_again(
    server: Any, client: Client, events: Any
) -> None:
    server.stream(
        PATH,
        [*events("log", 1, "5.1"), *events("log", 2, "5.2")],
        [*events("log", 2, "5.2"), *events("end", {})],
    )
    feed = Feed(client, PATH)
    for event in feed:
        if event.data == 2:
            break
    assert [event.data for event in feed] == [2]
    assert server.sent[1].headers["Last-Event-ID"] == "5.1"


@pytest.mark.parametrize("loss", [ConnectionRefusedError(111, "x"), http.client.IncompleteRead(b"")])
def test_patience_with_a_server_that_stays_away_ends(
    server: Any, client: Client, loss: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET", PATH, loss)
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with pytest.raises(Temporary):
        list(Feed(client, PATH))
    assert 120 <= sum(pauses) <= 130
    assert max(pauses) == 5.0


def test_what_the_server_refuses_is_not_asked_for_again(server: Any, client: Client) -> None:
    with pytest.raises(NotFound):
        list(Feed(client, PATH))
    assert len(server.sent) == 1
