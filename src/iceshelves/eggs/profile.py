"""The optional files for one family of hypervisors: ``lxd-profile.yaml`` and ``kvm-config.xml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.parsers import expat

from iceshelves.core.bounded import Document, KeyPath, load_yaml_with_lines
from iceshelves.core.errors import InvalidInput
from iceshelves.core.finding import Finding, Level, from_error
from iceshelves.eggs.model import KVM_CONFIG, LXD_PROFILE, Profile

_KEYS: Final = ("config", "description", "devices", "name")


def read_profile(content: bytes | str) -> tuple[Profile | None, list[Finding]]:
    """The profile in ``lxd-profile.yaml`` with all findings; None where an error leaves nothing usable."""
    try:
        document = load_yaml_with_lines(content, source=LXD_PROFILE)
    except InvalidInput as error:
        return None, [from_error(error, LXD_PROFILE)]
    findings = list(_findings(document))
    if any(finding.level == "error" for finding in findings):
        return None, findings
    value = document.value or {}
    config = {key: config_text(entry) for key, entry in (value.get("config") or {}).items()}
    devices = {
        name: {key: config_text(entry) for key, entry in device.items()}
        for name, device in (value.get("devices") or {}).items()
    }
    return Profile(
        config, devices, str(value.get("description") or ""), str(value.get("name") or "")
    ), findings


def config_text(value: object) -> str:
    """``value`` as hypervisors hold configuration: text, with ``true`` and ``false`` in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_kvm_config(content: bytes | str) -> list[Finding]:
    """Findings about ``kvm-config.xml``: well-formed, without DOCTYPE or entities, a libvirt domain."""
    parser = expat.ParserCreate()
    roots: list[str] = []

    def refuse(*_: object) -> None:
        raise _Doctype

    def remember(name: str, _: Mapping[str, str]) -> None:
        if not roots:
            roots.append(name)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = remember
    try:
        parser.Parse(content, True)
    except _Doctype:
        line = parser.CurrentLineNumber
        return [Finding("error", "xml_doctype", "DOCTYPE and entities are not allowed.", KVM_CONFIG, line)]
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code) or "malformed"
        return [
            Finding(
                "error",
                "xml_syntax",
                f"This is not XML: {reason}.",
                KVM_CONFIG,
                error.lineno,
                error.offset + 1,
            )
        ]
    if roots[0] != "domain":
        return [Finding("error", "not_a_domain", "A libvirt domain starts with <domain>.", KVM_CONFIG, 1)]
    return []


class _Doctype(Exception):
    pass


def _findings(document: Document) -> Iterator[Finding]:
    def finding(level: Level, code: str, message: str, path: KeyPath) -> Finding:
        position = document.position(path)
        field = ".".join(map(str, path)) or None
        return Finding(level, code, message, LXD_PROFILE, position.line, position.column, field)

    for duplicate in document.duplicates:
        yield finding(
            "error", "duplicate_key", "This key is given twice; only the last counts.", duplicate.path
        )
    value = document.value if document.value is not None else {}
    if not isinstance(value, dict):
        yield finding("error", "not_a_mapping", "A profile is a mapping with config and devices.", ())
        return
    for key in value:
        if key not in _KEYS:
            yield finding(
                "error", "unknown_field", f"A profile has no {key!r}: only {', '.join(_KEYS)}.", (str(key),)
            )
    config, devices = value.get("config") or {}, value.get("devices") or {}
    if not _is_flat(config):
        yield finding("error", "wrong_type", "config is a mapping of texts.", ("config",))
    if not isinstance(devices, dict):
        yield finding("error", "wrong_type", "devices is a mapping of devices.", ("devices",))
        return
    for name, device in devices.items():
        if not isinstance(name, str) or not _is_flat(device) or "type" not in device:
            yield finding(
                "error", "wrong_type", f"The device {name} is a mapping with a type.", ("devices", str(name))
            )


def _is_flat(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(entry, str | int | float | bool) for key, entry in value.items()
    )
