"""What the server says of itself: version, health, figures, its description, and a page for people."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Final

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from iceshelves import __version__
from iceshelves.access.policy import Permission
from iceshelves.core import clock
from iceshelves.core.errors import IceShelvesError
from iceshelves.server import metrics
from iceshelves.server.answers import Bare, Item, Other
from iceshelves.server.call import Caller, Services, services_of
from iceshelves.server.routes import BASE, Routes
from iceshelves.server.schemas.meta import Health, ServerFacts

API_VERSION: Final = "1.0"
#: what this API has beyond the documented shapes; names are added and never change their meaning
EXTENSIONS: Final = (
    "problem_details", "idempotency_keys", "operations", "operation_cancel", "sse", "revisions", "rollback",
    "retry", "parameters", "egg_versions", "egg_archives", "egg_lint", "egg_render", "exec", "tokens",
    "users", "audit", "request_ids", "names_as_ids", "deployment_filters", "log_cursor", "cluster_members",
    "inventory", "adoption", "connection_methods", "cluster_look", "cluster_change", "cluster_trust",
)  # fmt: skip

FACTS: Final = Item(ServerFacts, description="What this server is")
HEALTHY: Final = Bare(Health, 200, "It can work")
DEGRADED: Final = Bare(Health, 503, "It cannot work; why is in the answer")
FIGURES: Final = Other("text/plain", "Figures in Prometheus' text format")
PAGE: Final = Other("text/html", "A page for people")
DESCRIPTION: Final = Other("application/json", "The description", schema={"type": "object"})

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem;"
    "color:#12263a;background:#f6fafd}h1{font-weight:600}dt{color:#51677c}dd{margin:0 0 1rem}"
    "a{color:#0b5cad}code{background:#e4eef6;padding:.1rem .3rem;border-radius:.2rem}"
    "@media(prefers-color-scheme:dark){body{color:#dce8f2;background:#0f1a24}dt{color:#8fa6ba}"
    "a{color:#7fbcff}code{background:#1d2d3c}}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)

routes = Routes("server")


@routes.add("GET", "/api", "public", FACTS)
def show_server() -> Response:
    """Say which version this is, and what it can do."""
    return FACTS.answer(
        ServerFacts(
            version=__version__,
            api_version=API_VERSION,
            api_extensions=list(EXTENSIONS),
            docs=f"{BASE}/api/openapi.json",
        )
    )


def show_health(request: Request) -> Response:
    """Say whether the server can work."""
    health = _health(services_of(request))
    return (HEALTHY if health.status == "healthy" else DEGRADED).answer(health)


def show_metrics(call: Caller, request: Request) -> Response:
    """Figures for Prometheus."""
    figures: metrics.Figures = request.app.state.figures
    return Response(figures.text(call.tenant_id), headers={"Content-Type": metrics.MEDIA_TYPE})


for _path in ("/api/healthz", "/api/health", "/healthz", "/health"):
    routes.add("GET", _path, "public", HEALTHY, DEGRADED)(show_health)
for _path in ("/api/metrics", "/metrics"):
    routes.add("GET", _path, Permission.METRICS_READ, FIGURES)(show_metrics)


@routes.add("GET", "/api/openapi.json", "public", DESCRIPTION)
def show_description(request: Request) -> Response:
    """The OpenAPI description of this API."""
    return Response(request.app.state.description.text(), media_type="application/json")


@routes.add("GET", "", "public", PAGE)
def show_page(request: Request) -> Response:
    """A page for people, with nothing of any tenant."""
    health = _health(services_of(request))
    page = _PAGE.format(style=_STYLE, version=html.escape(__version__), status=html.escape(health.status))
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})


@routes.add("GET", "/", "public", PAGE, include_in_schema=False)
def redirect_to_page() -> Response:
    """The same page by its usual address."""
    return RedirectResponse(BASE, 307)


def _health(services: Services) -> Health:
    try:
        with services.control.database.read() as session:
            session.execute(sa.select(1))
        database = "healthy"
    except IceShelvesError:
        database = "unavailable"
    return Health(
        status="healthy" if database == "healthy" else "degraded",
        timestamp=clock.now(),
        version=__version__,
        app="iceshelves",
        database=database,
        dependencies={"database": database},
    )


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>IceShelves</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>IceShelves</h1>
<p>One control plane for system containers and virtual machines.</p>
<dl>
<dt>Version</dt><dd>{version}</dd>
<dt>Health</dt><dd>{status}</dd>
<dt>API</dt><dd><a href="/iceshelves/api">/iceshelves/api</a>, described at
<a href="/iceshelves/api/openapi.json">/iceshelves/api/openapi.json</a></dd>
<dt>Command line</dt><dd><code>iceshelves login URL</code>, then <code>iceshelves deploy --help</code></dd>
</dl>
</main>
</body>
</html>
"""
