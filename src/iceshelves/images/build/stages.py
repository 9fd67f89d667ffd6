"""A build, stage by stage; runs as the first process of its own namespaces."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceshelves.appliances import Recipe, guest_files, load
from iceshelves.appliances.guest import as_program
from iceshelves.core.errors import InvalidInput, Unsupported
from iceshelves.images.build import locking
from iceshelves.images.build.base import Base
from iceshelves.images.build.debs import Debs
from iceshelves.images.build.describing import serial
from iceshelves.images.build.emulation import runs_here
from iceshelves.images.build.events import BuildResult, Event, Said, Stage, StageBegan, StageEnded
from iceshelves.images.build.installing import install
from iceshelves.images.build.jail import Jail, furnished
from iceshelves.images.build.job import Job
from iceshelves.images.build.leaks import check_tree
from iceshelves.images.build.lock import LOCK, Lock, render_lock
from iceshelves.images.build.normalise import normalise
from iceshelves.images.build.packing import built_file, pack_container
from iceshelves.images.build.placing import place
from iceshelves.images.build.scratch import Scratch, scratch_in, unpacked_size
from iceshelves.images.build.sources import machine_sources
from iceshelves.images.build.workplace import Workplace
from iceshelves.images.squashfs import BlockCache

_SCRIPT: Final = "/run/build-action"


@dataclass
class Build:
    """One build.  ``tell`` is told each event but the last."""

    job: Job
    place: Workplace
    tell: Callable[[Event], None]
    seconds: dict[str, float] = field(default_factory=dict)
    _stage: Stage = "prepare"

    def run(self) -> BuildResult:
        """Do all of it.  Raises the errors of each stage."""
        with self._in("prepare"):
            recipe = load(Path(self.job.recipe))
            check_possible(self.job, recipe)
            scratch = scratch_in(self.place.scratch, self.place.name, self.job.limits.disk, self._say)
        debs = Debs(self.place.cache / "debs", self.place.name)
        sources = self.job.sources or machine_sources(
            recipe.base.distribution, recipe.base.release, self.job.architecture
        )
        with self._in("lock"):
            lock = locking.lock(self.job, recipe, sources, self._say)
            debs.fetch(lock.everything(), sources, self._say)
        with self._kept_base(
            Base(lock, recipe.cloud_init, debs, self.place.cache / "bases"), scratch
        ) as base:
            tree = scratch.layered(base, self._say)
            self._fill(tree, recipe, lock, debs, scratch)
            return self._pack(tree, recipe, lock)

    @contextmanager
    def _kept_base(self, base: Base, scratch: Scratch) -> Iterator[Path]:
        begun = self._begin("base")
        with base.tree(scratch, self._say) as tree:
            self._end("base", begun)
            yield tree

    def _fill(self, tree: Path, recipe: Recipe, lock: Lock, debs: Debs, scratch: Scratch) -> None:
        with self._in("packages"):
            install(tree, lock, recipe.packages, debs, scratch, self._say)
        with self._in("files"):
            Jail(tree, lock.epoch).call(lambda: place(Path("/"), recipe.files))
        with furnished(tree, lock.epoch, {}) as jail:
            with self._in("actions"):
                self._run_actions(jail, recipe)
            with self._in("services"):
                self._set_up_services(jail, recipe, recipe.version_with(lock.versions()))
        _end_what_still_runs()
        with self._in("normalise"):
            Jail(tree, lock.epoch).call(lambda: normalise(Path("/"), lock.epoch))
        with self._in("secrets"):
            check_tree(tree, recipe.allow_secrets)

    def _run_actions(self, jail: Jail, recipe: Recipe) -> None:
        for action in recipe.actions:
            self._say(f"action {action.name}")
            jail.call(functools.partial(_write_program, as_program(action.run)))
            run = jail.run_online if action.network else jail.run
            run([_SCRIPT], self._say)

    def _set_up_services(self, jail: Jail, recipe: Recipe, version: str) -> None:
        guest = guest_files(recipe, version)
        jail.call(lambda: place(Path("/"), guest.files))
        enabled = (*guest.enable, *recipe.services.enable)
        for verb, units in (("enable", enabled), ("disable", recipe.services.disable)):
            if units:
                jail.run(["systemctl", "--quiet", verb, "--", *units], self._say)

    def _pack(self, tree: Path, recipe: Recipe, lock: Lock) -> BuildResult:
        target = self.place.unfinished
        with self._in("pack"):
            blocks = BlockCache(self.place.cache / "blocks", self.job.limits.cache // 4)
            image = pack_container(tree, recipe, lock, self.job.compression, blocks, target)
            (target / LOCK).write_text(render_lock(lock))
        return BuildResult(
            appliance=recipe.name,
            version=recipe.version_with(lock.versions()),
            architecture=lock.architecture,
            serial=serial(lock.epoch),
            epoch=lock.epoch,
            recipe=recipe.digest,
            lock=built_file(target / LOCK),
            images=(image,),
            packages=len(lock.everything()),
            unpacked=unpacked_size(tree),
            seconds=self.seconds,
        )

    @contextmanager
    def _in(self, stage: Stage) -> Iterator[None]:
        begun = self._begin(stage)
        yield
        self._end(stage, begun)

    def _begin(self, stage: Stage) -> float:
        self._stage = stage
        self.tell(StageBegan(stage))
        return time.monotonic()

    def _end(self, stage: Stage, begun: float) -> None:
        seconds = round(time.monotonic() - begun, 3)
        self.seconds[stage] = seconds
        self.tell(StageEnded(stage, seconds))

    def _say(self, line: str) -> None:
        self.tell(Said(self._stage, line))


def _end_what_still_runs() -> None:
    """End what an action left in the background, so that the tree is at rest."""
    if os.getpid() == 1:  # of our own namespace, in which there is nothing else
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)


def _write_program(content: bytes) -> None:
    program = Path(_SCRIPT)
    program.write_bytes(content)
    program.chmod(0o755)


def check_possible(job: Job, recipe: Recipe) -> None:
    """Refuse at once what this recipe does not give or this machine cannot build.

    Raises :class:`InvalidInput` (``not_in_recipe``) and :class:`Unsupported` (``architecture_unbuildable``,
    ``type_unbuildable``).
    """
    if job.architecture not in recipe.architectures:
        raise InvalidInput(
            f"{recipe.name} is not made for {job.architecture}.",
            code="not_in_recipe",
            hint=f"Its recipe names {', '.join(recipe.architectures)}.",
        )
    wrong = [each for each in job.types if each not in recipe.types]
    if wrong:
        raise InvalidInput(
            f"{recipe.name} is not made as a {wrong[0]}.",
            code="not_in_recipe",
            hint=f"Its recipe names {', '.join(recipe.types)}.",
        )
    if "virtual-machine" in job.types:
        raise Unsupported(
            "This builder makes container images only.",
            code="type_unbuildable",
            hint="Build it as a container.",
        )
    if not runs_here(job.architecture):
        raise Unsupported(
            f"This machine cannot run programs for {job.architecture}, which building for it needs.",
            code="architecture_unbuildable",
            hint="Install qemu-user-static, or build on a machine of that architecture.",
        )


def finish(place: Workplace) -> None:
    """Move the whole result to its place, in one step."""
    if place.output.exists():
        place.output.rmdir()
    place.unfinished.rename(place.output)
