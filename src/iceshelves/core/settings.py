"""The one place for settings: environment variables, with the original's names where it had them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceshelves.core.errors import InvalidInput
from iceshelves.core.units import parse_duration, parse_size

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator can set.  Durations are in seconds."""

    data: Path
    database_url: str | None = field(default=None, repr=False)  # may hold a password
    encryption_key: str | None = field(default=None, repr=False)
    log_level: str = "INFO"
    #: operations at once on one cluster, unless the cluster says otherwise
    max_concurrent_deployments: int = 24
    deployment_timeout: float = 600.0
    log_retention_days: int = 30
    #: between two looks at each cluster
    health_interval: float = 30.0
    #: bytes for images that hypervisors fetch through the server
    image_cache: int = 20 * 1024**3

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, data: Path | None = None
    ) -> Settings:
        """Read the settings.  Raises :class:`InvalidInput` naming the variable."""
        home = environment.get("ICESHELVES_DATA")
        return cls(
            data=data or Path(home or _default_data()),
            database_url=environment.get("ICESHELVES_DATABASE_URL") or environment.get("DATABASE_URL"),
            encryption_key=environment.get("ICESHELVES_ENCRYPTION_KEY"),
            log_level=_level(environment),
            max_concurrent_deployments=_number(environment, "MAX_CONCURRENT_DEPLOYMENTS", 24),
            deployment_timeout=_seconds(environment, "DEPLOYMENT_TIMEOUT", 600.0),
            log_retention_days=_number(environment, "DEPLOYMENT_LOG_RETENTION_DAYS", 30),
            health_interval=_interval(environment, "ICESHELVES_HEALTH_INTERVAL", 30.0),
            image_cache=_size(environment, "ICESHELVES_IMAGE_CACHE", 20 * 1024**3),
        )


def _default_data() -> str:
    if os.geteuid() == 0:
        return "/var/lib/iceshelves"
    return str(Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "iceshelves")


def _level(environment: Mapping[str, str]) -> str:
    level = environment.get("LOG_LEVEL", "INFO").upper()
    if level not in _LEVELS:
        raise InvalidInput(
            f"LOG_LEVEL={level} is not a level.", code="invalid_setting", hint=f"Use {', '.join(_LEVELS)}."
        )
    return level


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise InvalidInput(f"{name}={text} is not a positive whole number.", code="invalid_setting")
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    try:
        return parse_duration(text) if text else default
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}", code="invalid_setting", hint=error.hint) from error


def _size(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    try:
        return parse_size(text) if text else default
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}", code="invalid_setting", hint=error.hint) from error


def _interval(environment: Mapping[str, str], name: str, default: float) -> float:
    seconds = _seconds(environment, name, default)
    if seconds < 1:
        raise InvalidInput(f"{name} is less than a second.", code="invalid_setting", hint="Write 30s or 1m.")
    return seconds
