"""Eggs and the templates that they can be made from."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Body, Query
from starlette.responses import Response

from iceshelves import eggs as formats
from iceshelves.access.policy import Permission
from iceshelves.deploy import catalogue
from iceshelves.server import shown
from iceshelves.server.answers import Item, Listing, Other
from iceshelves.server.call import Call, Caller
from iceshelves.server.routes import Routes
from iceshelves.server.schemas.common import EggPath, Paging
from iceshelves.server.schemas.eggs import (
    ChangedEgg,
    CreatedEgg,
    EggDetail,
    EggItem,
    EggQuery,
    EggSwitch,
    LintReport,
    NewEggBody,
    RenderBody,
    RenderedEgg,
    TemplateItem,
)
from iceshelves.store.queries import eggs as queries
from iceshelves.store.queries.pages import Slice

ARCHIVE: Final = "application/octet-stream"
EGGS: Final = Listing("eggs", EggItem)
EGG: Final = Item(EggDetail, description="The egg")
CREATED: Final = Item(CreatedEgg, 201, "The egg is in the library")
UNCHANGED: Final = Item(CreatedEgg, 200, "The library held this very egg already")
CHANGED: Final = Item(ChangedEgg)
LINTED: Final = Item(LintReport, description="All findings")
RENDERED: Final = Item(RenderedEgg, description="What an instance would get")
TEMPLATES: Final = Listing("templates", TemplateItem)
FILE: Final = Other(ARCHIVE, "The packed egg", schema={"type": "string", "format": "binary"})

routes = Routes("eggs")


@routes.add("GET", "/api/eggs", Permission.EGGS_READ, EGGS)
def list_eggs(call: Caller, wanted: Annotated[EggQuery, Query()]) -> Response:
    """List the eggs of the library."""
    chosen = queries.EggFilter(
        category=wanted.category,
        egg_type=wanted.egg_type,
        tag=wanted.tag,
        search=wanted.search,
        every_version=wanted.versions == "all",
    )
    with call.control.database.read() as session:
        return EGGS.answer(queries.page(session, call.tenant_id, chosen, wanted.window))


@routes.add("GET", "/api/eggs/{egg}", Permission.EGGS_READ, EGG, errors=(404,))
def show_egg(call: Caller, egg: EggPath) -> Response:
    """Show one egg, by number, name or name@version."""
    with call.control.database.read() as session:
        row = queries.find(session, call.tenant_id, egg)
        versions = queries.versions(session, call.tenant_id, row.name)
    return EGG.answer(shown.egg(row, formats.unpack(row.archive), versions))


@routes.add("POST", "/api/eggs", Permission.EGGS_WRITE, CREATED, UNCHANGED, errors=(409,))
def create_egg(call: Caller, body: NewEggBody) -> Response:
    """Make an egg from a template."""
    made = catalogue.create(
        call.control.database,
        call.actor,
        catalogue.NewEgg(
            name=body.name,
            template=str(body.template_id),
            display_name=body.display_name,
            description=body.description,
            category=body.category,
            egg_type=body.egg_type,
            variables=body.variables,
        ),
        call.request_id,
    )
    return _imported(made)


@routes.add(
    "POST",
    "/api/eggs/import",
    Permission.EGGS_WRITE,
    CREATED,
    UNCHANGED,
    errors=(409,),
)
def import_egg(
    call: Caller,
    archive: Annotated[
        bytes, Body(media_type=ARCHIVE, min_length=1, description="A packed egg (an .egg file)")
    ],
) -> Response:
    """Put a packed egg into the library."""
    return _imported(catalogue.import_archive(call.control.database, call.actor, archive, call.request_id))


@routes.add("GET", "/api/eggs/{egg}/archive", Permission.EGGS_READ, FILE, errors=(404,))
def download_egg(call: Caller, egg: EggPath) -> Response:
    """Download an egg as one file."""
    with call.control.database.read() as session:
        row = queries.find(session, call.tenant_id, egg)
    name = f"{row.name}-{row.version}.egg"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(row.archive, headers=headers, media_type=ARCHIVE)


@routes.add("GET", "/api/eggs/{egg}/lint", Permission.EGGS_READ, LINTED, errors=(404,))
def lint_egg(call: Caller, egg: EggPath) -> Response:
    """Check an egg."""
    return LINTED.answer(LintReport(findings=shown.findings(formats.lint(_open(call, egg)))))


@routes.add("POST", "/api/eggs/{egg}/render", Permission.EGGS_READ, RENDERED, errors=(404,))
def render_egg(call: Caller, egg: EggPath, body: RenderBody) -> Response:
    """Show what an instance would get from an egg."""
    opened = _open(call, egg)
    parameters = formats.resolve_parameters(opened, body.parameters)
    rendered = formats.render(opened, parameters, body.config_overrides, instance_name=body.instance_name)
    return RENDERED.answer(shown.rendered(rendered, parameters))


@routes.add("PATCH", "/api/eggs/{egg}", Permission.EGGS_WRITE, CHANGED, errors=(404,))
def switch_egg(call: Caller, egg: EggPath, body: EggSwitch) -> Response:
    """Let an egg be deployed, or not."""
    egg_id = catalogue.activate(call.control.database, call.actor, egg, body.is_active, call.request_id)
    return CHANGED.answer(ChangedEgg(egg_id=egg_id, message="On." if body.is_active else "Off."))


@routes.add("DELETE", "/api/eggs/{egg}", Permission.EGGS_WRITE, CHANGED, errors=(404, 409))
def delete_egg(call: Caller, egg: EggPath) -> Response:
    """Take an egg out of the library."""
    egg_id = catalogue.delete(call.control.database, call.actor, egg, call.request_id)
    return CHANGED.answer(ChangedEgg(egg_id=egg_id, message="Deleted."))


@routes.add("GET", "/api/templates", Permission.EGGS_READ, TEMPLATES)
def list_templates(call: Caller, wanted: Annotated[Paging, Query()]) -> Response:  # noqa: ARG001
    """List what eggs can be made from."""
    every = catalogue.all_templates()
    window = wanted.window
    chosen = every[window.offset : window.offset + window.per_page]
    items = [
        TemplateItem(
            id=template.number,
            name=template.name,
            display_name=template.name,
            description=template.egg.metadata.description,
            category=template.egg.metadata.category,
            template_type=template.egg.metadata.egg_type,
            required_variables=template.required,
        )
        for template in chosen
    ]
    return TEMPLATES.answer_values(items, Slice((), len(every), window))


def _open(call: Call, reference: str) -> formats.Egg:
    with call.control.database.read() as session:
        row = queries.find(session, call.tenant_id, reference)
    return formats.unpack(row.archive)


def _imported(egg: catalogue.Imported) -> Response:
    created = CreatedEgg(
        egg_id=egg.egg_id,
        name=egg.name,
        version=egg.version,
        digest=egg.digest,
        message=f"{egg.name} {egg.version} is in the library{'' if egg.created else ' already'}.",
        findings=shown.findings(egg.findings),
    )
    return (CREATED if egg.created else UNCHANGED).answer(created)
