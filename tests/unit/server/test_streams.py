"""Watching an operation: everything once, in order, and on from where a reader was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from iceshelves.access.policy import Actor, Role
from iceshelves.core.errors import NotFound
from iceshelves.core.secret import Secret
from iceshelves.server import streams
from iceshelves.server.call import Call
from iceshelves.server.streams import Place, Subject, open_stream, read_place
from iceshelves.store.models import LogLine, Operation, Token, User


def call_of(server: Any, tenant_id: int = 1) -> Call:
    services = server.client.app.state.services
    return Call(services, Actor(tenant_id, 1, "admin", Role.ADMIN), Secret(server.tokens["admin"]), "r")


def log(server: Any, made: dict[str, Any], *messages: str) -> None:
    with server.control.database.write() as session:
        for message in messages:
            session.add(
                LogLine(
                    tenant_id=1, deployment_id=made["deployment_id"], operation_id=made["operation_id"],
                    step="create", source="engine", log_level="INFO", message=message,
                )
            )  # fmt: skip


def change(server: Any, made: dict[str, Any], status: str) -> None:
    with server.control.database.write() as session:
        operation = session.get_one(Operation, made["operation_id"])
        operation.status = status
        operation.version += 1


def read(chunk: bytes) -> tuple[str, str, dict[str, Any]]:
    fields = dict(line.split(": ", 1) for line in chunk.decode().strip().split("\n"))
    return fields["event"], fields["id"], json.loads(fields["data"])


async def next_event(events: AsyncIterator[Any]) -> tuple[str, str, dict[str, Any]]:
    async with asyncio.timeout(5):
        return read(await anext(events))


def told(events: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    return [data.get("message") or data.get("status") or kind for kind, _, data in events]


def whole(server: Any, path: str, **sent: Any) -> list[tuple[str, str, dict[str, Any]]]:
    answer = server.get(path, **sent)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [read(chunk) for chunk in answer.content.split(b"\n\n") if chunk]


def test_an_ended_operation_is_told_at_once(server: Any) -> None:
    made = server.deploy()
    log(server, made, "one", "two")
    change(server, made, "succeeded")
    path = f"/api/operations/{made['operation_id']}/events"
    events = whole(server, path)
    assert told(events) == ["one", "two", "succeeded", "end"]
    resumed = whole(server, path, headers={"Last-Event-ID": events[0][1]})
    assert told(resumed) == ["two", "succeeded", "end"]
    assert told(whole(server, f"{path}?last_event_id={events[1][1]}")) == ["succeeded", "end"]
    # all was told, but whoever asks again must learn how it ended
    assert told(whole(server, f"{path}?last_event_id={events[3][1]}")) == ["succeeded", "end"]


def test_many_lines_come_in_order_before_the_end(server: Any) -> None:
    made = server.deploy()
    log(server, made, *(str(number) for number in range(1203)))
    change(server, made, "failed")
    events = told(whole(server, f"/api/operations/{made['operation_id']}/events"))
    assert events == [*(str(number) for number in range(1203)), "failed", "end"]


def test_changes_come_as_they_happen(server: Any) -> None:
    made = server.deploy()

    async def watch() -> list[str]:
        bus = server.control.bus
        bus.attach(asyncio.get_running_loop())
        stream = await open_stream(
            call_of(server), Subject(operation_id=made["operation_id"]), read_place("")
        )
        events = stream.body_iterator
        seen = [await next_event(events)]
        for message in ("a", "b"):
            log(server, made, message)
            bus.publish(f"operation:{made['operation_id']}")
            seen.append(await next_event(events))
        change(server, made, "running")  # nobody publishes: another server wrote it
        seen.append(await next_event(events))
        change(server, made, "cancelled")
        bus.publish(f"operation:{made['operation_id']}")
        seen += [await next_event(events), await next_event(events)]
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        return told(seen)

    assert asyncio.run(watch()) == ["pending", "a", "b", "running", "cancelled", "end"]


def test_a_deployment_is_watched_over_its_operations(server: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "_PATIENCE", 0.05)
    made = server.deploy()

    async def watch() -> list[tuple[str, str, dict[str, Any]]]:
        server.control.bus.attach(asyncio.get_running_loop())
        subject = Subject(deployment_id=made["deployment_id"])
        stream = await open_stream(call_of(server), subject, read_place(""))
        seen = [await next_event(stream.body_iterator)]
        change(server, made, "failed")
        seen.append(await next_event(stream.body_iterator))
        again = server.post(f"/api/deployments/{made['deployment_id']}/retry").json()
        seen.append(await next_event(stream.body_iterator))
        assert seen[-1][2]["id"] == again["operation_id"]
        return seen

    assert told(asyncio.run(watch())) == ["pending", "failed", "pending"]


def test_a_stream_ends_with_the_server_and_with_its_token(server: Any, monkeypatch: Any) -> None:
    made = server.deploy()

    async def until_end() -> None:
        stream = await open_stream(
            call_of(server), Subject(operation_id=made["operation_id"]), read_place("")
        )
        async with asyncio.timeout(5):
            kinds = [read(chunk)[0] async for chunk in stream.body_iterator if not chunk.startswith(b":")]
        assert kinds == ["operation"]  # no end: whoever reads it is to come again

    monkeypatch.setattr(streams, "_HEARTBEAT", 0.0)
    monkeypatch.setattr(streams, "_PATIENCE", 0.01)
    with server.control.database.write() as session:
        admin = session.query(User).filter_by(name="admin").one()
        session.query(Token).filter_by(user_id=admin.id).delete()
    server.control.authenticator.forget()
    asyncio.run(until_end())
    server.client.app.state.services.closing.begun = True
    asyncio.run(until_end())


def test_a_stranger_and_an_odd_place(server: Any) -> None:
    made = server.deploy()
    with pytest.raises(NotFound):
        asyncio.run(
            open_stream(call_of(server, 2), Subject(operation_id=made["operation_id"]), read_place(""))
        )
    for odd in ("x", "1", "1.2.3", "-1.2", "1." + "9" * 30, None):
        assert read_place(odd) == Place()
    assert read_place("3.14") == Place(3, 14)
    answer = server.get(f"/api/operations/{made['operation_id']}/events?last_event_id=x")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_request")
