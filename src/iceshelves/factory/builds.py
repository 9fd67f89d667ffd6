"""Builds, as users ask for them."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.access import audit
from iceshelves.access.policy import Actor
from iceshelves.appliances import Recipe
from iceshelves.clusters import rows
from iceshelves.core.errors import InvalidInput
from iceshelves.factory import recipes
from iceshelves.factory.job import BOOT, BUILD, KIND, PUBLISH
from iceshelves.images.build.job import Compression, InstanceType
from iceshelves.images.simplestreams.names import check_channel
from iceshelves.operations import asking
from iceshelves.store.database import Database
from iceshelves.store.models import Build, Operation

#: seconds, where nothing else is asked for: a base that has to be made first takes the longest
_TIMEOUT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build: a built-in appliance by its name, or a recipe by its files.

    ``architecture`` and ``types`` are the recipe's first and all of them where they are left out.  With a
    ``cluster_id`` the image has to start and be healthy there before it is published, with a ``channel`` it
    is published.
    """

    appliance: str | None = None
    files: Mapping[str, bytes] | None = None
    architecture: str | None = None
    types: tuple[InstanceType, ...] | None = None
    compression: Compression = "release"
    lock: str | None = None
    cluster_id: int | None = None
    channel: str | None = None
    timeout: float = _TIMEOUT


@dataclass(frozen=True, slots=True)
class AcceptedBuild:
    """A build that was asked for, and the operation that does it."""

    build_id: int
    operation_id: str
    appliance: str


class Builds:
    """The use cases of builds.  ``submit`` hands an operation over to be done."""

    def __init__(self, database: Database, submit: Callable[[str], None]) -> None:
        self._database = database
        self._submit = submit

    def create(self, actor: Actor, request: BuildRequest, request_id: str = "") -> AcceptedBuild:
        """Build an image.

        Raises :class:`InvalidInput` for what is wrong with the recipe or cannot be built of it, and
        :class:`NotFound` for an unknown appliance or cluster.
        """
        files, recipe = _read(request)
        architecture = request.architecture or recipe.architectures[0]
        types = request.types or recipe.types
        _check(recipe, architecture, types)
        if request.channel is not None:
            check_channel(request.channel)
        wanted = {BOOT: request.cluster_id is not None, PUBLISH: request.channel is not None}
        steps = [BUILD, *(step for step, is_wanted in wanted.items() if is_wanted)]
        with self._database.write() as session:
            if request.cluster_id is not None:
                rows.held(session, actor, request.cluster_id)
            build = Build(
                tenant_id=actor.tenant_id,
                appliance=recipe.name,
                architecture=architecture,
                types=list(types),
                compression=request.compression,
                recipe=recipes.pack(files),
                lock=request.lock,
                cluster_id=request.cluster_id,
                channel=request.channel,
                created_by=actor.name,
            )
            session.add(build)
            session.flush()
            operation = Operation(
                id=str(uuid.uuid4()),
                tenant_id=actor.tenant_id,
                kind=KIND,
                build_id=build.id,
                timeout=request.timeout,
                steps=steps,
                created_by=actor.name,
            )
            asking.add(session, operation)
            audit.record(session, actor, "image.build", recipe.name, request_id=request_id)
            accepted = AcceptedBuild(build.id, operation.id, recipe.name)
        self._submit(accepted.operation_id)
        return accepted


def _read(request: BuildRequest) -> tuple[Mapping[str, bytes], Recipe]:
    if (request.appliance is None) == (request.files is None):
        raise InvalidInput(
            "Name a built-in appliance or send the files of a recipe, one of the two.", code="invalid_request"
        )
    files = recipes.builtin_files(request.appliance) if request.appliance else request.files or {}
    with tempfile.TemporaryDirectory(prefix="iceshelves-recipe-") as folder:
        return files, recipes.write(files, Path(folder) / "recipe")


def _check(recipe: Recipe, architecture: str, types: tuple[InstanceType, ...]) -> None:
    if architecture not in recipe.architectures:
        raise InvalidInput(
            f"{recipe.name} is not made for {architecture}.",
            code="architecture_not_in_recipe",
            hint=f"Its recipe names {', '.join(recipe.architectures)}.",
        )
    for kind in types:
        if kind not in recipe.types:
            raise InvalidInput(
                f"{recipe.name} is not made as a {kind}.",
                code="type_not_in_recipe",
                hint=f"Its recipe names {', '.join(recipe.types)}.",
            )
