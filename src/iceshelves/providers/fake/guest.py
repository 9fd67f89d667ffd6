"""The fake's guests: programs, files and addresses, by the script and the clock.

Deployments watch a guest by one program that follows cloud-init's output and result the way ``tail -F`` of
two files prints them; the fake knows that program by its name and plays the same text.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from iceshelves.core.errors import Conflict, NotFound
from iceshelves.providers.base import ExecRequest, ExecSession, OutputStream
from iceshelves.providers.fake.script import Command, GuestScript
from iceshelves.providers.fake.world import FakeInstance, FakeWorld

#: ``argv[3]`` of the program that watches cloud-init
WATCHER: Final = "iceshelves-watch-cloud-init"
NO_CLOUD_INIT: Final = 66
_OUTPUT_LOG: Final = "/var/log/cloud-init-output.log"
_RESULT: Final = "/run/cloud-init/result.json"
_STATUS: Final = "/var/lib/cloud/data/status.json"

Program = Callable[["FakeSession"], Coroutine[Any, Any, int]]


class FakeSession:
    """A scripted program; see :class:`~iceshelves.providers.base.ExecSession`."""

    def __init__(self, program: Program) -> None:
        self._chunks: asyncio.Queue[tuple[OutputStream, bytes] | None] = asyncio.Queue()
        self.input: asyncio.Queue[bytes] = asyncio.Queue()
        self.size: tuple[int, int] | None = None
        self._killed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(program))

    def put(self, stream: OutputStream, text: str | bytes) -> None:
        """Print ``text``."""
        if text:
            self._chunks.put_nowait((stream, text.encode() if isinstance(text, str) else text))

    async def __aenter__(self) -> FakeSession:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def output(self) -> AsyncIterator[tuple[OutputStream, bytes]]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    async def write(self, data: bytes) -> None:
        if self._task.done():
            raise Conflict("The program no longer reads its input.", code="input_closed")
        self.input.put_nowait(data)

    async def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)

    async def signal(self, number: int) -> None:
        if not self._killed.done():
            self._killed.set_result(128 + number)

    async def wait(self) -> int:
        return await asyncio.shield(self._task)

    async def _run(self, program: Program) -> int:
        running = asyncio.ensure_future(program(self))
        try:
            await asyncio.wait({running, self._killed}, return_when=asyncio.FIRST_COMPLETED)
            return running.result() if running.done() else self._killed.result()
        finally:
            running.cancel()
            self._chunks.put_nowait(None)


class FakeGuest:
    """The :class:`~iceshelves.providers.base.Guest` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def exec(self, name: str, request: ExecRequest) -> ExecSession:
        async with self._world.call("exec", name):
            instance = self._running(name)
            return FakeSession(self._program(instance, list(request.command)))

    async def read_file(self, name: str, path: str, limit: int) -> bytes:
        async with self._world.call("read_file", name):
            data = self._file(self._world.instance(name), path)
            if data is None:
                raise NotFound(f"There is no file {path} in {name!r}.", code="file_not_found")
            return data[:limit]

    async def write_file(self, name: str, path: str, data: bytes, mode: int) -> None:  # noqa: ARG002 (no modes here)
        async with self._world.call("write_file", name):
            self._world.instance(name).files[path] = data.decode("latin-1")
            self._world.save()

    async def addresses(self, name: str) -> Sequence[str]:
        async with self._world.call("addresses", name):
            instance = self._world.instance(name)
            script = self._world.guest_script(instance)
            if instance.power != "running" or _age(instance) < script.addresses_at:
                return []
            return [instance.address] if script.addresses is None else list(script.addresses)

    def _running(self, name: str) -> FakeInstance:
        instance = self._world.instance(name)
        if instance.power != "running":
            raise Conflict(f"The instance {name!r} is not running.", code="instance_not_running")
        return instance

    def _file(self, instance: FakeInstance, path: str) -> bytes | None:
        script = self._world.guest_script(instance)
        if path in instance.files:
            return instance.files[path].encode("latin-1")
        if path in script.files:
            return script.files[path].encode()
        if not _has_cloud_init(self._world, instance, script) or instance.started_at == 0:
            return None
        if path == _OUTPUT_LOG:
            return "".join(f"{line.text}\n" for line in script.output if line.at <= _age(instance)).encode()
        if path == _RESULT and _finished(instance, script):
            return _result(script).encode()
        return _status(instance, script).encode() if path == _STATUS else None

    def _program(self, instance: FakeInstance, command: list[str]) -> Program:
        script = self._world.guest_script(instance)
        if len(command) == 4 and command[3] == WATCHER:
            if not _has_cloud_init(self._world, instance, script):
                return _exit(NO_CLOUD_INIT)
            return lambda session: _watch(session, instance, script)
        for place, known in enumerate(script.commands):
            if fnmatchcase(" ".join(command), known.like):
                run = instance.runs[str(place)] = instance.runs.get(str(place), 0) + 1
                self._world.save()
                return lambda session: _play(session, known, run)
        return _builtin(command)


def _builtin(command: list[str]) -> Program:
    if command[:1] == ["false"]:
        return _exit(1)
    if command[:1] == ["cat"] and len(command) == 1:
        return _cat
    if command[:1] == ["echo"]:
        text = " ".join(command[1:]) + "\n"
        return lambda session: _print(session, text)
    return _exit(0)


def _exit(status: int) -> Program:
    async def run(_session: FakeSession) -> int:
        return status

    return run


async def _print(session: FakeSession, text: str) -> int:
    session.put("stdout", text)
    return 0


async def _cat(session: FakeSession) -> int:
    while data := await session.input.get():
        session.put("stdout", data)
    return 0


async def _play(session: FakeSession, command: Command, run: int) -> int:
    await asyncio.sleep(command.delay)
    session.put("stdout", command.stdout)
    session.put("stderr", command.stderr)
    return 1 if run <= command.fail_first else command.status


async def _watch(session: FakeSession, instance: FakeInstance, script: GuestScript) -> int:
    """Print what ``tail -F`` of cloud-init's output and result prints."""
    session.put("stdout", f"==> {_OUTPUT_LOG} <==\n")
    for line in script.output:
        await _until(instance, line.at)
        session.put("stdout", f"{line.text}\n")
    if script.result != "never":
        await _until(instance, script.duration)
        session.put("stdout", f"\n==> {_RESULT} <==\n{_result(script)}\n")
    await asyncio.Event().wait()
    return 0


async def _until(instance: FakeInstance, at: float) -> None:
    await asyncio.sleep(max(0.0, at - _age(instance)))


def _age(instance: FakeInstance) -> float:
    return time.time() - instance.started_at


def _finished(instance: FakeInstance, script: GuestScript) -> bool:
    last = max([script.duration, *(line.at for line in script.output)])
    return script.result != "never" and _age(instance) >= last


def _has_cloud_init(world: FakeWorld, instance: FakeInstance, script: GuestScript) -> bool:
    image = world.state.images.get(instance.image)
    return script.result != "absent" and (image is None or image.cloud_init)


def _errors(script: GuestScript) -> list[str]:
    return list(script.errors) or (["the fake was told to fail"] if script.result == "error" else [])


def _result(script: GuestScript) -> str:
    """cloud-init's ``result.json``, all on few lines as it writes it."""
    return json.dumps(
        {
            "v1": {
                "datasource": "DataSourceNoCloud [seed=/var/lib/cloud/seed/nocloud-net]",
                "errors": _errors(script),
            }
        },
        indent=1,
    )


def _status(instance: FakeInstance, script: GuestScript) -> str:
    """cloud-init's ``status.json``: each stage with its errors; ``stage`` is null once all have ended."""
    ended = _finished(instance, script)
    stages: dict[str, Any] = {
        stage: {
            "errors": _errors(script) if ended and stage == "modules-final" else [],
            "recoverable_errors": {k: list(v) for k, v in script.recoverable_errors.items()}
            if ended and stage == "modules-final"
            else {},
            "start": instance.started_at,
            "finished": instance.started_at + script.duration if ended or stage != "modules-final" else None,
        }
        for stage in ("init-local", "init", "modules-config", "modules-final")
    }
    stage = None if ended else "modules-final"
    return json.dumps({"v1": {"datasource": "DataSourceNoCloud", "stage": stage, **stages}}, indent=1)
