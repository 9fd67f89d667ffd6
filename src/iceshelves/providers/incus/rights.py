"""Whether our project is there, and whether we may work in it."""

from __future__ import annotations

from iceshelves.core.errors import Denied, NotFound
from iceshelves.providers.incus.client import Client, path


class IncusRights:
    """The :class:`~iceshelves.providers.base.Rights` of Incus and LXD."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def check(self) -> str:
        project = self._client.project
        try:
            await self._client.get_object(path("projects", project))
            # A certificate that is restricted to some projects may still be told that others exist.
            await self._client.get(path("instances"))
        except NotFound as error:
            raise NotFound(
                f"There is no project {project!r}.",
                code="project_not_found",
                hint=f"Use one of these: {await self._others()}; or make it: incus project create {project}",
            ) from error
        except Denied as error:
            raise Denied(
                f"We may not work in the project {project!r}.",
                code="hypervisor_denied",
                hint=f"Our certificate is restricted; it may work in: {await self._others()}. Use one of"
                " them, or have this one added there: incus config trust edit FINGERPRINT",
            ) from error
        return f"the project {project} may be used"

    async def _others(self) -> str:
        """The projects that we are told of."""
        found = await self._client.get_objects(path("projects"))
        return ", ".join(sorted(str(project.get("name")) for project in found)) or "none"
