"""The application: routes, middlewares and life cycle, put together around a control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from iceshelves import __version__
from iceshelves.core.errors import IceShelvesError
from iceshelves.deploy import catalogue
from iceshelves.deploy.control import ControlPlane
from iceshelves.server import problems
from iceshelves.server.api import (
    access,
    agents,
    clusters,
    deployments,
    eggs,
    events,
    execution,
    images,
    inventory,
    members,
    meta,
    mirror,
    operations,
    original_agent,
    registry,
)
from iceshelves.server.call import Closing, Services
from iceshelves.server.description import Description
from iceshelves.server.metrics import Figures
from iceshelves.server.middleware import BoundedBody, Counted, Envelope

_SUBJECTS: Final = (
    meta, access, eggs, clusters, members, inventory, agents, original_agent, mirror, deployments, operations,
    events, images, registry,
)  # fmt: skip


def create_app(control: ControlPlane) -> FastAPI:
    """The application that serves ``control``; its life cycle starts and stops it."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        catalogue.sync_builtin(control.database)
        await control.start()
        try:
            yield
        finally:
            await control.stop()

    figures = Figures(control.database)
    app = FastAPI(
        title="IceShelves",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
        middleware=[
            Middleware(Envelope),
            Middleware(Counted, figures=figures.requests),
            Middleware(BoundedBody),
        ],
        exception_handlers={
            IceShelvesError: problems.on_known,
            RequestValidationError: problems.on_invalid,
            HTTPException: problems.on_http,
        },
    )
    app.state.services = Services(control, control.authenticator, Closing(control.bus))
    app.state.figures = figures
    app.state.description = Description(app)
    app.router.routes.extend(all_routes())
    return app


def all_routes() -> list[BaseRoute]:
    """Every route of the server."""
    return [
        *(route for subject in _SUBJECTS for route in subject.routes.routes),
        *execution.routes,
        *agents.streams,
        *original_agent.wire,
    ]
