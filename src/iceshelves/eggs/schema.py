"""cloud-init's own schemas, by the release that an egg is meant for.

Shipped as published with cloud-init 22.4.2 (Debian 12) and 25.1.4 (Debian 13); see NOTICE.  The older one
rejects forms that the newer accepts, and cloud-init itself only warns: so these findings are warnings.
One is an error, a key that is plainly a misspelling of another: the instance would come up without it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from iceshelves.core.bounded import Document, KeyPath
from iceshelves.core.finding import Finding

NEWEST: Final = "25.1.4"
_OLDER: Final = "22.4.2"
_SCHEMAS: Final = Path(__file__).with_name("schemas")
_OLD_RELEASE: Final = re.compile(r"debian[:/](?:1[0-2]|buster|bullseye|bookworm)\b|^(?:bookworm|bullseye)\b")
# Read by cloud-init itself and not by a module; the schema of 22.4.2 does not list them.
_ALWAYS_KNOWN: Final = frozenset({
    "allow_userdata", "datasource", "datasource_list", "launch-index", "manual_cache_clean", "merge_how",
    "merge_type", "network", "no_network", "output", "reporting", "syslog_fix_perms", "system_info",
    "version",
})  # fmt: skip
_MAX_FINDINGS: Final = 100
_SLIP: Final = 0.8  # so much alike are a key and its misspelling, by difflib's ratio


def schema_version(release: str | None) -> str:
    """The version of cloud-init whose schema fits ``release``: ``debian/12``, ``ubuntu/24.04/cloud`` …"""
    return _OLDER if release and _OLD_RELEASE.search(release.lower()) else NEWEST


def schema_findings(document: Document, file: str, release: str | None) -> list[Finding]:
    """What cloud-init's schema for ``release`` says about ``document``; no value appears in a message."""
    version = schema_version(release)
    value = _plain(document.value)
    findings = list(itertools.islice(_unknown_keys(document, file, version), _MAX_FINDINGS))
    for error in _validator(version).iter_errors(value):
        if len(findings) >= _MAX_FINDINGS:
            break
        path, message = _explain(error)
        if not path and type(error.kind).__name__ == "AdditionalProperties":
            continue  # an unknown key at the top, told above
        position = document.position(path)
        findings.append(
            Finding(
                "warning",
                "schema",
                f"cloud-init {version}: {message}.",
                file,
                position.line,
                position.column,
                ".".join(map(str, path)) or None,
                "See https://docs.cloud-init.io/en/latest/reference/modules.html.",
            )
        )
    return sorted(findings, key=lambda finding: (finding.line, finding.column or 0))


def _unknown_keys(document: Document, file: str, version: str) -> Iterator[Finding]:
    known = _top_level_keys(version)
    for key in document.value:
        if key in known or key in _ALWAYS_KNOWN:
            continue
        position = document.position((key if isinstance(key, str | int) else str(key),))
        close = difflib.get_close_matches(str(key), known, n=1)
        finding = Finding(
            "warning",
            "unknown_key",
            f"cloud-init {version} knows no key {str(key)[:80]!r}; it would be ignored.",
            file,
            position.line,
            position.column,
            str(key)[:80],
            f"Did you mean {close[0]}?" if close else None,
        )
        yield dataclasses.replace(finding, level="error") if _is_slip(str(key), close) else finding


def _is_slip(key: str, close: list[str]) -> bool:
    """Whether ``key`` is a misspelling of a known one: what it says would silently not be done."""
    own = key.startswith(("x-", ".", "_"))  # the usual places for anchors
    return not own and bool(close) and difflib.SequenceMatcher(None, key, close[0]).ratio() >= _SLIP


@functools.lru_cache(maxsize=2)
def _schema(version: str) -> dict[str, Any]:
    # Our own package data, hence without bounds.
    schema: dict[str, Any] = json.loads((_SCHEMAS / f"cloud-config-{version}.json").read_bytes())
    return schema


@functools.lru_cache(maxsize=2)
def _validator(version: str) -> Any:
    import jsonschema_rs  # here, because it costs 20 ms

    return jsonschema_rs.Draft4Validator(_schema(version), mask="this value")


@functools.lru_cache(maxsize=2)
def _top_level_keys(version: str) -> frozenset[str]:
    schema = _schema(version)
    modules = [schema["$defs"][entry["$ref"].rsplit("/", 1)[1]] for entry in schema["allOf"]]
    return frozenset(key for module in [schema, *modules] for key in module.get("properties", {}))


def _explain(error: Any) -> tuple[KeyPath, str]:
    """Where ``error`` is and what it says; of several alternatives the one that came closest."""
    while True:
        alternatives = [branch for branch in getattr(error.kind, "context", None) or [] if branch]
        closer = [branch for branch in alternatives if type(branch[0].kind).__name__ != "Type"]
        if len(closer) != 1:
            break
        error = closer[0][0]
    kinds = [branch[0].message for branch in alternatives if type(branch[0].kind).__name__ == "Type"]
    if alternatives and len(kinds) == len(alternatives):
        wanted = [match[1] for match in map(re.compile(r'of type "(\w+)"').search, kinds) if match]
        return tuple(error.instance_path), f"this should be of type {' or '.join(dict.fromkeys(wanted))}"
    message = error.message
    return tuple(error.instance_path), message[:1].lower() + message[1:300]


def _plain(value: Any) -> Any:
    """``value`` as JSON knows it.  Its depth is bounded by the loader."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else float(value)
    return value if isinstance(value, str | bool | float | None) else str(value)
