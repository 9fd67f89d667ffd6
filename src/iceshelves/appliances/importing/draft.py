"""A recipe in the making, and the file of the original that it is made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from iceshelves.appliances.model import RECIPE
from iceshelves.appliances.paths import wrong_with_path
from iceshelves.appliances.reading import full_unit_name
from iceshelves.core.bounded import Document, KeyPath
from iceshelves.core.finding import Finding

# In this order they stand in the file.
_FIELDS: Final = (
    "name", "version", "title", "description", "maintainer", "homepage", "tags", "see_also", "base",
    "architectures", "types", "cloud_init", "packages", "files", "actions", "services", "ports", "volumes",
    "environment", "health", "resources", "profile",
)  # fmt: skip
_OWNER: Final = re.compile(r"[a-z0-9_][a-z0-9_-]{0,31}(?::[a-z0-9_][a-z0-9_-]{0,31})?")
_UNIT: Final = r"[A-Za-z0-9][A-Za-z0-9:_.@-]*"
_SWITCH: Final = re.compile(
    rf"^[ \t]*systemctl[ \t]+(?:-q[ \t]+|--quiet[ \t]+|--now[ \t]+)*"
    r"(enable|disable|mask)[ \t]+(?:--now[ \t]+)?"
    rf"({_UNIT}(?:[ \t]+{_UNIT})*)[ \t]*(?:(?:2?>[ \t]*/dev/null[ \t]*)*\|\|[ \t]*(?:true|:)[ \t]*)?$\n?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Source:
    """A YAML file of the original; ``offset`` lines of ``file`` stand above the first one of ``text``."""

    file: str
    document: Document
    text: str = field(repr=False)
    offset: int = 0

    @property
    def value(self) -> Mapping[str, Any]:
        """What is in it."""
        found: Mapping[str, Any] = self.document.value
        return found

    def as_written(self, path: KeyPath) -> str | None:
        """The plain value of the key at ``path`` as its author typed it: ``1.10`` and not the number 1.1."""
        position = self.document.position(path)
        line = self.text.splitlines()[position.line - 1][position.column - 1 :]
        match = re.match(r"[\"']?[\w-]+[\"']?\s*:\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s,#}]+))", line)
        return next((part for part in match.groups() if part is not None), None) if match else None

    def line(self, path: KeyPath) -> int:
        """Where ``path`` stands in ``file``."""
        return self.document.position(path).line + self.offset


@dataclass
class Draft:
    """Collects the fields of ``appliance.yaml``, the files beside it, and what there is to say."""

    fields: dict[str, Any] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def not_needed(self, source: Source, path: KeyPath, message: str) -> None:
        """Say that something was left out because an image comes out the same without it."""
        self._add("hint", "not_needed", message, source, path)

    def lost(self, source: Source, path: KeyPath, message: str, hint: str | None = None) -> None:
        """Say that something could not be carried over."""
        self._add("warning", "not_carried_over", message, source, path, hint)

    def refused(self, source: Source, path: KeyPath, message: str, hint: str | None = None) -> None:
        """Say that something was left out because it is not safe."""
        self._add("error", "import_refused", message, source, path, hint)

    def _add(
        self, level: Any, code: str, message: str, source: Source, path: KeyPath, hint: str | None = None
    ) -> None:
        where = ".".join(map(str, path)) or None
        self.findings.append(Finding(level, code, message, source.file, source.line(path), None, where, hint))

    def add_packages(self, names: Iterable[str]) -> None:
        """Append packages that are not there yet."""
        packages = self.fields.setdefault("packages", [])
        packages += [name for name in dict.fromkeys(names) if name not in packages]

    def add_action(self, name: str, run: str, *, network: bool = False) -> None:
        """Append an action."""
        action: dict[str, Any] = {"name": name, "run": run if run.endswith("\n") else f"{run}\n"}
        if network:
            action["network"] = True
        self.fields.setdefault("actions", []).append(action)

    def add_services(self, script: str) -> str:
        """Take over the units that lines of ``script`` enable or disable; returns the other lines."""

        def take(match: re.Match[str]) -> str:
            chosen = "enable" if match[1] == "enable" else "disable"
            other = "disable" if chosen == "enable" else "enable"
            services = self.fields.setdefault("services", {})
            for unit in map(full_unit_name, match[2].split()):
                if unit not in services.setdefault(chosen, []):
                    services[chosen].append(unit)
                if unit in services.get(other, ()):
                    services[other].remove(unit)
            return ""

        return _SWITCH.sub(take, script)

    def add_file(
        self, source: Source, place: KeyPath, path: Any, content: bytes, mode: int = 0o644, owner: str = ""
    ) -> None:
        """A file of the image, its content as a file of the recipe below ``files``."""
        reason = "is not a text" if not isinstance(path, str) else wrong_with_path(path)
        if reason:
            self.refused(source, place, f"{str(path)[:120]!a} {reason}; the file was left out.")
            return
        if mode & ~0o777:
            self.refused(source, place, f"{path} has set-id bits; they were left out.")
        if owner and not _OWNER.fullmatch(owner):
            self.lost(source, place, f"{owner[:60]!a} names no owner; {path} belongs to root.")
            owner = ""
        files = self.fields.setdefault("files", [])
        if any(known["path"] == path for known in files):
            self.lost(source, place, f"{path} is written twice; the later one counts.")
            files[:] = [known for known in files if known["path"] != path]
        name = f"files{path}"
        self.contents[name] = content
        entry = {"path": path, "source": name}
        if mode & 0o777 != 0o644:
            entry["mode"] = f"{mode & 0o777:04o}"
        if owner and owner not in ("root", "root:root", "0:0"):
            entry["owner"] = owner
        files.append(entry)


def written(draft: Draft) -> dict[str, bytes]:
    """The files of the recipe that ``draft`` has become."""
    fields = {name: draft.fields[name] for name in _FIELDS if draft.fields.get(name) not in (None, [], {})}
    services = fields.get("services")
    if services is not None:
        fields["services"] = {key: units for key, units in services.items() if units}
    text = yaml.dump(
        fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100
    )
    return {RECIPE: text.encode(), **draft.contents}


class _Dumper(yaml.SafeDumper):
    """Writes aliases out, and texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - its signature is PyYAML's
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
