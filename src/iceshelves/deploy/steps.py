"""The steps of a deployment, and of its end.

Each step looks at what is before it acts, so it can be run again at any time: after a kill, on another
server, in an agent.  It returns facts, which are durable, and raises from the one error tree;
:class:`~iceshelves.core.errors.Temporary` means "try me again".
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from iceshelves.core.errors import Conflict, Failed, IceShelvesError, NotFound, Temporary, Unsupported
from iceshelves.deploy import checks, readiness
from iceshelves.deploy.placing import choose_member, on_member
from iceshelves.deploy.work import Work, is_on_shelf
from iceshelves.providers.base import (
    ExecRequest,
    Guest,
    Image,
    Images,
    ImageStore,
    Instance,
    Lifecycle,
    Reconfiguration,
    Volumes,
    require,
)

Facts = Mapping[str, Any]
Step = Callable[[Work], Awaitable[Facts]]


async def validate(work: Work) -> Facts:
    """Refuse early what cannot work: the name is taken, a profile is missing, the kind is not offered."""
    spec = work.spec
    draft = spec.to_instance(Image("", spec.image, spec.kind, cached=False), work.mark)
    lifecycle = require(work.provider, Lifecycle)
    await lifecycle.validate(draft)
    there = await lifecycle.find(spec.instance)
    if there is not None and not _is_ours(there, work):
        raise Conflict(
            f"An instance called {spec.instance!r} is there already, and it is not this deployment's.",
            code="instance_exists",
            hint="Choose another name; what is not ours is never touched.",
        )
    if there is not None and _is_older(there, work):
        await require(work.provider, Reconfiguration).validate(spec.instance)
    if spec.volumes:
        require(work.provider, Volumes)
    return {"member": await _member(work, there)}


async def _member(work: Work, there: Instance | None) -> str | None:
    """Where the instance is, or else will be."""
    if there is not None:
        return there.member
    chosen = await choose_member(work)
    if chosen is not None:
        work.report.log(f"Member: {chosen}")
    return chosen


async def image(work: Work) -> Facts:
    """Have the image on the hypervisor: the pinned one if it is still there, else what the name means now."""
    found = await _found_image(work)
    work.report.log(f"Image {found.reference}: {found.description or found.fingerprint[:12]}")
    return {"image": dataclasses.asdict(found)}


async def _found_image(work: Work) -> Image:
    images = require(work.provider, Images)
    spec = work.spec
    found = await _pinned(images, work)
    if found is None and is_on_shelf(spec.image):
        return await _brought(work)
    if found is None:
        found = await images.resolve(spec.image, spec.kind)
    if not found.cached:
        work.report.log(f"Fetching image {found.reference}")
    return await images.ensure(found, work.report.progress)


async def _brought(work: Work) -> Image:
    """An image of our own registry: the hypervisor need not reach us, we bring it."""
    spec = work.spec
    if work.shelf is None:
        raise Unsupported(
            f"An agent cannot take {spec.image} from the registry.",
            code="registry_out_of_reach",
            hint="Add the registry to the cluster's image servers (iceshelves image remote-line).",
        )
    architectures = (await work.provider.probe()).architectures
    files = await work.shelf.take(spec.image, spec.kind, architectures)
    work.report.log(f"Bringing image {spec.image}")
    brought = await require(work.provider, ImageStore).bring(files, spec.kind, work.report.progress)
    return dataclasses.replace(brought, reference=spec.image)


async def _pinned(images: Images, work: Work) -> Image | None:
    """The image of the revision that a roll-back returns to, if it is still there."""
    spec = work.spec
    if spec.pinned_image:
        try:
            return await images.resolve(spec.pinned_image, spec.kind)
        except NotFound:
            work.report.log(
                f"The former image {spec.pinned_image[:12]} is gone; using {spec.image} as it is now",
                "WARNING",
            )
    return None


@on_member
async def resources(work: Work) -> Facts:
    """Have the volumes that the instance keeps its data on."""
    devices: dict[str, dict[str, str]] = {}
    for wanted in work.spec.volumes:
        volumes = require(work.provider, Volumes)
        volume = wanted.to_volume(work.member)
        devices[wanted.name] = dict(await volumes.ensure(work.spec.instance, volume, work.mark))
        work.report.log(f"Volume {wanted.name} ({wanted.size}) at {wanted.path}")
    return {"volumes": devices}


@on_member
async def create(work: Work) -> Facts:
    """Create the instance, or rebuild the one that an earlier operation of this deployment made."""
    lifecycle = require(work.provider, Lifecycle)
    there = await lifecycle.find(work.spec.instance)
    if there is not None and _is_ours(there, work) and _is_older(there, work):
        work.report.log("Rebuilding in place; addresses and volumes are kept")
        made = await require(work.provider, Reconfiguration).rebuild(work.instance, work.report.progress)
    else:
        made = await lifecycle.create(work.instance, work.report.progress)
    images = require(work.provider, Images)
    if made.power != "running" and not await images.supports_cloud_init(made.name):
        raise _no_cloud_init(work)
    return {"member": made.member}


@on_member
async def start(work: Work) -> Facts:
    """Switch it on."""
    await require(work.provider, Lifecycle).start(work.spec.instance)
    return {}


@on_member
async def guest(work: Work) -> Facts:
    """Wait until programs can be run in the guest."""
    request = ExecRequest(["true"])
    try:
        async with await require(work.provider, Guest).exec(work.spec.instance, request) as session:
            status = await session.wait()
    except Conflict as refusal:
        raise await _not_running(work, refusal) from refusal
    if status != 0:
        raise Temporary(f"The guest does not run programs yet (exit {status}).", code="guest_not_ready")
    return {}


async def _not_running(work: Work, refusal: Conflict) -> IceShelvesError:
    """A guest that is just coming up may be tried again; one that has stopped will not come back."""
    there = await require(work.provider, Lifecycle).find(work.spec.instance)
    if there is not None and there.power == "running":
        return Temporary(refusal.message, code="guest_not_ready")
    return Failed(
        f"The instance {work.spec.instance} stopped by itself right after its start.",
        code="instance_stopped",
        hint="Look at its console: the image may not boot on this host.",
    )


@on_member
async def cloud_init(work: Work) -> Facts:
    """Follow cloud-init to its end; its own word decides."""
    outcome = await readiness.follow(work)
    if outcome is None:
        raise _no_cloud_init(work)
    return {}  # its warnings are in the log, redacted; facts are kept as they are


def _no_cloud_init(work: Work) -> Failed:
    return Failed(
        f"The image {work.spec.image} has no cloud-init, so the egg could not configure the instance.",
        code="image_without_cloud_init",
        hint="Name the image's cloud variant with --image, for example images:debian/13/cloud.",
    )


@on_member
async def run_checks(work: Work) -> Facts:
    """The egg's own idea of being ready."""
    for check in work.spec.checks:
        work.report.progress(None, check.name)
        await checks.run(work, check)
        work.report.log(f"Check passed: {check.name}")
    return {}


@on_member
async def ready(work: Work) -> Facts:
    """Gather what whoever deployed it wants to know: above all, its addresses."""
    addresses = await _addresses(work)
    found = await require(work.provider, Lifecycle).find(work.spec.instance)
    if found is None:
        raise Failed(f"The instance {work.spec.instance} has gone.", code="instance_gone")
    if not addresses:
        work.report.log("The instance has no address yet", "WARNING")
    return {
        "instance_info": {
            "name": found.name,
            "status": found.power,
            "architecture": found.architecture,
            "ipv4": [address for address in addresses if ":" not in address],
            "ipv6": [address for address in addresses if ":" in address],
            "image": work.image.fingerprint,
            "member": found.member,
        }
    }


async def _addresses(work: Work) -> list[str]:
    """The guest's addresses; a guest that asks for one slowly is given two seconds more."""
    reach = require(work.provider, Guest)
    for pause in (0.1, 0.2, 0.4, 0.6, 0.7, 0.0):
        found = list(await reach.addresses(work.spec.instance))
        if any(":" not in address for address in found):
            break
        await asyncio.sleep(pause)
    return found


async def remove(work: Work) -> Facts:
    """Delete the instance if it is ours; that it is gone is all that matters."""
    lifecycle = require(work.provider, Lifecycle)
    there = await lifecycle.find(work.spec.instance)
    if there is not None and not _is_ours(there, work):
        work.report.log(f"The instance {work.spec.instance} is not this deployment's; left alone", "WARNING")
        return {}
    await lifecycle.delete(work.spec.instance, work.mark)
    return {}


async def remove_volumes(work: Work) -> Facts:
    """Delete the volumes that carry our mark."""
    volumes = work.provider.offers(Volumes)
    if volumes is not None:
        await volumes.delete_all(work.mark)
    return {}


def _is_ours(there: Instance, work: Work) -> bool:
    return (
        there.mark is not None
        and there.mark.deployment == work.mark.deployment
        and there.mark.installation == work.mark.installation
    )


def _is_older(there: Instance, work: Work) -> bool:
    return not there.settled or (there.mark is not None and there.mark.operation != work.mark.operation)


STEPS: Final[dict[str, Step]] = {
    "validate": validate,
    "image": image,
    "resources": resources,
    "create": create,
    "start": start,
    "guest": guest,
    "cloud-init": cloud_init,
    "checks": run_checks,
    "ready": ready,
    "remove": remove,
    "remove-volumes": remove_volumes,
}

#: what each kind of operation does, in order; written into the operation when it is made, so that an
#: operation begun by an older version goes on as it began
PIPELINES: Final[dict[str, tuple[str, ...]]] = {
    "deploy": (
        "validate",
        "image",
        "resources",
        "create",
        "start",
        "guest",
        "cloud-init",
        "checks",
        "ready",
    ),
    "delete": ("remove", "remove-volumes"),
}

#: undone in this order when a first deployment is cancelled, or fails with the policy ``cleanup``
UNDO: Final = ("remove", "remove-volumes")


def step(name: str) -> Step:
    """The step called ``name``.  Raises :class:`Unsupported` for one that another version wrote."""
    found = STEPS.get(name)
    if found is None:
        raise Unsupported(
            f"This version of IceShelves has no step {name!r}.",
            code="unknown_step",
            hint="Retry the operation: it then runs with the steps of this version.",
        )
    return found
