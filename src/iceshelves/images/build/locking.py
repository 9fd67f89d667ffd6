"""The first stage: from a recipe to exact packages, by the lock that is given or by resolving anew."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from iceshelves.appliances import Recipe, guest_files
from iceshelves.core.errors import Conflict, NotFound
from iceshelves.images.build import system
from iceshelves.images.build.commands import Say
from iceshelves.images.build.describing import template_files
from iceshelves.images.build.job import Job, Source
from iceshelves.images.build.lock import MAX_BYTES, Lock, parse_lock, same_content
from iceshelves.images.build.resolving import resolver

_MINUTE: Final = 60  # the finest that an image's serial can tell


def lock(job: Job, recipe: Recipe, sources: tuple[Source, ...], say: Say) -> Lock:
    """What to install, and the time that the image claims.

    Raises :class:`Conflict` (``lock_outdated``) when the given lock is another recipe's or architecture's,
    and what resolving raises.
    """
    given = None if job.lock is None else _read(Path(job.lock))
    if given is not None and job.lock_use == "exact":
        _check_fits(given, job, recipe)
        say(f"{len(given.everything())} packages, by the lock")
        return given
    made = _resolved(job, recipe, sources, say)
    if given is not None and same_content(given, made):
        say("the packages and the recipe are those of the lock")
        return given
    return made


def builder_digest(recipe: Recipe, versions: Mapping[str, str]) -> str:
    """``sha256:…`` over all that an image gets from the builder rather than from recipe and packages."""
    guest = guest_files(recipe, recipe.version_with(versions))
    parts = [str(system.REVISION), *guest.enable]
    for file in guest.files:
        parts += [
            file.path,
            f"{file.mode:o}",
            file.owner,
            file.group,
            hashlib.sha256(file.content).hexdigest(),
        ]
    for name, content in sorted(template_files(recipe).items()):
        parts += [name, hashlib.sha256(content).hexdigest()]
    return f"sha256:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"


def _read(path: Path) -> Lock:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotFound(
            f"The lock {path} cannot be read: {error.strerror}.",
            code="lock_not_found",
            hint="Build without a lock to make one.",
        ) from error
    return parse_lock(text, path.name)


def _check_fits(given: Lock, job: Job, recipe: Recipe) -> None:
    facts = (
        ("recipe", given.recipe, recipe.digest),
        ("version of the builder", given.builder, builder_digest(recipe, given.versions())),
        ("architecture", given.architecture, job.architecture),
        ("appliance", given.appliance, recipe.name),
        ("distribution", given.distribution, recipe.base.distribution),
        ("release", given.release, recipe.base.release),
    )
    for what, locked, wanted in facts:
        if locked != wanted:
            raise Conflict(
                f"The lock was made for another {what} than that of {recipe.name}.",
                code="lock_outdated",
                hint="Build without the lock, or refresh it; that makes a new one.",
                details={"what": what, "lock": locked, "wanted": wanted},
            )


def _resolved(job: Job, recipe: Recipe, sources: tuple[Source, ...], say: Say) -> Lock:
    with resolver(Path(job.cache), sources, job.architecture, say) as apt:
        base = apt.base((*system.PACKAGES, *(system.CLOUD_INIT_PACKAGES if recipe.cloud_init else ())))
        made = Lock(
            appliance=recipe.name,
            recipe=recipe.digest,
            builder="",
            epoch=int(time.time()) // _MINUTE * _MINUTE,
            distribution=recipe.base.distribution,
            release=recipe.base.release,
            architecture=job.architecture,
            base=base,
            packages=(),
        )
        if recipe.packages:
            every = apt.resolve((*(package.pinned for package in base), *recipe.packages))
            made = replace(made, packages=tuple(each for each in every if each not in base))
    made = replace(made, builder=builder_digest(recipe, made.versions()))
    say(f"{len(made.base)} packages of the base, {len(made.packages)} of {recipe.name}")
    return made
