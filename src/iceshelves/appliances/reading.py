"""Reading ``appliance.yaml``: all findings about it, and the recipe unless one of them is an error.

The schema judges the structure first; what it cannot say (paths, files, what is given twice) is judged here,
and only on a document that has the right structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from iceshelves.appliances.folder import Folder, opened
from iceshelves.appliances.guest import UNIT
from iceshelves.appliances.model import (
    RECIPE,
    Action,
    AllowedSecret,
    Base,
    File,
    FromPackage,
    Health,
    Port,
    Profile,
    Recipe,
    Resources,
    Services,
    Variable,
    Volume,
)
from iceshelves.appliances.paths import wrong_with_path
from iceshelves.appliances.releases import code_name
from iceshelves.appliances.schema import structure_findings
from iceshelves.core.bounded import MAX_BYTES, Document, KeyPath, load_yaml_with_lines
from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.finding import Finding, from_error
from iceshelves.core.units import parse_duration, parse_size

T = TypeVar("T")

_UNIT_KINDS: Final = (
    "service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice", "scope", "device",
)  # fmt: skip
# What the init of a container has in its own environment whether anybody set it or not.
_RESERVED: Final = frozenset({"HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "USER"})


def load(path: Path) -> Recipe:
    """The recipe in the folder ``path``.

    Raises :class:`NotFound` (``appliance_not_found``), and :class:`InvalidInput` (``invalid_recipe``) whose
    details hold all ``findings``.
    """
    with opened(path) as folder:
        recipe, findings = read(folder)
    if recipe is not None:
        return recipe
    errors = [finding for finding in findings if finding.level == "error"]
    first = errors[0]
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    raise InvalidInput(
        f"{first.file}, line {first.line}: {first.message}{more}",
        code="invalid_recipe",
        hint=first.hint or "iceshelves appliance lint shows all of it.",
        details={"findings": [finding.to_json() for finding in findings]},
    )


def read(folder: Folder) -> tuple[Recipe | None, list[Finding]]:
    """The recipe in ``folder`` with all findings about reading it; None where an error leaves none.

    Raises :class:`NotFound` (``appliance_not_found``) where there is no ``appliance.yaml``.
    """
    if not folder.has(RECIPE):
        raise NotFound(
            f"The folder has no {RECIPE}.",
            code="appliance_not_found",
            hint="iceshelves appliance new makes one; iceshelves appliance import brings another format.",
        )
    try:
        document = load_yaml_with_lines(folder.read(RECIPE, MAX_BYTES), source=RECIPE)
    except InvalidInput as error:
        return None, [from_error(error, RECIPE)]
    findings = structure_findings(document)
    if findings:
        return None, findings
    reader = _Reader(document, folder)
    recipe = reader.recipe()
    return (None if reader.findings else recipe), reader.findings


def full_unit_name(name: str) -> str:
    """``name`` of a systemd unit with its suffix: ``nginx`` becomes ``nginx.service``."""
    return name if name.rpartition(".")[2] in _UNIT_KINDS else f"{name}.service"


class _Reader:
    """Builds a recipe from a document that fits the schema; every finding is an error."""

    def __init__(self, document: Document, folder: Folder) -> None:
        self.findings: list[Finding] = []
        self._document = document
        self._folder = folder
        self._raw: Mapping[str, Any] = document.value

    def recipe(self) -> Recipe:
        raw = self._raw
        return Recipe(
            name=raw["name"],
            version=self._version(),
            description=raw["description"],
            base=self._base(),
            title=raw.get("title", raw["name"]),
            maintainer=raw.get("maintainer", ""),
            homepage=raw.get("homepage", ""),
            tags=tuple(raw.get("tags", ())),
            see_also=tuple(raw.get("see_also", ())),
            architectures=tuple(raw.get("architectures", ("amd64",))),
            types=tuple(raw.get("types", ("container",))),
            packages=tuple(raw.get("packages", ())),
            files=self._files(),
            actions=self._each("actions", lambda _path, part: Action(**part), "name"),
            first_boot=raw.get("first_boot"),
            each_boot=raw.get("each_boot"),
            services=self._services(),
            ports=self._ports(),
            volumes=self._each("volumes", self._volume, "path", "name"),
            environment=self._each("environment", self._variable, "name"),
            health=self._health(),
            resources=self._resources(),
            profile=self._profile(),
            cloud_init=raw.get("cloud_init", True),
            aliases=self._aliases(),
            allow_secrets=self._each("allow_secrets", lambda _path, part: AllowedSecret(**part)),
        )

    def _add(self, code: str, message: str, path: KeyPath, hint: str | None = None) -> None:
        position = self._document.position(path)
        field = ".".join(map(str, path))
        self.findings.append(
            Finding("error", code, message, RECIPE, position.line, position.column, field, hint)
        )

    def _each(self, key: str, build: Callable[[KeyPath, dict[str, Any]], T], *unique: str) -> tuple[T, ...]:
        """What ``build`` makes of every entry under ``key``; no two may agree in a field of ``unique``."""
        built = [build((key, index), dict(part)) for index, part in enumerate(self._raw.get(key, ()))]
        for field in unique:
            self._refuse_twins(key, field, (getattr(part, field) for part in built))
        return tuple(built)

    def _refuse_twins(self, key: str, field: str, values: Iterable[object]) -> None:
        seen: set[object] = set()
        for index, value in enumerate(values):
            if value in seen:
                self._add("duplicate_entry", f"{value} is given twice in {key}.", (key, index, field))
            seen.add(value)

    def _version(self) -> str | FromPackage:
        raw = self._raw["version"]
        return raw if isinstance(raw, str) else FromPackage(raw["from_package"])

    def _base(self) -> Base:
        raw = self._raw["base"]
        distribution, release = raw["distribution"], raw["release"]
        name = code_name(distribution, release)
        if name is None:
            message = f"{distribution} has no release {release!r}."
            self._add("unknown_release", message, ("base", "release"), "Write its code name.")
        return Base(distribution, name or release)

    def _path(self, path: str, place: KeyPath) -> str:
        reason = wrong_with_path(path)
        if reason:
            self._add("unsafe_path", f"{path[:120]!a} {reason}.", place)
        return path

    def _files(self) -> tuple[File, ...]:
        return self._each("files", self._file, "path")

    def _file(self, place: KeyPath, part: dict[str, Any]) -> File:
        owner, _, group = _owner(part.get("owner", "root")).partition(":")
        return File(
            path=self._path(part["path"], (*place, "path")),
            content=part["content"].encode() if "content" in part else self._source(part["source"], place),
            mode=int(part.get("mode", "0644"), 8),
            owner=owner,
            group=group,
        )

    def _source(self, name: str, place: KeyPath) -> bytes:
        try:
            return self._folder.read(name)
        except (InvalidInput, NotFound) as error:
            self._add(error.code, error.message, (*place, "source"), error.hint)
            return b""

    def _services(self) -> Services:
        raw = self._raw.get("services", {})
        enable, disable = (
            tuple(full_unit_name(name) for name in raw.get(key, ())) for key in ("enable", "disable")
        )
        for index, unit in enumerate(disable):
            if unit in enable:
                message = f"{unit} is both enabled and disabled."
                self._add("duplicate_entry", message, ("services", "disable", index))
        for key, units in (("enable", enable), ("disable", disable)):
            if UNIT in units:
                message = f"{UNIT} belongs to what every appliance has."
                self._add("reserved_name", message, ("services", key, units.index(UNIT)))
        return Services(enable, disable)

    def _ports(self) -> tuple[Port, ...]:
        def build(_place: KeyPath, part: dict[str, Any]) -> Port:
            return Port(part["port"], part.get("protocol", "tcp"), part.get("description", ""))

        ports = self._each("ports", build)
        self._refuse_twins("ports", "port", (f"{port.number}/{port.protocol}" for port in ports))
        return ports

    def _volume(self, place: KeyPath, part: dict[str, Any]) -> Volume:
        path = self._path(part["path"], (*place, "path"))
        name = part.get("name") or path.strip("/").replace("/", "-").replace("_", "-").lower()
        size = parse_size(part["size"]) if "size" in part else None
        owner = _owner(part["owner"]) if "owner" in part else None
        mode = int(part.get("mode", "0755"), 8)
        return Volume(name, path, part.get("description", ""), size, owner, mode)

    def _variable(self, place: KeyPath, part: dict[str, Any]) -> Variable:
        variable = Variable(**part)
        if variable.name in _RESERVED:
            message = f"{variable.name} is set in every environment already."
            self._add("reserved_name", message, (*place, "name"), "Choose another name.")
        if variable.secret and variable.default is not None:
            self._add(
                "secret_default",
                f"The secret {variable.name} has a default that everybody can read.",
                (*place, "default"),
                "Leave the default out: the secret is generated at the first boot.",
            )
        return variable

    def _health(self) -> Health | None:
        raw = self._raw.get("health")
        if raw is None:
            return None
        times: dict[str, Any] = {
            key: parse_duration(raw[key]) for key in ("interval", "timeout", "start_period") if key in raw
        }
        if times.get("timeout") == 0:
            self._add("invalid_value", "The timeout is more than nothing.", ("health", "timeout"))
        if "retries" in raw:
            times["retries"] = raw["retries"]
        return Health(raw["command"], **times)

    def _resources(self) -> Resources:
        raw = self._raw.get("resources", {})
        resources = Resources(
            **{key: parse_size(value) if isinstance(value, str) else value for key, value in raw.items()}
        )
        for what in ("cpu", "memory", "disk"):
            least, better = getattr(resources, f"min_{what}"), getattr(resources, f"recommended_{what}")
            if least is not None and better is not None and better < least:
                message = f"The recommended {what} is less than the least."
                self._add("invalid_value", message, ("resources", f"recommended_{what}"))
        return resources

    def _profile(self) -> Profile:
        raw = self._raw.get("profile", {})
        devices = raw.get("devices", {})
        for name, device in devices.items():
            if "type" not in device:
                self._add("missing_field", f"The device {name} needs type.", ("profile", "devices", name))
        return Profile(_texts(raw.get("config", {})), {str(name): _texts(d) for name, d in devices.items()})

    def _aliases(self) -> tuple[str, ...]:
        aliases = tuple(self._raw.get("aliases", ()))
        if self._raw["name"] in aliases:
            message = "The name is an alias by itself."
            self._add("duplicate_entry", message, ("aliases", aliases.index(self._raw["name"])))
        return aliases


def _owner(text: str) -> str:
    """``user:group``; a user alone has a group of the same name."""
    return text if ":" in text else f"{text}:{text}"


def _texts(settings: Mapping[Any, Any]) -> dict[str, str]:
    """``settings`` as hypervisors hold them: texts, with ``true`` and ``false`` in lower case."""
    return {
        str(key): str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in settings.items()
    }
