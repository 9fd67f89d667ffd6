"""What a handler knows about the request that it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection, Request

from iceshelves.access.policy import Actor
from iceshelves.access.tokens import Authenticator
from iceshelves.core.bus import Bus
from iceshelves.core.secret import Secret
from iceshelves.deploy.control import ControlPlane


class Closing:
    """Whether the server is about to stop: streams end then, and their readers resume elsewhere."""

    def __init__(self, bus: Bus) -> None:
        self.begun = False
        self._bus = bus

    def begin(self) -> None:
        """Have everything that waits end now."""
        self.begun = True
        self._bus.wake_all()


@dataclass(frozen=True, slots=True)
class Services:
    """What every request shares."""

    control: ControlPlane
    authenticator: Authenticator
    closing: Closing


@dataclass(frozen=True, slots=True)
class Call:
    """One request by somebody who may make it."""

    services: Services
    actor: Actor
    token: Secret
    request_id: str

    @property
    def control(self) -> ControlPlane:
        """The control plane."""
        return self.services.control

    @property
    def tenant_id(self) -> int:
        """Whose objects can be seen."""
        return self.actor.tenant_id


def services_of(connection: HTTPConnection) -> Services:
    """What the application that got this connection shares."""
    services: Services = connection.app.state.services
    return services


def request_id_of(scope: Any) -> str:
    """The id that the outermost middleware gave to this request."""
    return str(scope.get("state", {}).get("request_id", ""))


async def _current(request: Request) -> Call:
    call: Call = request.state.call
    return call


#: a handler's parameter of this type is filled in by the route, once the caller has been let in
Caller = Annotated[Call, Depends(_current)]
