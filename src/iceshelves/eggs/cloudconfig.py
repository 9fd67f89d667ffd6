"""cloud-config as text: what kind of user-data it is, its header, and merging overrides into it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import yaml

from iceshelves.core.bounded import MAX_DEPTH, MAX_NODES, load_yaml
from iceshelves.core.errors import InvalidInput
from iceshelves.eggs.model import USER_DATA, ListPolicy

UserDataKind: TypeAlias = Literal["cloud-config", "template", "other", "unknown"]

HEADER: Final = "#cloud-config"
_TEMPLATE_HEADER: Final = "## template:"
# cloud-init/handlers/__init__.py, INCLUSION_TYPES_MAP, and user_data.py for MIME; compared in lower case.
_OTHERS: Final = (
    "#!", "#include", "#cloud-config-archive", "#cloud-config-jsonp", "#cloud-boothook", "#part-handler",
    "#upstart-job", "content-type:", "mime-version:",
)  # fmt: skip
_SCALARS: Final = (str, int, float, bool, type(None), datetime.date)


def kind_of(text: str) -> UserDataKind:
    """What cloud-init takes ``text`` for; ``template`` is cloud-init's own, rendered in the guest."""
    start = text[:4096].lstrip().lower()
    if start.startswith(_TEMPLATE_HEADER):
        return "template"
    if start.startswith(_OTHERS):
        return "other"
    return "cloud-config" if start.startswith(HEADER) else "unknown"


def header_of(text: str) -> str:
    """The leading ``## template`` and ``#cloud-config`` lines of ``text``, each with its line break."""
    header = ""
    for line in text.lstrip().splitlines():
        lowered = line.strip().lower()
        if not lowered.startswith((_TEMPLATE_HEADER, HEADER)):
            break
        header += line.rstrip() + "\n"
        if lowered.startswith(HEADER):
            break
    return header if HEADER in header.lower() else header + HEADER + "\n"


def merge_cloud_config(base: str, override: Mapping[str, Any], *, lists: ListPolicy = "replace") -> str:
    """``base`` with ``override`` merged in: mappings recursively, scalars replaced, lists as ``lists`` says.

    The header lines stay first; comments and layout of ``base`` are lost.  Raises :class:`InvalidInput` when
    ``base`` is not a cloud-config mapping or ``override`` holds what YAML cannot.
    """
    if kind_of(base) == "other":
        raise InvalidInput(
            "Overrides can only be merged into cloud-config; this egg's user-data is something else.",
            code="not_cloud_config",
            hint="Use parameters, or override cloud-init.user-data as a whole.",
        )
    _check_plain(override)
    value = load_yaml(base, source=USER_DATA)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise InvalidInput(
            f"{USER_DATA} is not a mapping, so nothing can be merged into it.", code="not_a_mapping"
        )
    return header_of(base) + dump(_merged(value, override, lists))


def dump(value: Any) -> str:
    """``value`` as YAML that PyYAML, and so cloud-init, reads as the same value."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=4096
    )


class _Dumper(yaml.SafeDumper):
    """Writes aliases out, and texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - its signature is PyYAML's
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _merged(base: Any, override: Any, lists: ListPolicy) -> Any:
    if isinstance(base, Mapping) and isinstance(override, Mapping):
        merged = dict(base)
        for key, value in override.items():
            merged[key] = _merged(base[key], value, lists) if key in base else value
        return merged
    if lists == "append" and isinstance(base, list) and isinstance(override, list):
        return base + override
    return override


def _check_plain(value: object) -> None:
    """Refuse what is not made of plain values, or is nested so deep that writing it would recurse too far."""
    waiting: list[tuple[object, int]] = [(value, 1)]
    seen = 0
    while waiting:
        part, depth = waiting.pop()
        seen += 1
        children = (
            part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else ()
        )
        plain = isinstance(part, (*_SCALARS, Mapping, list, tuple))
        if isinstance(part, Mapping):
            plain = all(isinstance(key, str | int) for key in part)
        if not plain or depth > MAX_DEPTH or seen > MAX_NODES:
            raise InvalidInput(
                "The overrides are too large, too deep, or hold something that is not plain data.",
                code="invalid_overrides",
                hint="Give a mapping of texts, numbers, lists and mappings.",
            )
        waiting.extend((child, depth + 1) for child in children)
