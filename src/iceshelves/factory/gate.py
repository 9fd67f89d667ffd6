"""The gate: an image is published only after an instance of it has been seen to be healthy.

The image is brought to a cluster, an instance of it is started with the profile ``default``, its own health
check is run as the recipe says, and both are removed again, whatever the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from iceshelves.appliances.guest import HEALTH
from iceshelves.appliances.model import Health, Recipe
from iceshelves.core.errors import Failed, IceShelvesError
from iceshelves.core.log import logger
from iceshelves.images.files import ImageFiles
from iceshelves.operations.job import Report
from iceshelves.providers.base import Image, ImageStore, InstanceSpec, Lifecycle, Mark, Provider, require
from iceshelves.providers.executing import execute

#: seconds until systemd has started what it starts, where a recipe has no health check that would tell
_UP_SECONDS: Final = 120.0
_TIDY_SECONDS: Final = 60.0
#: ``degraded`` is up, but a unit of its own has failed
_SYSTEM_UP: Final = ("systemctl", "is-system-running", "--wait")
_FAILED_UNITS: Final = ("systemctl", "--failed", "--plain", "--no-legend", "--no-pager")

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried, and on whose behalf."""

    recipe: Recipe
    files: ImageFiles
    mark: Mark
    instance: str


async def try_out(provider: Provider, trial: Trial, report: Report) -> dict[str, Any]:
    """Start an instance of the container image and see that it is healthy.

    Returns how long what took, in seconds.  Raises :class:`Failed` ``unhealthy`` with the guest's words.
    """
    began = time.monotonic()
    async with _brought(provider, trial, report) as image:
        report.log(f"The cluster has the image {image.fingerprint[:12]}")
        async with _started(provider, trial, image):
            started = time.monotonic()
            report.log(f"{trial.instance} has started")
            await _see(provider, trial, report)
            healthy = time.monotonic()
    report.log(f"Healthy {healthy - started:.1f} s after its start")
    return {"seconds_to_start": round(started - began, 1), "seconds_to_health": round(healthy - started, 1)}


@contextlib.asynccontextmanager
async def _brought(provider: Provider, trial: Trial, report: Report) -> AsyncIterator[Image]:
    store = require(provider, ImageStore)
    image = await store.bring(trial.files, "container", report.progress)
    try:
        yield image
    finally:
        if not image.cached:  # else it was there before, and is somebody's
            await _tidy(store.drop(image.fingerprint), f"the image {image.fingerprint[:12]}")


@contextlib.asynccontextmanager
async def _started(provider: Provider, trial: Trial, image: Image) -> AsyncIterator[None]:
    lifecycle = require(provider, Lifecycle)
    profile = trial.recipe.profile
    spec = InstanceSpec(
        name=trial.instance,
        kind="container",
        image=image,
        mark=trial.mark,
        config=dict(profile.config),
        devices={name: dict(device) for name, device in profile.devices.items()},
    )
    try:
        await lifecycle.validate(spec)
        await lifecycle.create(spec)
        await lifecycle.start(trial.instance)
        yield
    finally:
        await _tidy(lifecycle.delete(trial.instance, trial.mark), f"the instance {trial.instance}")


async def _tidy(removal: Any, what: str) -> None:
    """Remove something although the step is being cancelled; that it fails does not change the verdict."""
    try:
        await asyncio.shield(asyncio.wait_for(removal, _TIDY_SECONDS))
    except (IceShelvesError, TimeoutError) as error:
        log.warning("%s is left over from a gate: %s", what, error)


async def _see(provider: Provider, trial: Trial, report: Report) -> None:
    if trial.recipe.health is None:
        await _see_it_up(provider, trial)
    else:
        await _see_it_healthy(provider, trial, trial.recipe.health, report)


async def _see_it_up(provider: Provider, trial: Trial) -> None:
    try:
        async with asyncio.timeout(_UP_SECONDS):
            _, said = await execute(provider, trial.instance, _SYSTEM_UP)
    except TimeoutError as error:
        raise _unhealthy(trial, f"it was not up within {_UP_SECONDS:.0f} s", "") from error
    if said != "running":
        _, units = await execute(provider, trial.instance, _FAILED_UNITS)
        raise _unhealthy(trial, f"its system is {said or 'silent'}", units)


async def _see_it_healthy(provider: Provider, trial: Trial, health: Health, report: Report) -> None:
    """Run the check until it passes: within the start period as often as need be, then ``retries`` times."""
    settled = time.monotonic() + health.start_period
    failures = 0
    while True:
        passed, said = await _check(provider, trial.instance, health)
        if passed:
            return
        if time.monotonic() >= settled:
            failures += 1
        if failures >= health.retries:
            raise _unhealthy(trial, "its health check fails", said)
        report.progress(None, f"not healthy yet: {said.splitlines()[-1][:200] if said else 'no words'}")
        await asyncio.sleep(min(health.interval, 1.0) if not failures else health.interval)


async def _check(provider: Provider, instance: str, health: Health) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(health.timeout):
            status, said = await execute(provider, instance, (HEALTH,))
    except TimeoutError:
        return False, f"no answer within {health.timeout:.0f} s"
    return status == 0, said or f"exit status {status}"


def _unhealthy(trial: Trial, why: str, said: str) -> Failed:
    return Failed(
        f"{trial.recipe.name} is not published: {why}.",
        code="unhealthy",
        hint="Build it with --no-publish, start it, and look at its journal.",
        details={"guest": said.splitlines()[-20:]},
    )
