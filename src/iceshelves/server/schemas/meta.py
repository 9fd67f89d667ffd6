"""What the server says of itself."""

from __future__ import annotations

from iceshelves.server.schemas.common import Moment, Shown


class ServerFacts(Shown):
    """Which version this is, and what it can do beyond the documented shapes."""

    version: str
    api_version: str
    api_extensions: list[str]
    docs: str


class Health(Shown):
    """Whether the server can work; the shape is the original's."""

    status: str
    timestamp: Moment
    version: str
    app: str
    database: str
    dependencies: dict[str, str]
