"""Reading ``metadata.json``: lenient where the format always was, strict in what we added to it.

One pass serves two readers: lint lists all findings, loading stops when one of them is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from iceshelves.core.bounded import Document, KeyPath, load_json_with_lines
from iceshelves.core.errors import InvalidInput
from iceshelves.core.finding import Finding, Level, from_error
from iceshelves.core.names import check_object_name
from iceshelves.eggs.checks import parse_check, parse_volume
from iceshelves.eggs.model import (
    KVM_CONFIG,
    LXD_PROFILE,
    METADATA,
    USER_DATA,
    ListPolicy,
    Metadata,
    Parameter,
    Rendering,
)
from iceshelves.eggs.semver import SemVer
from iceshelves.eggs.values import BadValue, convert, pattern_fits

CATEGORIES: Final = ("base", "webserver", "database", "kubernetes", "docker", "custom")
EGG_TYPES: Final = ("lxd-container", "kvm-vm", "hybrid", "aws-ec2", "gcp-vm")
PARAMETER_TYPES: Final = ("string", "integer", "number", "boolean", "choice", "list")
RENDERABLE: Final = (USER_DATA, LXD_PROFILE, KVM_CONFIG)
_PARAMETER_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED: Final = frozenset({"instance", "range", "dict", "lipsum", "cycler", "joiner", "namespace"})
_PARAMETER_FIELDS: Final = frozenset(Parameter.__dataclass_fields__) - {"name"}
_TEMPLATE: Final = re.compile(r"\{[{%]")


def read_metadata(content: bytes, fallback_name: str | None) -> tuple[Metadata | None, list[Finding]]:
    """The metadata in ``content`` and all findings; None where an error leaves nothing to work with.

    ``fallback_name`` is used when it names no egg.
    """
    try:
        document = load_json_with_lines(content, source=METADATA)
    except InvalidInput as error:
        return None, [from_error(error, METADATA)]
    reader = _Reader(document)
    metadata = reader.metadata(fallback_name)
    return metadata, reader.findings


def is_template(value: object) -> bool:
    """Whether any text in ``value`` holds a template."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str) and _TEMPLATE.search(part):
            return True
        if isinstance(part, Mapping):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)
    return False


def is_amount(value: object) -> bool:
    """Whether ``value`` is a sensible size or count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**9


class _Reader:
    def __init__(self, document: Document) -> None:
        self.findings: list[Finding] = []
        self._document = document
        self._raw: Mapping[str, Any] = document.value if isinstance(document.value, dict) else {}
        for duplicate in document.duplicates:
            self._add(
                "error", "duplicate_key", "This key is given twice; only the last counts.", duplicate.path
            )

    def metadata(self, fallback_name: str | None) -> Metadata | None:
        if not isinstance(self._document.value, dict):
            self._add("error", "not_a_mapping", f"{METADATA} must hold a JSON object.", ())
            return None
        name = self._name(fallback_name)
        version = self._version()
        rendering, rendered = self._rendering()
        parameters = tuple(self._parameters())
        for index, raw in enumerate(self._objects("checks")):
            self._check_part("checks", index, raw, rendering)
        for index, raw in enumerate(self._objects("volumes")):
            self._check_part("volumes", index, raw, rendering)
        if name is None or version is None:
            return None
        return Metadata(
            name=name,
            version=version,
            display_name=self._text("display_name") or name,
            description=self._text("description") or "",
            category=self._word("category", "custom", CATEGORIES),
            egg_type=self._word("egg_type", "lxd-container", EGG_TYPES),
            base_image=self._text("base_image"),
            author=self._text("author"),
            created=self._text("created"),
            tags=self._texts("tags"),
            features=self._texts("features"),
            ports=tuple(self._ports()),
            requirements=self._requirements(),
            parameters=parameters,
            rendering=rendering,
            rendered_files=rendered,
            checks=tuple(self._objects("checks")),
            volumes=tuple(self._objects("volumes")),
            merge=self._merge(),
            raw=self._raw,
        )

    def _add(self, level: Level, code: str, message: str, path: KeyPath, hint: str | None = None) -> None:
        position = self._document.position(path)
        field = ".".join(map(str, path)) or None
        self.findings.append(
            Finding(level, code, message, METADATA, position.line, position.column, field, hint)
        )

    def _name(self, fallback: str | None) -> str | None:
        name = self._raw.get("name", fallback)
        try:
            return check_object_name(name if isinstance(name, str) else "", "an egg")
        except InvalidInput as error:
            self._add("error", "invalid_name", error.message, ("name",), error.hint)
            return None

    def _version(self) -> SemVer | None:
        version = self._raw.get("version")
        try:
            return SemVer.parse(version if isinstance(version, str) else "")
        except InvalidInput as error:
            message = error.message if isinstance(version, str) else "The egg has no version (a text)."
            self._add("error", error.code, message, ("version",), error.hint)
            return None

    def _text(self, key: str) -> str | None:
        value = self._raw.get(key)
        if value is None or isinstance(value, str):
            return value
        self._add("warning", "wrong_type", f"{key} should be a text; it is ignored.", (key,))
        return None

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self._raw.get(key, [])
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        self._add("warning", "wrong_type", f"{key} should be a list of texts; it is ignored.", (key,))
        return ()

    def _word(self, key: str, default: str, known: tuple[str, ...]) -> str:
        value = self._text(key) or default
        if value not in known:
            self._add("warning", f"unknown_{key}", f"{value!r} is none of {', '.join(known)}.", (key,))
        return value

    def _ports(self) -> Iterator[int]:
        value = self._raw.get("ports")
        ports = value.get("suggested") if isinstance(value, dict) else value
        if ports is None:
            return
        for port in ports if isinstance(ports, list) else [ports]:
            if isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65535:
                yield port
            else:
                self._add("warning", "wrong_type", "A port is a number from 1 to 65535.", ("ports",))

    def _requirements(self) -> Mapping[str, Any]:
        value = self._raw.get("requirements", {})
        if not isinstance(value, dict):
            self._add(
                "warning", "wrong_type", "requirements should be an object; it is ignored.", ("requirements",)
            )
            return {}
        for key in ("min_memory_mb", "min_cores", "min_disk_gb"):
            if not is_amount(value.get(key, 1)):
                self._add(
                    "warning",
                    "wrong_type",
                    f"{key} should be a positive number; it is ignored.",
                    ("requirements", key),
                )
        return value

    def _objects(self, key: str) -> list[Mapping[str, Any]]:
        value = self._raw.get(key, [])
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value) and len(value) <= 50:
            return value
        finding = f"{key} must be a list of at most 50 objects."
        if not any(known.message == finding for known in self.findings):
            self._add("error", "wrong_type", finding, (key,))
        return []

    def _check_part(self, key: str, index: int, raw: Mapping[str, Any], rendering: Rendering) -> None:
        if rendering == "jinja" and is_template(raw):
            return  # judged once it is rendered
        try:
            if key == "checks":
                parse_check(raw)
            else:
                parse_volume(raw)
        except InvalidInput as error:
            self._add("error", error.code, error.message, (key, index), error.hint)

    def _rendering(self) -> tuple[Rendering, tuple[str, ...]]:
        value = self._raw.get("rendering", "none")
        engine: Any = value
        files: Any = [USER_DATA]
        if isinstance(value, dict):
            engine, files = value.get("engine"), value.get("files", [USER_DATA])
        if not isinstance(files, list) or not all(name in RENDERABLE for name in files):
            self._add("error", "invalid_rendering", f"files may be {', '.join(RENDERABLE)}.", ("rendering",))
            files = [USER_DATA]
        if engine == "jinja":
            return "jinja", tuple(files)
        if engine != "none":
            self._add("error", "invalid_rendering", "rendering is none or jinja.", ("rendering",))
        return "none", ()

    def _merge(self) -> ListPolicy:
        value = self._raw.get("merge", "replace")
        if value == "append":
            return "append"
        if value != "replace":
            self._add(
                "error", "invalid_merge", "merge is replace or append (what happens to lists).", ("merge",)
            )
        return "replace"

    def _parameters(self) -> Iterator[Parameter]:
        value = self._raw.get("parameters", {})
        if not isinstance(value, dict):
            self._add(
                "error",
                "wrong_type",
                'parameters must be an object, such as {"title": {"type": "string", "default": "Hello"}}.',
                ("parameters",),
            )
            return
        for name, raw in value.items():
            parameter = self._parameter(name, raw)
            if parameter is not None:
                yield parameter

    def _parameter(self, name: str, raw: object) -> Parameter | None:
        path: KeyPath = ("parameters", name)
        code = "invalid_parameter"
        if not _PARAMETER_NAME.fullmatch(name) or name in _RESERVED:
            self._add(
                "error", code, f"{name!r} cannot name a parameter (a-z, 0-9 and _, not reserved).", path
            )
            return None
        if not isinstance(raw, dict):
            self._add("error", code, f"The definition of {name} must be an object.", path)
            return None
        for key in raw:
            if key not in _PARAMETER_FIELDS:
                self._add("warning", "unknown_field", f"A parameter has no field {key!r}.", (*path, key))
        wrong = dict(_wrong_fields(raw))
        for key, message in wrong.items():
            self._add("error", code, f"{name}: {message}", (*path, key))
        if wrong:
            return None
        return self._complete(name, raw, path)

    def _complete(self, name: str, raw: Mapping[str, Any], path: KeyPath) -> Parameter | None:
        fields = {key: value for key, value in raw.items() if key in _PARAMETER_FIELDS and value is not None}
        fields["choices"] = tuple(fields.get("choices", ()))
        parameter = Parameter(name=name, **fields)
        if parameter.default is None:
            return parameter
        if parameter.required:
            self._add("warning", "required_with_default", f"{name} is required, yet has a default.", path)
        if parameter.secret:
            self._add(
                "warning",
                "secret_default",
                f"The secret {name} has a default that everybody can read.",
                (*path, "default"),
                "Make it required instead.",
            )
        try:
            fields["default"] = convert(parameter, parameter.default)
        except BadValue as problem:
            self._add("error", "invalid_parameter", f"The default of {name} {problem}.", (*path, "default"))
            return None
        return Parameter(name=name, **fields)


_FIELD_TYPES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "description": ((str,), "a text"),
    "pattern": ((str,), "a text"),
    "required": ((bool,), "true or false"),
    "secret": ((bool,), "true or false"),
    "minimum": ((int, float), "a number"),
    "maximum": ((int, float), "a number"),
    "min_length": ((int,), "a whole number"),
    "max_length": ((int,), "a whole number"),
}


def _wrong_fields(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = raw.get("type", "string")
    if kind not in PARAMETER_TYPES:
        yield "type", f"its type is none of {', '.join(PARAMETER_TYPES)}."
    for key, (types, meant) in _FIELD_TYPES.items():
        value = raw.get(key)
        if value is not None and (
            not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
        ):
            yield key, f"{key} is {meant}."
    choices = raw.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        yield "choices", "choices is a list of texts."
    elif (kind == "choice") != bool(choices):
        yield "choices", "a choice, and only a choice, has choices."
    pattern = raw.get("pattern")
    if isinstance(pattern, str):
        try:
            pattern_fits(pattern, "")
        except ValueError:
            yield "pattern", "its pattern is not a regular expression (no look-around, no back-references)."
