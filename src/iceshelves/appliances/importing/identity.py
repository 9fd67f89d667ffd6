"""The original's ``appliance.yaml``, the same in both forms: who it is and what it offers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from iceshelves.appliances.importing.draft import Draft, Source
from iceshelves.core.bounded import KeyPath

_TYPES: Final = {"container": "container", "vm": "virtual-machine"}
_ARCHITECTURES: Final = ("amd64", "arm64", "armhf", "i386", "ppc64el", "s390x")
_SECRET: Final = re.compile(r"(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|KEY)\Z")


def read_identity(source: Source, draft: Draft) -> None:
    """Carry over what the original's ``appliance.yaml`` says."""
    for key, value in source.value.items():
        reader = _READERS.get(str(key))
        if reader is None:
            draft.lost(source, (str(key),), f"{str(key)[:80]} has no counterpart.")
        else:
            reader(source, draft, value)
    for duplicate in source.document.duplicates:
        draft.lost(source, duplicate.path, f"{duplicate.path[-1]} is given twice; the later one counts.")


def _as_it_is(key: str) -> Callable[[Source, Draft, Any], None]:
    def carry(_source: Source, draft: Draft, value: Any) -> None:
        draft.fields[key] = value

    return carry


def _version(source: Source, draft: Draft, value: Any) -> None:
    draft.fields["version"] = value if isinstance(value, str) else source.as_written(("version",))
    if not isinstance(value, str):
        message = f"YAML reads this version as a number; taken as written, {draft.fields['version']!r}."
        draft.lost(source, ("version",), message)


def _base(source: Source, draft: Draft, value: Any) -> None:
    if isinstance(value, Mapping):
        release = value.get("release")
        draft.fields["base"] = {
            "distribution": value.get("distribution"),
            "release": release if isinstance(release, str) else source.as_written(("base", "release")),
        }


def _types(source: Source, draft: Draft, value: Any) -> None:
    draft.fields["types"] = list(_known(source, draft, ("types",), value, _TYPES))


def _architectures(source: Source, draft: Draft, value: Any) -> None:
    known = {name: name for name in _ARCHITECTURES}
    draft.fields["architectures"] = list(_known(source, draft, ("architectures",), value, known))


def _known(
    source: Source, draft: Draft, place: KeyPath, value: Any, known: Mapping[str, str]
) -> Iterator[str]:
    for index, entry in enumerate(value if isinstance(value, list) else [value]):
        if isinstance(entry, str) and entry in known:
            yield known[entry]
        else:
            draft.lost(source, (*place, index), f"{str(entry)[:80]!r} is not known here.")


def _requirements(source: Source, draft: Draft, value: Any) -> None:
    known = {"min_cpu", "min_memory", "min_disk", "recommended_memory", "recommended_disk"}
    draft.fields["resources"] = _selected(source, draft, ("requirements",), value, known)


def _health(source: Source, draft: Draft, value: Any) -> None:
    known = {"command", "interval", "timeout", "retries"}
    draft.fields["health"] = _selected(source, draft, ("healthcheck",), value, known)


def _selected(
    source: Source, draft: Draft, place: KeyPath, value: Any, known: set[str]
) -> dict[str, Any] | None:
    if not isinstance(value, Mapping):
        draft.lost(source, place, f"{place[-1]} is not a mapping.")
        return None
    for key in value:
        if key not in known:
            draft.lost(source, (*place, str(key)), f"{str(key)[:80]} has no counterpart.")
    return {key: entry for key, entry in value.items() if key in known}


def _environment(source: Source, draft: Draft, value: Any) -> None:
    variables = []
    for index, entry in enumerate(value if isinstance(value, list) else []):
        place: KeyPath = ("environment", index)
        variable = _selected(source, draft, place, entry, {"name", "default", "description"})
        if variable is None:
            continue
        default = variable.get("default")
        if default is not None and not isinstance(default, str):
            variable["default"] = source.as_written((*place, "default")) or str(default)
        if _SECRET.search(str(variable.get("name"))):
            if variable.pop("default", None):
                message = f"The default of {variable['name']} is known to everybody; it is generated now."
                draft.refused(source, (*place, "default"), message)
            variable["secret"] = True
        variables.append(variable)
    draft.fields["environment"] = variables


_READERS: Final[Mapping[str, Callable[[Source, Draft, Any], None]]] = {
    **{key: _as_it_is(key) for key in ("name", "description", "maintainer", "tags", "see_also", "ports")},
    "volumes": _as_it_is("volumes"),
    "cloud_init": _as_it_is("cloud_init"),
    "version": _version,
    "base": _base,
    "types": _types,
    "architectures": _architectures,
    "requirements": _requirements,
    "healthcheck": _health,
    "environment": _environment,
}
