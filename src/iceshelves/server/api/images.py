"""Appliances, builds of them, and the images that are published.

The image factory is imported where it is used: a server without images need not hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from iceshelves import appliances
from iceshelves.access.policy import Permission
from iceshelves.images import registry
from iceshelves.server import shown_images as shown
from iceshelves.server.answers import Item, Listing
from iceshelves.server.call import Call, Caller
from iceshelves.server.routes import BASE, Routes
from iceshelves.server.schemas.common import Paging, PathId
from iceshelves.server.schemas.images import (
    AcceptedBuildItem,
    ApplianceDetail,
    ApplianceItem,
    AppliancePath,
    BuildDetail,
    BuildItem,
    BuildQuery,
    CollectedItem,
    GcBody,
    GroupBody,
    ImageItem,
    ImageQuery,
    MovedItem,
    NewBuildBody,
    PromoteBody,
    PromotedItem,
    PublishBody,
    PublishedItem,
    RemoteItem,
    Sha256Path,
    UploadItem,
    UploadQuery,
    VerifiedItem,
    VerifyQuery,
)
from iceshelves.store.models import Tenant
from iceshelves.store.queries import builds as queries
from iceshelves.store.queries import clusters
from iceshelves.store.queries.pages import Slice, Window

if TYPE_CHECKING:
    from iceshelves.factory.images import Act

APPLIANCES: Final = Listing("appliances", ApplianceItem)
APPLIANCE: Final = Item(ApplianceDetail, description="The appliance")
ACCEPTED: Final = Item(AcceptedBuildItem, 202, "Written down; the work goes on at Location")
BUILDS: Final = Listing("builds", BuildItem)
BUILD: Final = Item(BuildDetail, description="The build")
IMAGES: Final = Listing("images", ImageItem)
PUBLISHED: Final = Item(PublishedItem, description="What became of it")
PROMOTED: Final = Item(PromotedItem)
MOVED: Final = Item(MovedItem)
VERIFIED: Final = Item(VerifiedItem, description="All findings")
COLLECTED: Final = Item(CollectedItem)
REMOTE: Final = Item(RemoteItem, description="Where it is")
UPLOAD: Final = Item(UploadItem, description="What is there")

routes = Routes("images")


@routes.add("GET", "/api/appliances", Permission.IMAGES_READ, APPLIANCES)
def list_appliances(_call: Caller, wanted: Annotated[Paging, Query()]) -> Response:
    """List the built-in appliances."""
    found = [shown.appliance(recipe) for recipe in appliances.builtin()]
    return APPLIANCES.answer(_slice(found, wanted.window))


@routes.add("GET", "/api/appliances/{appliance}", Permission.IMAGES_READ, APPLIANCE, errors=(404,))
def show_appliance(_call: Caller, appliance: AppliancePath) -> Response:
    """Show a built-in appliance with its recipe."""
    from iceshelves.factory import recipes

    files = recipes.builtin_files(appliance)
    recipe = next(recipe for recipe in appliances.builtin() if recipe.name == appliance)
    return APPLIANCE.answer(
        ApplianceDetail(
            **shown.appliance_members(recipe),
            readme=files.get("README.md", b"").decode(),
            recipe=files["appliance.yaml"].decode(),
            packages=list(recipe.packages),
        )
    )


@routes.add("POST", "/api/builds", Permission.IMAGES_WRITE, ACCEPTED, errors=(404,))
def build_image(call: Caller, body: NewBuildBody) -> Response:
    """Build an image, and try it out and publish it where that is asked for."""
    from iceshelves.factory import recipes
    from iceshelves.factory.builds import BuildRequest

    files = None if body.files is None else recipes.decode_files(body.files)
    request = BuildRequest(
        appliance=body.appliance,
        files=files,
        architecture=body.architecture,
        types=None if body.types is None else tuple(body.types),
        compression=body.compression,
        lock=body.lock,
        cluster_id=None if body.gate is None else _cluster_id(call, body.gate),
        channel=body.channel,
        **({} if body.timeout is None else {"timeout": body.timeout}),
    )
    accepted = call.control.builds.create(call.actor, request, call.request_id)
    headers = {"Location": f"{BASE}/api/operations/{accepted.operation_id}"}
    return ACCEPTED.answer(AcceptedBuildItem.model_validate(accepted), headers=headers)


@routes.add("GET", "/api/builds", Permission.IMAGES_READ, BUILDS)
def list_builds(call: Caller, wanted: Annotated[BuildQuery, Query()]) -> Response:
    """List builds, the newest first."""
    with call.control.database.read() as session:
        found = queries.page(session, call.tenant_id, wanted.window, wanted.appliance)
    return BUILDS.answer_values([shown.build(row) for row in found.rows], found)


@routes.add("GET", "/api/builds/{build}", Permission.IMAGES_READ, BUILD, errors=(404,))
def show_build(call: Caller, build: PathId) -> Response:
    """Show a build with its lock."""
    with call.control.database.read() as session:
        row = queries.find(session, call.tenant_id, build)
    return BUILD.answer(BuildDetail(**shown.build_members(row), lock=row.lock))


@routes.add("GET", "/api/images", Permission.IMAGES_READ, IMAGES)
def list_images(call: Caller, wanted: Annotated[ImageQuery, Query()]) -> Response:
    """List the published images, the newest first."""
    chosen = registry.Wanted(wanted.channel, wanted.appliance, wanted.architecture)
    found = call.control.published.find(call.actor, chosen)
    page = _slice(found, wanted.window)
    shelf = _shelf(call, wanted.channel)
    return IMAGES.answer_values([shelf.image(entry) for entry in page.rows], page)


@routes.add("GET", "/api/images/remote", Permission.IMAGES_READ, REMOTE)
def show_remote(call: Caller) -> Response:
    """Say where stock clients find the registry."""
    with call.control.database.read() as session:
        tenant = session.get_one(Tenant, call.tenant_id).name
    channels = call.control.published.channels(call.actor)
    return REMOTE.answer(RemoteItem(path=f"{BASE}/registry/{tenant}", channels=channels))


@routes.add("GET", "/api/uploads/{sha256}", Permission.IMAGES_WRITE, UPLOAD)
def show_upload(call: Caller, sha256: Sha256Path) -> Response:
    """Say how much of a file is here, so that sending it can go on."""
    size = call.control.uploads.size(call.tenant_id, sha256)
    return UPLOAD.answer(UploadItem(sha256=sha256, size=size))


@routes.add("PUT", "/api/uploads/{sha256}", Permission.IMAGES_WRITE, UPLOAD)
async def upload_piece(
    call: Caller, request: Request, sha256: Sha256Path, wanted: Annotated[UploadQuery, Query()]
) -> Response:
    """Add a piece to a file that is named by its content."""
    piece = await request.body()
    add = call.control.uploads.add
    size = await run_in_threadpool(add, call.tenant_id, sha256, wanted.offset, piece)
    return UPLOAD.answer(UploadItem(sha256=sha256, size=size))


@routes.add("POST", "/api/images", Permission.IMAGES_WRITE, PUBLISHED, errors=(404, 502))
def publish_image(call: Caller, body: PublishBody) -> Response:
    """Publish an image whose files were uploaded."""
    from iceshelves.factory.images import Upload
    from iceshelves.images.files import ImageFiles

    take = call.control.uploads.take
    files = ImageFiles(
        metadata=take(call.tenant_id, body.metadata),
        rootfs=None if body.rootfs is None else take(call.tenant_id, body.rootfs),
        disk=None if body.disk is None else take(call.tenant_id, body.disk),
    )
    upload = Upload(files, body.channel, tuple(body.aliases))
    published = call.control.published.publish(_act(call), upload)
    return PUBLISHED.answer(_shelf(call, body.channel).published(published))


@routes.add("POST", "/api/images/promote", Permission.IMAGES_WRITE, PROMOTED, errors=(404, 502))
def promote_image(call: Caller, body: PromoteBody) -> Response:
    """Show in another channel what one shows."""
    from iceshelves.factory.images import Promotion

    wanted = Promotion(body.appliance, body.source, body.target, body.architecture)
    promoted = call.control.published.promote(_act(call), wanted)
    shelf = _shelf(call, body.target)
    return PROMOTED.answer(PromotedItem(promoted=[shelf.published(found) for found in promoted]))


@routes.add("POST", "/api/images/rollback", Permission.IMAGES_WRITE, MOVED, errors=(404, 502))
def roll_back_image(call: Caller, body: GroupBody) -> Response:
    """Withdraw the newest build; aliases bind to the one before."""
    moved = call.control.published.roll_back(_act(call), _group(body))
    return MOVED.answer(_shelf(call, body.channel).moved(moved))


@routes.add("POST", "/api/images/restore", Permission.IMAGES_WRITE, MOVED, errors=(404, 502))
def restore_image(call: Caller, body: GroupBody) -> Response:
    """Take a roll-back back."""
    moved = call.control.published.restore(_act(call), _group(body))
    return MOVED.answer(_shelf(call, body.channel).moved(moved))


@routes.add("GET", "/api/images/verify", Permission.IMAGES_READ, VERIFIED, errors=(502,))
def verify_images(call: Caller, wanted: Annotated[VerifyQuery, Query()]) -> Response:
    """Check everything that is published."""
    found = call.control.published.verify(call.actor, everything=wanted.everything)
    return VERIFIED.answer(shown.verified(found))


@routes.add("POST", "/api/images/gc", Permission.IMAGES_WRITE, COLLECTED, errors=(502,))
def collect_images(call: Caller, body: GcBody) -> Response:
    """Remove what no channel has needed for a while."""
    retention = registry.Retention(body.newest, body.days, body.grace)
    if body.dry_run:
        plan = call.control.published.plan_gc(call.actor, retention)
    else:
        plan = call.control.published.collect(_act(call), retention)
    return COLLECTED.answer(shown.collected(plan, dry_run=body.dry_run))


def _shelf(call: Call, channel: str | None) -> shown.Shelf:
    aliases = call.control.published.aliases(call.actor, channel or registry.STABLE)
    return shown.Shelf(aliases, call.control.downloads.of(call.tenant_id))


def _act(call: Call) -> Act:
    from iceshelves.factory.images import Act

    return Act(call.actor, call.request_id)


def _group(body: GroupBody) -> registry.Group:
    return registry.Group(body.channel, body.appliance, body.architecture)


def _cluster_id(call: Call, reference: str) -> int:
    with call.control.database.read() as session:
        found: int = clusters.find(session, call.tenant_id, reference).id
        return found


def _slice(found: Sequence[Any], window: Window) -> Slice:
    return Slice(found[window.offset : window.offset + window.per_page], len(found), window)
