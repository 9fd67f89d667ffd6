"""What a request to reach a cluster means, before anybody outside is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from iceshelves.clusters import reaching
from iceshelves.clusters.reaching import AGENT, DIRECT, METHODS, SOCKET, SSH
from iceshelves.clusters.requests import ClusterAddress
from iceshelves.connections.unix import USUAL_SOCKETS
from iceshelves.core.errors import InvalidInput

_SHORT_NAMES: Final = {"socket": SOCKET, "direct": DIRECT, "agent": AGENT}
#: the fields of a request that mean something to one method alone
_FIELDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("auth_type", "client_cert", "client_key", "server_certificate"), DIRECT),
    **dict.fromkeys(("trust_token", "trust_password"), DIRECT),
    **dict.fromkeys(("ssh_host", "ssh_port", "ssh_user", "ssh_jumps", "ssh_auth"), SSH),
    **dict.fromkeys(("ssh_key", "ssh_host_key"), SSH),
    "agent_poll_interval": AGENT,
}
_HEX: Final = re.compile("[0-9a-f]{64}")
_KEY_LINE: Final = re.compile(r"(?:^|\s)((?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+)\s+([A-Za-z0-9+/=]+)")


def checked_socket(url: str) -> str:
    """``url`` if there is a socket: the server must not be made to open anything else.

    Raises :class:`InvalidInput` ``not_a_socket``.
    """
    path = Path(reaching.socket_at(url).path)
    try:
        if path.is_socket():
            return url
    except OSError:  # where we may not even look, the answer is the same
        pass
    raise InvalidInput(
        f"There is no socket at {path}.",
        code="not_a_socket",
        hint="Check the path, and that the daemon is installed and started.",
    )


def with_usual_socket(address: reaching.SshAddress, provider: str) -> reaching.SshAddress:
    """``address`` with the family's usual socket where it names none: we cannot look there yet."""
    return replace(address, path=address.path or USUAL_SOCKETS[provider][0])


def direct_url(url: str) -> str:
    """``url`` of an HTTPS API in the one way that it is stored.  Raises :class:`InvalidInput`."""
    return https_url(*reaching.api_address(url))


def with_scheme(url: str, scheme: str) -> str:
    """``url`` if it begins with ``scheme``: any word could be a host's name, but is hardly ever meant so.

    Raises :class:`InvalidInput` ``invalid_connection``.
    """
    if url.startswith(f"{scheme}://"):
        return url
    raise InvalidInput(
        "The cluster's address has to be of the same method as before.",
        code="invalid_connection",
        hint=f"Write {scheme}://… in full.",
    )


def https_url(host: str, port: int) -> str:
    return f"https://{reaching.url_host(host)}:{port}"


def method_of(name: str) -> str:
    """The connection method that ``name`` means.  Raises :class:`InvalidInput` ``unsupported_connection``."""
    method = _SHORT_NAMES.get(name, name)
    if method not in METHODS:
        raise InvalidInput(
            f"{name!r} is not a connection method.",
            code="unsupported_connection",
            hint=f"Use one of {', '.join(METHODS)}.",
        )
    return method


def check_fields(wanted: ClusterAddress, method: str) -> None:
    """Refuse what would be without effect, and what must not have one.  Raises :class:`InvalidInput`."""
    if not wanted.verify_ssl:
        raise InvalidInput(
            "The server's certificate is always verified.",
            code="verification_needed",
            hint="Give its fingerprint as server_certificate: that takes the place of an authority.",
        )
    for name, info in type(wanted).model_fields.items():
        where = _FIELDS.get(name, method)
        if where != method and getattr(wanted, name) != info.default:
            raise InvalidInput(
                f"{name} belongs to the connection method {where!r}, and this is {method!r}.",
                code="field_without_effect",
                hint="Leave it out, or choose that method.",
            )


def client_of(provider: str) -> str:
    """The command of a family's own client."""
    return "lxc" if provider == "lxd" else "incus"


def certificate_fingerprint(text: str, provider: str = "incus") -> str:
    """A SHA-256 however it was written.  Raises :class:`InvalidInput` ``invalid_fingerprint``."""
    plain = text.strip().lower().removeprefix("sha256").lstrip(":=").replace(":", "")
    if not _HEX.fullmatch(plain):
        raise InvalidInput(
            "This is not the fingerprint of a certificate.",
            code="invalid_fingerprint",
            hint="Give all 64 hex digits of its SHA-256; on the hypervisor:"
            f" {client_of(provider)} info | grep fingerprint",
        )
    return plain


def host_key_line(text: str) -> str:
    """Type and key in ``text``, which may be a line of known_hosts; empty where there is none."""
    found = _KEY_LINE.search(text)
    return f"{found[1]} {found[2]}" if found else ""


def ssh_address_of(wanted: ClusterAddress) -> reaching.SshAddress:
    """Of ``endpoint_url``, or of the original's fields; the socket is the family's usual one."""
    url = wanted.endpoint_url
    if wanted.ssh_host is not None:
        if url.startswith("ssh:"):
            raise InvalidInput(
                "The address is given twice.",
                code="field_without_effect",
                hint="Give endpoint_url, or ssh_host and its kin.",
            )
        path = reaching.socket_at(url).path if url else ""
        host, user = wanted.ssh_host.strip("[]"), wanted.ssh_user or "root"
        url = reaching.SshAddress(user, host, wanted.ssh_port or 22, path).to_url()
    return with_usual_socket(reaching.ssh_address(url), wanted.provider)


def way_of(
    wanted: ClusterAddress, address: reaching.SshAddress, last_key: str
) -> list[tuple[str, str, int, str]]:
    """Host, user, port and what is known of the host key, of each server on the way."""
    jumps = [(jump.host, jump.user, jump.port, jump.host_key) for jump in wanted.ssh_jumps]
    return [*jumps, (address.host, address.user, address.port, last_key)]
