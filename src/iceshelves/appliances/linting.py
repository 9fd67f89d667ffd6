"""Lint: everything that can be said about a recipe without building it; bad content is never an exception."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from iceshelves.appliances.folder import Folder, opened
from iceshelves.appliances.model import README, RECIPE, Recipe
from iceshelves.appliances.reading import read
from iceshelves.appliances.secrets import is_allowed, key_making_findings, secret_findings
from iceshelves.core.bounded import MAX_BYTES, Document, KeyPath, load_yaml_with_lines
from iceshelves.core.errors import InvalidInput
from iceshelves.core.finding import Finding, Level, from_error

LOCK: Final = "appliance.lock"
_ORDER: Final = {"error": 0, "warning": 1, "hint": 2}
_MAX_FINDINGS: Final = 200
_KNOWN_FILES: Final = frozenset({RECIPE, README, LOCK})
_SECRET_NAME: Final = re.compile(r"(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|KEY)\Z")
_ONLY_RUNNING: Final = re.compile(
    r"\A(?:systemctl (?:--quiet |-q )?is-active|service \S+ status|pgrep|pidof|true\b)"
)
_DOWNLOADS: Final = re.compile(r"\b(?:curl|wget)\s|\bgit clone\b|\bpip3? install\b|\bnpm (?:install|i)\b")
_SETS_PASSWORD: Final = re.compile(r"\b(?:chpasswd|usermod\s.{0,80}(?:-p|--password)\b|passwd\s)")
_RISKY_KEYS: Final = {"security.privileged": "true", "security.nesting": "true"}


def lint(path: Path) -> list[Finding]:
    """All findings about the recipe in the folder ``path``: errors first, at most 200.

    Raises :class:`NotFound` when there is no recipe, and nothing for bad content.
    """
    with opened(path) as folder:
        recipe, findings = read(folder)
        document = _document(folder)
        if document is not None:
            text = folder.read(RECIPE, MAX_BYTES).decode()
            findings += _allowed(recipe, RECIPE, secret_findings(text, RECIPE))
        if recipe is not None and document is not None:
            findings += list(_Judge(recipe, document).findings())
            findings += _folder_findings(folder, document)
    unique = dict.fromkeys(findings)
    ordered = sorted(unique, key=lambda f: (_ORDER[f.level], f.file, f.line, f.column or 0, f.code))
    return ordered[:_MAX_FINDINGS]


def _document(folder: Folder) -> Document | None:
    try:
        return load_yaml_with_lines(folder.read(RECIPE, MAX_BYTES), source=RECIPE)
    except InvalidInput:
        return None  # told by `read`


def _allowed(recipe: Recipe | None, path: str, findings: list[Finding]) -> list[Finding]:
    """``findings`` about ``path`` that the recipe does not allow."""
    allowed = recipe.allow_secrets if recipe else ()
    return [f for f in findings if not any(is_allowed(entry, path, f.code) for entry in allowed)]


def _folder_findings(folder: Folder, document: Document) -> list[Finding]:
    findings: list[Finding] = []
    if not folder.has(README):
        message = f"A {README} tells others how to reach the appliance."
        findings.append(Finding("hint", "missing_readme", message, README))
    try:
        names = folder.names()
    except InvalidInput as error:
        return [*findings, from_error(error, RECIPE)]
    used = {str(part["source"]) for part in document.value.get("files", ()) if "source" in part}
    for name in names:
        if name not in used and name not in _KNOWN_FILES:
            message = "No entry of files names this as its source, so it is not in the image."
            findings.append(Finding("warning", "unused_file", message, name))
    return findings


class _Judge:
    """What a recipe that can be built says, and probably should not."""

    def __init__(self, recipe: Recipe, document: Document) -> None:
        self._recipe = recipe
        self._document = document

    def findings(self) -> Iterator[Finding]:
        yield from self._files()
        yield from self._actions()
        yield from self._environment()
        yield from self._health()
        yield from self._profile()
        yield from self._version()

    def _finding(
        self, level: Level, code: str, message: str, path: KeyPath, hint: str | None = None
    ) -> Finding:
        position = self._document.position(path)
        field = ".".join(map(str, path)) or None
        return Finding(level, code, message, RECIPE, position.line, position.column, field, hint)

    def _files(self) -> Iterator[Finding]:
        for index, file in enumerate(self._recipe.files):
            place: KeyPath = ("files", index)
            raw = self._document.value["files"][index]
            if "source" in raw:
                text = file.content.decode(errors="replace")
                found = secret_findings(text, raw["source"])
                yield from _allowed(self._recipe, file.path, found)
            if file.path.endswith(("/.ssh/authorized_keys", "/.netrc", "/.pgpass")):
                message = f"{file.path} would let the same people into every instance."
                found = [self._finding("error", "authorized_keys", message, place)]
                yield from _allowed(self._recipe, file.path, found)
            if file.mode & 0o002:
                message = f"Everybody in the instance may change {file.path}."
                yield self._finding("warning", "writable_by_all", message, place)

    def _actions(self) -> Iterator[Finding]:
        for index, action in enumerate(self._recipe.actions):
            place: KeyPath = ("actions", index, "run")
            line = self._first_line(place, action.run)
            found = key_making_findings(action.run, RECIPE, line, f"actions.{index}.run")
            if _SETS_PASSWORD.search(action.run):
                message = "A password set while the image is built is the same in every instance."
                found.append(
                    self._finding("error", "default_password", message, place, "Move it to first_boot.")
                )
            yield from _allowed(self._recipe, RECIPE, found)
            if action.network:
                message = "What an action fetches is not in the lock: the build is not reproducible."
                yield self._finding("warning", "network_at_build", message, ("actions", index, "network"))
            elif _DOWNLOADS.search(action.run):
                message = "This seems to fetch something, but the action has no network."
                hint = "Use a package or a file of the recipe; or say network: true."
                yield self._finding("warning", "no_network", message, place, hint)

    def _first_line(self, place: KeyPath, script: str) -> int:
        """Where ``script`` begins: below its key when it is a block, beside it when it is one line."""
        return self._document.position(place).line + (1 if "\n" in script else 0)

    def _environment(self) -> Iterator[Finding]:
        for index, variable in enumerate(self._recipe.environment):
            if variable.default and not variable.secret and _SECRET_NAME.search(variable.name):
                yield self._finding(
                    "error",
                    "default_password",
                    f"{variable.name} has a default that everybody can read.",
                    ("environment", index, "default"),
                    "Say secret: true and leave the default out.",
                )

    def _health(self) -> Iterator[Finding]:
        health = self._recipe.health
        if health is None:
            if self._recipe.ports or self._recipe.services.enable:
                message = "Without a health check nobody knows whether the service does its work."
                yield self._finding("warning", "missing_health", message, ())
        elif _ONLY_RUNNING.match(health.command.strip()) and "\n" not in health.command.strip():
            message = "This says that the service runs, not that it does its work."
            yield self._finding(
                "warning", "shallow_health", message, ("health", "command"), "Ask the service something."
            )

    def _profile(self) -> Iterator[Finding]:
        for key, value in self._recipe.profile.config.items():
            if key.startswith("raw.") or _RISKY_KEYS.get(key) == value:
                message = f"{key} weakens the wall between the instance and its host."
                yield self._finding("warning", "risky_profile", message, ("profile", "config", key))

    def _version(self) -> Iterator[Finding]:
        if isinstance(self._recipe.version, str) and self._recipe.packages:
            yield self._finding(
                "hint",
                "fixed_version",
                "The version is written out, so it stays when the package is updated.",
                ("version",),
                "Write {from_package: NAME}.",
            )
