"""Operations end by events, whatever the order in which answers, events and gaps come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from iceshelves.core.errors import Conflict, Failed, IceShelvesError, NotFound, Temporary
from iceshelves.providers.incus import operations
from iceshelves.providers.incus.client import Answer, Call
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.incus.sharing import SharedWork

pytestmark = pytest.mark.anyio

RUNNING, SUCCESS, FAILURE = 103, 200, 400


def operation(status: int = RUNNING, identity: str = "op-1", **more: Any) -> dict[str, Any]:
    return {"id": identity, "class": "task", "status_code": status, "metadata": None, **more}


def event(status: int, **more: Any) -> dict[str, Any]:
    return {"type": "operation", "metadata": operation(status, **more)}


class FakeEvents:
    """An event stream that the test speaks through."""

    connections = 1

    def listen(self, listener: Operations) -> None:
        self.listener = listener

    async def ready(self) -> None:
        return None

    def reopen(self) -> None:
        self.connections += 1
        self.listener.on_gap()


class FakeClient:
    """A daemon that answers what the test says and remembers what it was asked."""

    where, project = "here", "default"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        self.before_answer = lambda: None
        self.answered = operation()

    async def call(self, call: Call) -> Answer:
        self.asked.append(f"{call.method} {call.path}")
        self.before_answer()
        return Answer(self.answered, "", is_operation=True)

    async def get(self, where: str, **_query: str) -> Any:
        self.asked.append(f"GET {where}")
        answer = self.answers[where]
        if isinstance(answer, IceShelvesError):
            raise answer
        return answer

    def as_object(self, value: Any, _what: str) -> dict[str, Any]:
        assert isinstance(value, dict)
        return value


class Bench:
    def __init__(self) -> None:
        self.client, self.events = FakeClient(), FakeEvents()
        self.operations = Operations(self.client, self.events)  # type: ignore[arg-type]

    def run(self, **more: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.operations.run(Call("POST", "/1.0/instances"), **more))


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_event_ends_it_and_nothing_is_read(bench: Bench) -> None:
    running = bench.run()
    await turn()
    assert not running.done()
    bench.operations.on_event(event(SUCCESS, metadata={"fingerprint": "f"}))
    assert (await running).metadata == {"fingerprint": "f"}
    assert bench.client.asked == ["POST /1.0/instances"]


async def test_an_end_that_comes_before_the_answer_is_remembered(bench: Bench) -> None:
    bench.client.before_answer = lambda: bench.operations.on_event(event(SUCCESS))
    async with asyncio.timeout(1):
        await bench.run()


async def test_other_operations_and_kinds_of_events_do_not_end_it(bench: Bench) -> None:
    running = bench.run()
    await turn()
    bench.operations.on_event(event(SUCCESS, identity="op-2"))
    bench.operations.on_event({"type": "lifecycle", "metadata": operation(SUCCESS)})
    bench.operations.on_event({"type": "operation", "metadata": {"id": 3}})
    await turn()
    assert not running.done()
    running.cancel()


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        ("no space left on device", Failed, "hypervisor_failed"),
        ('Instance "x" already exists', Conflict, "already_exists"),
        ("UNIQUE constraint failed: instances.name", Conflict, "already_exists"),
        ("Instance not found", NotFound, "instance_not_found"),
        ('Instance is busy running a "stop" operation', Temporary, "hypervisor_busy"),
        ("Missing event connection with target cluster member", Temporary, "member_unreachable"),
        (
            'Post "https://10.0.0.3:8443/1.0/instances?target=m3": [dial tcp 10.0.0.3:8443: i/o timeout]',
            Temporary,
            "member_unreachable",
        ),
        ('Get "https://images.example.org/streams/v1/index.json": EOF', Failed, "hypervisor_failed"),
    ],
)
async def test_a_failure_is_told_in_its_words(bench: Bench, words: str, kind: type, code: str) -> None:
    running = bench.run()
    await turn()
    bench.operations.on_event(event(FAILURE, err=words))
    with pytest.raises(kind) as caught:
        await running
    assert (caught.value.code, words in caught.value.message) == (code, True)


async def test_after_a_gap_it_is_read_exactly_once(bench: Bench) -> None:
    running = bench.run()
    await turn()
    bench.client.answers["/1.0/operations/op-1"] = operation(RUNNING)
    bench.events.reopen()
    await turn()
    assert not running.done()
    bench.operations.on_event(event(SUCCESS))
    await running
    assert bench.client.asked == ["POST /1.0/instances", "GET /1.0/operations/op-1"]


async def test_an_end_in_the_gap_is_found(bench: Bench) -> None:
    running = bench.run()
    await turn()
    bench.client.answers["/1.0/operations/op-1"] = operation(SUCCESS)
    bench.events.reopen()
    async with asyncio.timeout(1):
        await running


async def test_a_gap_between_the_call_and_its_answer_is_noticed(bench: Bench) -> None:
    bench.client.answers["/1.0/operations/op-1"] = operation(SUCCESS)
    bench.client.before_answer = bench.events.reopen
    async with asyncio.timeout(1):
        await bench.run()


async def test_an_operation_that_nobody_remembers_is_lost(bench: Bench) -> None:
    running = bench.run()
    await turn()
    bench.client.answers["/1.0/operations/op-1"] = NotFound("gone")
    bench.events.reopen()
    with pytest.raises(Temporary) as caught:
        await running
    assert caught.value.code == "operation_lost"


async def test_progress_is_passed_on(bench: Bench) -> None:
    told: list[tuple[float | None, str]] = []
    running = bench.run(progress=lambda fraction, words: told.append((fraction, words)))
    await turn()
    bench.operations.on_event(event(RUNNING, metadata={"download_progress": "rootfs: 42% (1.2MB/s)"}))
    bench.operations.on_event(event(RUNNING, metadata={"progress": {"percent": "1"}}))
    bench.operations.on_event(event(SUCCESS))
    await running
    assert told == [(0.42, "Downloading rootfs: 42% (1.2MB/s)")]


async def test_a_fault_in_one_callers_progress_is_that_callers(bench: Bench) -> None:
    running = bench.run(progress=lambda _fraction, _words: 1 / 0)  # type: ignore[arg-type, return-value]
    await turn()
    bench.operations.on_event(event(RUNNING, metadata={"x_progress": "1%"}))
    with pytest.raises(ZeroDivisionError):
        await running


async def test_cancelling_leaves_a_create_alone(bench: Bench) -> None:
    running = bench.run()
    await turn()
    running.cancel()
    await turn()
    assert bench.client.asked == ["POST /1.0/instances"]


async def test_cancelling_a_download_cancels_it_once_that_is_allowed(bench: Bench) -> None:
    running = asyncio.create_task(bench.operations.run_cancellable(Call("POST", "/1.0/images")))
    await turn()
    running.cancel()
    await turn()
    bench.operations.on_event(event(RUNNING, may_cancel=False))
    await turn()
    bench.operations.on_event(event(RUNNING, may_cancel=True))
    await turn()
    bench.operations.on_event(event(FAILURE))
    bench.operations.on_event(event(RUNNING, may_cancel=True))
    await turn()
    assert bench.client.asked == ["POST /1.0/images"] + ["DELETE /1.0/operations/op-1"] * 2


async def test_settle_waits_for_work_on_that_instance_only(bench: Bench) -> None:
    def on(name: str, identity: str, **more: Any) -> dict[str, Any]:
        return operation(identity=identity, resources={"instances": [f"/1.0/instances/{name}"]}, **more)

    other_project = operation(identity="d", resources={"instances": ["/1.0/instances/web?project=p"]})
    console = {**on("web", "c"), "class": "websocket"}
    running = [on("web", "a"), on("db", "b"), console, other_project]
    bench.client.answers["/1.0/operations"] = {"running": running, "success": [on("web", "e")]}
    settling = asyncio.create_task(bench.operations.settle("web"))
    await turn()
    assert not settling.done()
    bench.operations.on_event(event(FAILURE, identity="a", err="whatever"))
    async with asyncio.timeout(1):
        await settling
    assert bench.client.asked == ["GET /1.0/operations"]


async def test_a_lost_stream_ends_all_waiting(bench: Bench) -> None:
    running = bench.run()
    await turn()
    bench.operations.on_lost(Temporary("away", code="hypervisor_unreachable"))
    with pytest.raises(Temporary):
        await running


# Shared work


async def test_shared_work_is_done_once_and_ends_with_its_last_user() -> None:
    begun: list[str] = []
    release = asyncio.Event()

    async def work() -> str:
        begun.append("x")
        await release.wait()
        return "done"

    shared: SharedWork[str] = SharedWork()

    def join() -> asyncio.Task[str]:
        return asyncio.create_task(shared.join("k", lambda _tell: work(), lambda _f, _w: None))

    first, second = join(), join()
    await turn()
    first.cancel()
    await turn()
    assert not second.done()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    third = join()
    await turn()
    release.set()
    assert await third == "done"
    assert begun == ["x", "x"]


# Members


async def test_an_operation_whose_member_died_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "LOOK_AFTER", 0.02)
    bench.client.answers["/1.0/operations/op-1"] = operation(location="m2")
    bench.client.answered = operation(location="m2")
    running = bench.run()
    await asyncio.sleep(0.1)
    assert not running.done()
    assert bench.client.asked.count("GET /1.0/operations/op-1") >= 2
    bench.client.answers["/1.0/operations/op-1"] = Temporary("away", code="member_unreachable")
    with pytest.raises(Temporary) as caught:
        async with asyncio.timeout(1):
            await running
    assert caught.value.code == "member_unreachable"


async def test_an_operation_that_its_member_forgot_at_a_crash_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "LOOK_AFTER", 0.02)
    bench.client.answered = operation(location="m2")
    bench.client.answers["/1.0/operations/op-1"] = NotFound("Operation not found")
    with pytest.raises(Temporary) as caught:
        async with asyncio.timeout(1):
            await bench.run()
    assert caught.value.code == "operation_lost"


async def test_a_single_server_is_never_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "LOOK_AFTER", 0.01)
    bench.client.answered = operation(location="none")
    running = bench.run()
    await asyncio.sleep(0.1)
    bench.operations.on_event(event(SUCCESS))
    await running
    assert bench.client.asked == ["POST /1.0/instances"]
