"""The registries as stock clients read them: public files, whose addresses are the clients' business."""

from __future__ import annotations

from typing import Annotated, Final

import sqlalchemy as sa
from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from iceshelves.server import registry_files as files
from iceshelves.server.answers import Other
from iceshelves.server.call import services_of
from iceshelves.server.routes import Routes
from iceshelves.store.models import Tenant

_BYTES: Final = {"type": "string", "format": "binary"}
WHOLE: Final = Other(files.FILE, "The file", schema=_BYTES, or_json=True)
PART: Final = Other(files.FILE, "The bytes that the header Range asks for", 206, _BYTES)
SAME: Final = Other(files.FILE, "What the caller has is what there is", 304, _BYTES)
TenantPath = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", examples=["default"])]
FilePath = Annotated[str, Path(max_length=400, examples=["streams/v1/index.json"])]

routes = Routes("registry")


@routes.add("GET", "/registry/{tenant}/{file:path}", "public", WHOLE, PART, SAME, errors=(404,))
def read_registry(request: Request, tenant: TenantPath, file: FilePath) -> Response:
    """Read a file of a tenant's image registry."""
    control = services_of(request).control
    with control.database.read() as session:
        query = sa.select(Tenant.id).where(Tenant.name == tenant)
        tenant_id: int | None = session.execute(query).scalar_one_or_none()
    tree = None if tenant_id is None else control.published.tree(tenant_id)
    if tenant_id is None or tree is None:
        raise files.nothing(file)
    response = files.respond(request, tree, file)
    in_part = any(name == b"range" for name, _ in request.scope["headers"])
    if response.status_code == 200 and not in_part and (sha256 := files.image_of(file)) is not None:
        control.downloads.count(tenant_id, sha256, request.headers.get("user-agent", ""))
    return response
