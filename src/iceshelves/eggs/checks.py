"""Checks and volumes of an egg, from the texts in its metadata to what the deployment works with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from iceshelves.core.errors import InvalidInput
from iceshelves.core.units import parse_duration, parse_size
from iceshelves.eggs.model import Check, Volume

_KINDS: Final = ("command", "port", "http")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,61}[A-Za-z0-9])?")
_MAX_TIMEOUT: Final = 3600.0


def parse_check(raw: Mapping[str, Any]) -> Check:
    """A check from ``metadata.json``.  Raises :class:`InvalidInput` (``invalid_check``)."""
    kinds = [kind for kind in _KINDS if kind in raw]
    if len(kinds) != 1:
        raise _bad("A check has one of command, port and http.")
    unknown = set(raw) - {"name", "timeout", *kinds}
    if unknown:
        raise _bad(f"A {kinds[0]} check has no field {min(map(str, unknown))!r}.")
    kind = kinds[0]
    name = _name(raw.get("name", kind), "check")
    timeout = _timeout(raw.get("timeout", 60))
    if kind == "command":
        return Check(name, "command", command=_command(raw["command"]), timeout=timeout)
    if kind == "port":
        return Check(name, "port", port=_port(raw["port"]), timeout=timeout)
    http = raw["http"]
    if not isinstance(http, Mapping) or set(http) - {"url", "port", "path", "status", "contains"}:
        raise _bad("http has url, or port and path; and may have status and contains.")
    contains = http.get("contains")
    if contains is not None and not isinstance(contains, str):
        raise _bad("contains is a text.")
    url = _url(http)
    status = _whole(http.get("status", 200), "status", 100, 599)
    return Check(name, "http", url=url, status=status, contains=contains, timeout=timeout)


def parse_volume(raw: Mapping[str, Any]) -> Volume:
    """A volume from ``metadata.json``.  Raises :class:`InvalidInput` (``invalid_volume``)."""
    if set(raw) != {"name", "path", "size"}:
        raise InvalidInput("A volume has name, path and size, nothing else.", code="invalid_volume")
    path, size = raw["path"], str(raw["size"])
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
        raise InvalidInput("A volume's path is absolute and has no '..'.", code="invalid_volume")
    if parse_size(size) <= 0:
        raise InvalidInput("A volume's size is more than nothing.", code="invalid_volume")
    return Volume(_name(raw["name"], "volume"), path, size)


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidInput(f"The name of a {what} is 1 to 63 plain characters.", code=f"invalid_{what}")
    return value


def _command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(part, str) and part for part in value):
        raise _bad('command is a list of texts, such as ["systemctl", "is-active", "nginx"].')
    return tuple(value)


def _port(value: object) -> int:
    return _whole(value, "port", 1, 65535)


def _whole(value: object, what: str, minimum: int, maximum: int) -> int:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise _bad(f"{what} is a whole number from {minimum} to {maximum}.")
    return value


def _timeout(value: object) -> float:
    text = value if isinstance(value, str) else str(value)
    seconds = parse_duration(text)
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise _bad(f"timeout is more than 0 and at most {_MAX_TIMEOUT:g} seconds.")
    return seconds


def _url(http: Mapping[str, Any]) -> str:
    if "url" not in http:
        path = http.get("path", "/")
        if not isinstance(path, str) or not path.startswith("/"):
            raise _bad("path is a text that starts with '/'.")
        return f"http://{{address}}:{_port(http.get('port', 80))}{path}"
    url = http["url"]
    if not isinstance(url, str) or "port" in http or "path" in http:
        raise _bad("http has either url, or port and path.")
    try:
        parts = urlsplit(url.replace("{address}", "address"))
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not url.isprintable() or " " in url:
        raise _bad("url is an http or https address.")
    return url


def _bad(message: str) -> InvalidInput:
    return InvalidInput(message, code="invalid_check")
