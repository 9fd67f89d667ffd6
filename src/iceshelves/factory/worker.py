"""Carries builds out: a step each for building, trying out and publishing."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from iceshelves.appliances import Recipe, load
from iceshelves.clusters.providers import ProviderPool
from iceshelves.core.bus import Bus
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.log import logger
from iceshelves.factory import gate, recipes, records
from iceshelves.factory.job import BOOT, BUILD, PUBLISH, BuildJob
from iceshelves.factory.registries import Registries
from iceshelves.images.build.events import BuildResult, BuiltImage, Event, Said, StageBegan, StageEnded
from iceshelves.images.build.job import Job as BuilderJob
from iceshelves.images.build.job import Limits
from iceshelves.images.build.launch import build
from iceshelves.images.files import ImageFiles
from iceshelves.images.registry import Group, Publication, Registry, make_deltas
from iceshelves.operations.engine import Journal, Json
from iceshelves.operations.execution import Execution, internal_error
from iceshelves.operations.job import Ending, Report
from iceshelves.operations.keeping import Cancels, DatabaseDesk, Keeper
from iceshelves.operations.slots import Slots, Wanted
from iceshelves.providers.base import Lifecycle, require

#: builds at once: each of them uses all processors while it packs
AT_ONCE: Final = 2
_STAGES: Final = 9
#: of one build's log; what an action repeats for ever must not fill the database
_MOST_LINES: Final = 20_000

P = ParamSpec("P")
T = TypeVar("T")

log = logger(__name__)


class BuildWorker:
    """One per process; lives on the event loop.  ``folder`` holds the builder's cache and its work."""

    def __init__(
        self,
        keeper: Keeper,
        cancels: Cancels,
        bus: Bus,
        providers: ProviderPool,
        registries: Registries,
        folder: Path,
    ) -> None:
        self.keeper = keeper
        self._cancels = cancels
        self._bus = bus
        self.providers = providers
        self.registries = registries
        self.folder = folder
        self._slots = Slots()

    async def carry_out(self, journal: Journal, operation_id: str) -> None:
        """The workflow.  Whatever happens in it, the build ends."""
        cancel = self._cancels.of(operation_id)
        try:
            job = await self.keeper.read(records.load, operation_id)
            async with self._slots.of(Wanted(0, AT_ONCE, job.begun), cancel):
                await _BuildExecution(job, _Desk(self.keeper, job), cancel, self).run(journal)
        except IceShelvesError as error:
            await self.give_up(operation_id, error)
        except Exception:
            log.exception("build %s cannot go on", operation_id)
            await self.give_up(operation_id, internal_error(operation_id))
        finally:
            self._cancels.forget(operation_id)

    async def give_up(self, operation_id: str, error: IceShelvesError) -> None:
        """End a build that cannot go on, if it has not ended."""
        if await self.keeper.write(records.give_up, operation_id, error.to_json()):
            log.error("build %s was given up: %s", operation_id, error)
            self._bus.publish(f"operation:{operation_id}")

    def work_folder(self, job: BuildJob) -> Path:
        """Where the recipe of a build is laid and its image appears; gone once the build has ended."""
        return self.folder / "work" / str(job.build_id)


class _Desk(DatabaseDesk):
    """The :class:`~iceshelves.operations.execution.Desk` of a build."""

    async def begin(self) -> bool:
        started: bool = await self._write(records.begin)
        self._keeper.tell(self._job)
        return started

    async def end(self, ending: Ending) -> bool:
        await self._keeper.logbook.flush()
        ended: bool = await self._write(records.end, ending)
        self._keeper.tell(self._job)
        return ended


class _BuildExecution(Execution):
    """One build being carried out."""

    _job: BuildJob

    def __init__(self, job: BuildJob, desk: _Desk, cancel: asyncio.Event, worker: BuildWorker) -> None:
        super().__init__(job, desk, cancel)
        self._worker = worker
        self._folder = worker.work_folder(job)

    async def run(self, journal: Journal) -> None:
        await super().run(journal)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def undo(self, journal: Journal, _outcome: Json, begun: bool) -> bool:
        """Remove the gate's instance, if a killed server left it; all else lies in the build's folder."""
        if not begun or BOOT not in self._job.steps:
            return True
        cleared = await journal.once("clear-gate", self._clear_gate)
        return bool(cleared["clean"])

    async def _clear_gate(self) -> Json:
        job = self._job
        try:
            provider = await self._worker.providers.get(job.cluster_id or 0)
            await require(provider, Lifecycle).delete(self._gate_name, job.mark)
        except IceShelvesError as error:
            log.warning("%s may be left over from a gate: %s", self._gate_name, error)
            return {"clean": False}
        return {"clean": True}

    @property
    def _gate_name(self) -> str:
        return f"gate-{self._job.build_id}-{self._job.operation_id[:8]}"

    async def do(self, name: str, facts: Json, guest_lines: int) -> Json:
        report = self._desk.report(name)
        if guest_lines:
            report.log("Going on after an interruption", "WARNING")
        steps = {BUILD: self._build, BOOT: self._boot, PUBLISH: self._publish}
        return await steps[name](facts, report)

    async def _build(self, _facts: Json, report: Report) -> Json:
        recipe, result = await self._made(report)
        report.log(f"{recipe.name} {result.version}, {result.packages} packages, serial {result.serial}")
        for image in result.images:
            report.log(f"{image.type} {image.fingerprint}, {image.metadata.size + image.data.size} bytes")
        shown = _shown(result)
        lock = await asyncio.to_thread((self._output / result.lock.name).read_text)
        await self._worker.keeper.write(records.note, self._job.build_id, shown, lock)
        return {"built": _facts_of(result)}

    async def _made(self, report: Report) -> tuple[Recipe, BuildResult]:
        job = self._job
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        files = recipes.unpack(job.recipe)
        recipe = await asyncio.to_thread(recipes.write, files, self._folder / "recipe")
        lock = None
        if job.lock is not None:
            lock = self._folder / "lock.json"
            await asyncio.to_thread(lock.write_text, job.lock)
        cache = self._worker.folder / "cache"
        await asyncio.to_thread(partial(cache.mkdir, parents=True, exist_ok=True))
        wanted = BuilderJob(
            recipe=str(self._folder / "recipe"),
            cache=str(cache),
            output=str(self._output),
            architecture=job.architecture,
            types=job.types,
            compression=job.compression,
            lock=None if lock is None else str(lock),
            limits=Limits(seconds=job.timeout),
        )
        return recipe, await build(wanted, _Teller(report).hear)

    async def _boot(self, facts: Json, report: Report) -> Json:
        job = self._job
        image = _container(facts)
        if image is None or job.cluster_id is None:
            report.log("There is no container image to start", "WARNING")
            return {}
        recipe = await asyncio.to_thread(load, self._folder / "recipe")
        trial = gate.Trial(recipe, self._files(image), job.mark, self._gate_name)
        provider = await self._worker.providers.get(job.cluster_id)
        return {"gate": await gate.try_out(provider, trial, report)}

    async def _publish(self, facts: Json, report: Report) -> Json:
        job = self._job
        recipe = await asyncio.to_thread(load, self._folder / "recipe")
        publication = Publication(
            files=self._all_files(facts), channel=job.channel or "", aliases=recipe.aliases
        )
        registry = await asyncio.to_thread(self._worker.registries.of, job.tenant_id)
        published = await _to_its_end(registry.publish, publication)
        entry = published.entry
        outcome = published.outcome.value
        report.log(f"{entry.appliance} {entry.version} of {entry.serial} in {job.channel}: {outcome}")
        group = Group(published.channel, entry.appliance, entry.architecture)
        if not self._cancel.is_set():
            await self._add_deltas(registry, group, report)
        return {"published": {"serial": entry.serial, "outcome": outcome}}

    async def _add_deltas(self, registry: Registry, group: Group, report: Report) -> None:
        deltas = await _to_its_end(make_deltas, registry, group)
        for serial, size in deltas.made.items():
            report.log(f"A delta from {serial}: {size} bytes")
        for serial, why in deltas.left_out.items():
            report.log(f"No delta from {serial}: {why}")

    @property
    def _output(self) -> Path:
        return self._folder / "image"

    def _files(self, image: Mapping[str, Any]) -> ImageFiles:
        data = self._output / image["data"]
        metadata = self._output / image["metadata"]
        if image["type"] == "container":
            return ImageFiles(metadata, rootfs=data)
        return ImageFiles(metadata, disk=data)

    def _all_files(self, facts: Json) -> ImageFiles:
        """Both kinds of image in one, where the build made both."""
        made = {image["type"]: self._files(image) for image in facts["built"]["images"]}
        first = next(iter(made.values()))
        container, machine = made.get("container"), made.get("virtual-machine")
        return ImageFiles(
            first.metadata,
            rootfs=None if container is None else container.rootfs,
            disk=None if machine is None else machine.disk,
        )


async def _to_its_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``function`` returns, although it is cancelled meanwhile: a thread cannot be stopped half-way."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    while not running.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    return running.result()


class _Teller:
    """Turns what the builder says into the step's log and progress."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._done = 0
        self._said = 0

    def hear(self, event: Event) -> None:
        if isinstance(event, StageBegan):
            self._report.progress(min(1.0, self._done / _STAGES), event.stage)
        elif isinstance(event, StageEnded):
            self._done += 1
            self._report.log(f"[{event.stage}] done in {event.seconds:.1f} s")
        elif isinstance(event, Said):
            self._said += 1
            if self._said < _MOST_LINES:
                self._report.log(f"[{event.stage}] {event.line}")
            elif self._said == _MOST_LINES:
                self._report.log("The build says too much; what follows is not kept.", "WARNING")


def _container(facts: Json) -> Mapping[str, Any] | None:
    return next((image for image in facts["built"]["images"] if image["type"] == "container"), None)


def _facts_of(result: BuildResult) -> Json:
    return {"images": [_image_facts(image) for image in result.images]}


def _image_facts(image: BuiltImage) -> Json:
    return {"type": image.type, "metadata": image.metadata.name, "data": image.data.name}


def _shown(result: BuildResult) -> Json:
    return {
        "version": result.version,
        "serial": result.serial,
        "packages": result.packages,
        "unpacked": result.unpacked,
        "seconds": result.seconds,
        "images": [
            {
                "type": image.type,
                "fingerprint": image.fingerprint,
                "size": image.metadata.size + image.data.size,
            }
            for image in result.images
        ],
    }
