"""A tenant's egg library: import, make from a template, keep the built-in eggs current, switch, delete."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.access import audit
from iceshelves.access.bootstrap import SYSTEM, system_actor
from iceshelves.access.policy import Actor
from iceshelves.core.errors import Conflict, InvalidInput
from iceshelves.core.finding import Finding
from iceshelves.core.names import check_object_name
from iceshelves.eggs import (
    Egg,
    SemVer,
    builtin_eggs,
    egg_from_files,
    lint,
    new_egg,
    pack,
    templates,
    unpack,
)
from iceshelves.eggs.model import METADATA, Parameter
from iceshelves.store import models
from iceshelves.store.database import Database
from iceshelves.store.queries import eggs as queries

_log: Final = logging.getLogger("iceshelves.catalogue")


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an import.  ``created`` is false where the library held this very egg already."""

    egg_id: int
    name: str
    version: str
    digest: str
    created: bool
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class NewEgg:
    """An egg to be made from a template.  ``variables`` become the defaults of its parameters."""

    name: str
    template: str
    display_name: str | None = None
    description: str | None = None
    category: str | None = None
    egg_type: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Template:
    """Something that an egg can be made from; ``number`` counts from 1 and names it as well."""

    number: int
    name: str
    egg: Egg

    @property
    def required(self) -> list[str]:
        """The parameters that have no default."""
        return [parameter.name for parameter in self.egg.metadata.parameters if parameter.required]


def import_archive(database: Database, actor: Actor, data: bytes, request_id: str = "") -> Imported:
    """Put a packed egg into the tenant's library.

    Raises :class:`InvalidInput` for an egg that cannot work (``egg_has_errors``, all findings in ``details``)
    and :class:`Conflict` ``egg_version_exists`` for other content under a version that is there.
    """
    egg = unpack(data)
    findings = tuple(lint(egg))
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        raise InvalidInput(
            f"{egg.name} has {len(errors)} error{'s' if len(errors) > 1 else ''}; the first is {errors[0]}",
            code="egg_has_errors",
            hint=errors[0].hint or "Mend it; iceshelves egg lint shows all findings.",
            details={"findings": [finding.to_json() for finding in findings]},
        )
    return add(database, actor, egg, findings, request_id)


def add(
    database: Database,
    actor: Actor,
    egg: Egg,
    findings: tuple[Finding, ...] = (),
    request_id: str = "",
) -> Imported:
    """Put ``egg`` into the library.  Raises like :func:`import_archive`, but does not lint."""
    check_object_name(egg.name, "an egg")
    with database.write() as session:
        _lock(session, actor.tenant_id)
        there = _version(session, actor.tenant_id, egg)
        if there is not None and there.digest != egg.digest:
            raise _taken(egg)
        if there is None:
            row = _insert(session, actor, egg)
            audit.record(session, actor, "egg.import", f"{egg.name}@{egg.version}", request_id=request_id)
        else:
            row = there
        return Imported(row.id, egg.name, str(egg.version), egg.digest, there is None, findings)


def create(database: Database, actor: Actor, wanted: NewEgg, request_id: str = "") -> Imported:
    """Make an egg from a template.  Raises :class:`InvalidInput`, or :class:`Conflict` as for an import."""
    template = find_template(wanted.template)
    given = {
        "display_name": wanted.display_name,
        "description": wanted.description,
        "category": wanted.category,
        "egg_type": wanted.egg_type,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    egg = new_egg(wanted.name, template.name, **fields)
    return add(database, actor, _with_defaults(egg, wanted.variables), request_id=request_id)


def all_templates() -> list[Template]:
    """What eggs can be made from, each as the egg that it would become."""
    return [Template(number, name, new_egg(name, name)) for number, name in enumerate(templates(), start=1)]


def find_template(reference: str) -> Template:
    """The template of that name or number.  Raises :class:`InvalidInput` ``unknown_template``."""
    known = all_templates()
    for template in known:
        if reference in (template.name, str(template.number)):
            return template
    raise InvalidInput(
        f"There is no template {reference[:80]!r}.",
        code="unknown_template",
        hint=f"Use one of {', '.join(template.name for template in known)}.",
    )


def activate(database: Database, actor: Actor, reference: str, is_active: bool, request_id: str = "") -> int:
    """Let an egg be deployed, or not; what runs already is not touched.  Raises ``NotFound``."""
    with database.write() as session:
        _lock(session, actor.tenant_id)
        egg = session.get_one(models.Egg, queries.id_of(session, actor.tenant_id, reference))
        if egg.is_active != is_active:
            egg.is_active = is_active
            _choose_latest(session, egg.tenant_id, egg.name)
            act = "egg.activate" if is_active else "egg.deactivate"
            audit.record(session, actor, act, f"{egg.name}@{egg.version}", request_id=request_id)
        return egg.id


def delete(database: Database, actor: Actor, reference: str, request_id: str = "") -> int:
    """Take an egg out of the library.

    Raises ``NotFound``, and :class:`Conflict` while a deployment uses it (``egg_in_use``), while the record
    of one names it (``egg_in_records``), and for a built-in egg (``egg_built_in``), which would come back.
    """
    with database.write() as session:
        _lock(session, actor.tenant_id)
        egg = session.get_one(models.Egg, queries.id_of(session, actor.tenant_id, reference))
        _need_deletable(session, egg)
        session.delete(egg)
        try:
            session.flush()
        except sa.exc.IntegrityError as error:  # deployed at the same time
            raise Conflict(f"{egg.name} is being deployed.", code="egg_in_use") from error
        _choose_latest(session, egg.tenant_id, egg.name)
        audit.record(session, actor, "egg.delete", f"{egg.name}@{egg.version}", request_id=request_id)
        return egg.id


def sync_builtin(database: Database) -> None:
    """Give every tenant the built-in eggs as this release has them.  A tenant's own egg is left alone."""
    library = builtin_eggs()
    with database.write() as session:
        # locked, so that two servers that start at once do it one after the other
        for tenant_id in session.execute(sa.select(models.Tenant.id).with_for_update()).scalars().all():
            _sync_tenant(session, tenant_id, library)


def _lock(session: Session, tenant_id: int) -> None:
    """One change of a library at a time: which version is the latest is decided over all of them."""
    session.execute(sa.select(models.Tenant.id).where(models.Tenant.id == tenant_id).with_for_update())


def _sync_tenant(session: Session, tenant_id: int, library: Iterable[Egg]) -> None:
    known = {
        (row.name, row.version): row
        for row in session.execute(
            sa.select(
                models.Egg.id, models.Egg.name, models.Egg.version, models.Egg.digest, models.Egg.builtin
            ).where(models.Egg.tenant_id == tenant_id)
        )
    }
    for egg in library:
        there = known.get((egg.name, str(egg.version)))
        if there is None:
            _insert(session, system_actor(tenant_id), egg).builtin = True
        elif there.digest != egg.digest and there.builtin:
            _fill(session.get_one(models.Egg, there.id), egg)
        elif there.digest != egg.digest:
            _log.warning("the built-in egg %s %s is hidden by another of that name", egg.name, egg.version)


def _insert(session: Session, actor: Actor, egg: Egg) -> models.Egg:
    row = models.Egg(
        tenant_id=actor.tenant_id,
        name=egg.name,
        version=str(egg.version),
        created_by=actor.name or SYSTEM,
        is_active=True,
    )
    _fill(row, egg)
    session.add(row)
    try:
        session.flush()
    except sa.exc.IntegrityError as error:  # the same import, at the same time
        raise _taken(egg) from error
    _choose_latest(session, actor.tenant_id, egg.name)
    return row


def _fill(row: models.Egg, egg: Egg) -> None:
    metadata = egg.metadata
    row.display_name = metadata.display_name[:200]
    row.description = metadata.description
    row.category = metadata.category[:32]
    row.egg_type = metadata.egg_type[:32]
    row.base_image = metadata.base_image[:200] if metadata.base_image else None
    row.metadata_json = dict(metadata.raw)
    row.tags = list(metadata.tags)
    row.author = (metadata.author or "")[:200]
    row.digest = egg.digest
    row.archive = pack(egg)


def _choose_latest(session: Session, tenant_id: int, name: str) -> None:
    """The latest is the highest release that is active; a pre-release only where there is no other."""
    rows = (
        session.execute(
            sa.select(models.Egg).where(models.Egg.tenant_id == tenant_id, models.Egg.name == name)
        )
        .scalars()
        .all()
    )
    latest = max(rows, key=_rank, default=None)
    for row in rows:
        row.latest = row is latest


def _rank(row: models.Egg) -> tuple[bool, bool, SemVer]:
    version = SemVer.parse(row.version)
    return row.is_active, not version.pre, version


def _version(session: Session, tenant_id: int, egg: Egg) -> models.Egg | None:
    return session.execute(
        sa.select(models.Egg).where(
            models.Egg.tenant_id == tenant_id,
            models.Egg.name == egg.name,
            models.Egg.version == str(egg.version),
        )
    ).scalar_one_or_none()


def _taken(egg: Egg) -> Conflict:
    return Conflict(
        f"The library has another {egg.name} {egg.version}.",
        code="egg_version_exists",
        hint="Give the changed egg a new version.",
    )


def _need_deletable(session: Session, egg: models.Egg) -> None:
    if egg.builtin:
        raise Conflict(
            f"{egg.name} is a built-in egg.",
            code="egg_built_in",
            hint="Deactivate it instead of deleting it.",
        )
    living, recorded = queries.users(session, egg.id)
    if living:
        raise Conflict(
            f"{egg.name} {egg.version} is used by {', '.join(living[:5])}{' …' if len(living) > 5 else ''}.",
            code="egg_in_use",
            hint="Delete those deployments first, or deactivate the egg.",
            details={"instances": living[:100]},
        )
    if recorded:
        raise Conflict(
            f"Former deployments of {egg.name} {egg.version} are on record.",
            code="egg_in_records",
            hint="Deactivate it instead of deleting it.",
        )


def _with_defaults(egg: Egg, variables: Mapping[str, Any]) -> Egg:
    """``egg`` with ``variables`` as defaults of its parameters.  Raises :class:`InvalidInput`."""
    if not variables:
        return egg
    known = {parameter.name: parameter for parameter in egg.metadata.parameters}
    problems = {name: problem for name in variables if (problem := _cannot_default(known.get(name)))}
    if problems:
        listed = "; ".join(f"{name} {problem}" for name, problem in problems.items())
        raise InvalidInput(
            f"The template's variables: {listed}.",
            code="invalid_variables",
            hint=f"It has {', '.join(known) or 'none'}.",
            details={"fields": problems},
        )
    metadata = json.loads(egg.files[METADATA])
    for name, value in variables.items():
        definition = metadata["parameters"][name]
        definition["default"] = value
        definition.pop("required", None)
    text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
    return egg_from_files({**egg.files, METADATA: text.encode()})


def _cannot_default(parameter: Parameter | None) -> str | None:
    if parameter is None:
        return "is not a variable of this template"
    if parameter.secret:
        return "is a secret, which an egg cannot hold"
    return None
