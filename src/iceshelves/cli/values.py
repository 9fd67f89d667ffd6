"""Values from the command line and from files: parameters, overrides, durations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.units import parse_duration

_MAX_FILE: Final = 1024 * 1024


class Duration(click.ParamType[float]):
    """Seconds, written as ``90s``, ``10m`` or ``1.5h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail as click does."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except InvalidInput as error:
            self.fail(f"{error.message} {error.hint}", param, ctx)


def assignments(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``KEY=VALUE`` texts as a mapping.  Raises click's usage error, or for a key that is given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.UsageError(f"{option} takes KEY=VALUE, not {pair!r}.")
        if key in found:
            raise click.UsageError(f"{option} {key} is given twice.")
        found[key] = value
    return found


def mapping_from_file(path: str, what: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, or on standard input (``-``).

    Raises :class:`NotFound`, or :class:`InvalidInput` with the line.
    """
    from iceshelves.core.bounded import load_json, load_yaml

    text = _read(path, what)
    source = "standard input" if path == "-" else path
    value = load_json(text, source=source) if path.endswith(".json") else load_yaml(text, source=source)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidInput(
            f"{source} is not a mapping of names to values.",
            code="not_a_mapping",
            hint=f"{what} are written as 'name: value', one a line.",
        )
    return value


def overrides(settings: Sequence[str], cloud_config: str | None) -> dict[str, Any]:
    """``config_overrides``: a cloud-config file, and ``--set KEY=VALUE`` on top of it.

    A key with a dot (``limits.cpu``) is the hypervisor's and its value is text; one without is cloud-init's,
    and its value is read as YAML, so that ``packages=[git, curl]`` is a list.
    """
    merged = mapping_from_file(cloud_config, "Cloud-config keys") if cloud_config else {}
    for key, text in assignments(settings, "--set").items():
        merged[key] = text if "." in key else _yaml(key, text)
    return merged


def _yaml(key: str, text: str) -> Any:
    from iceshelves.core.bounded import load_yaml

    return load_yaml(text, source=f"--set {key}")


def _read(path: str, what: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(_MAX_FILE + 1)
    try:
        with Path(path).open("rb") as stream:
            return stream.read(_MAX_FILE + 1)
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read: {error.strerror}.", code="file_not_found", hint=what
        ) from error
