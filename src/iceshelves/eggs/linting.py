"""Lint: everything that can be said about an egg without deploying it; bad content is never an exception."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from iceshelves.core.bounded import MAX_BYTES
from iceshelves.core.errors import InvalidInput
from iceshelves.core.finding import Finding, from_error
from iceshelves.eggs.checks import parse_check, parse_volume
from iceshelves.eggs.directory import load_files
from iceshelves.eggs.metadata import read_metadata
from iceshelves.eggs.model import (
    KVM_CONFIG,
    LXD_PROFILE,
    METADATA,
    README,
    USER_DATA,
    Egg,
    Metadata,
    Parameter,
)
from iceshelves.eggs.names import check_file_name, check_size
from iceshelves.eggs.parameters import Parameters
from iceshelves.eggs.profile import check_kvm_config, read_profile
from iceshelves.eggs.rendering import rendered_parts, rendered_texts, template_texts
from iceshelves.eggs.sandbox import find_variables
from iceshelves.eggs.schema import schema_findings
from iceshelves.eggs.userdata import judge, judge_style, looks_like_template

INVENTED: Final = "iceshelves-lint-value"
_TEXT_FILES: Final = (METADATA, USER_DATA, LXD_PROFILE, KVM_CONFIG, README)
_ORDER: Final = {"error": 0, "warning": 1, "hint": 2}
_MAX_FINDINGS: Final = 200
_MAX_ALIGNED: Final = 300 * 300
_MAX_COMPARED: Final = 50


def lint(egg: Egg | Path, *, release: str | None = None) -> list[Finding]:
    """All findings about an egg, or about the directory or packed file at a path: errors first, at most 200.

    ``release`` (such as ``debian/12``; otherwise the egg's base image) chooses cloud-init's schema.  Raises
    :class:`NotFound` when there is nothing at the path, and nothing for bad content.
    """
    if isinstance(egg, Egg):
        return lint_files(egg.files, egg.name, release=release)
    try:
        files = load_files(egg)
    except InvalidInput as error:
        return [from_error(error, egg.name)]
    return lint_files(files, egg.resolve().name.removesuffix(".egg"), release=release)


def lint_files(
    files: Mapping[str, bytes], fallback_name: str | None = None, *, release: str | None = None
) -> list[Finding]:
    """Like :func:`lint`, for files in memory."""
    findings = _file_findings(files)
    if any(finding.level == "error" for finding in findings):
        return _sorted(findings)
    metadata, found = read_metadata(files[METADATA], fallback_name)
    findings += found
    if metadata is None:
        texts = {n: files[n].decode() for n in _TEXT_FILES if n in files}
        if not looks_like_template(texts[USER_DATA]):  # else nobody knows yet what it will be
            findings += _plain_findings(texts, release, None)
    else:
        findings += _egg_findings(Egg(metadata, files), release or metadata.base_image)
    return _sorted(findings)


def _sorted(findings: list[Finding]) -> list[Finding]:
    unique = dict.fromkeys(findings)
    ordered = sorted(unique, key=lambda f: (_ORDER[f.level], f.file, f.line, f.column or 0, f.code))
    return ordered[:_MAX_FINDINGS]


def _file_findings(files: Mapping[str, bytes]) -> list[Finding]:
    findings = [
        Finding("error", "missing_file", f"An egg needs {name}.", name)
        for name in (METADATA, USER_DATA)
        if name not in files
    ]
    for name, content in files.items():
        try:
            check_size(check_file_name(name), len(content))
        except InvalidInput as error:
            findings.append(from_error(error, name))
            continue
        if name in _TEXT_FILES:
            findings += _text_findings(name, content)
    if README not in files:
        findings.append(
            Finding("hint", "missing_readme", f"A {README} tells others what the egg does.", README)
        )
    return findings


def _text_findings(name: str, content: bytes) -> list[Finding]:
    if len(content) > MAX_BYTES and name != README:
        return [Finding("error", "too_large", f"{name} is larger than {MAX_BYTES} bytes.", name)]
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return [Finding("error", "not_utf8", "This is not UTF-8 text.", name, line, hint="Save it as UTF-8.")]
    return []


def _egg_findings(egg: Egg, release: str | None) -> list[Finding]:
    texts = {name: egg.files[name].decode() for name in _TEXT_FILES if name in egg.files}
    if egg.metadata.rendering == "none":
        findings = _plain_findings(texts, release, None)
        if looks_like_template(texts[USER_DATA]):
            findings.append(_template_hint(texts[USER_DATA]))
        if egg.metadata.parameters:
            message = "Parameters have no effect in an egg that asks for no rendering."
            line = _line_of('"parameters"', texts[METADATA])
            hint = 'Add "rendering": "jinja".'
            findings.append(
                Finding("warning", "unused_parameter", message, METADATA, line, None, "parameters", hint)
            )
        return findings
    try:
        findings = _variable_findings(egg, find_variables(template_texts(egg, texts)))
        if any(finding.level == "error" for finding in findings):
            return findings
        rendered = rendered_texts(egg, _invented(egg.metadata), INVENTED)
    except InvalidInput as error:
        return [from_error(error, USER_DATA)]
    lines = {
        name: _SourceLines(texts[name], rendered[name])
        for name in egg.metadata.rendered_files
        if name in texts
    }
    for finding in _plain_findings(rendered, release, INVENTED):
        if finding.file in lines:
            line = lines[finding.file].line(finding.line)
            findings.append(dataclasses.replace(finding, line=line, column=None))
        else:
            findings.append(finding)
    return findings + _part_findings(egg, rendered)


def _plain_findings(texts: Mapping[str, str], release: str | None, invented: str | None) -> list[Finding]:
    document, findings = judge(texts[USER_DATA], USER_DATA)
    if document is not None:
        told = {finding.field for finding in findings}
        findings += [f for f in schema_findings(document, USER_DATA, release) if f.field not in told]
        findings += judge_style(document, USER_DATA, invented)
    if LXD_PROFILE in texts:
        findings += read_profile(texts[LXD_PROFILE])[1]
    if KVM_CONFIG in texts:
        findings += check_kvm_config(texts[KVM_CONFIG])
    return findings


def _template_hint(text: str) -> Finding:
    line = next((n for n, part in enumerate(text.splitlines(), 1) if looks_like_template(part)), 1)
    message = "This looks like a template, but the egg asks for no rendering: it reaches the guest as it is."
    return Finding("hint", "looks_like_template", message, USER_DATA, line, hint='Add "rendering": "jinja".')


def _variable_findings(egg: Egg, used: Mapping[str, list[str]]) -> list[Finding]:
    declared = {parameter.name for parameter in egg.metadata.parameters}
    findings = [
        _undeclared(egg, label, name, declared)
        for label, names in used.items()
        for name in names
        if name not in declared and name != "instance"
    ]
    everywhere = {name for names in used.values() for name in names}
    for name in sorted(declared - everywhere):
        message = f"The parameter {name} is used nowhere."
        line = _line_of(f'"{name}"', egg.files[METADATA].decode())
        field = f"parameters.{name}"
        findings.append(Finding("warning", "unused_parameter", message, METADATA, line, field=field))
    return findings


def _undeclared(egg: Egg, label: str, name: str, declared: set[str]) -> Finding:
    file = label if label in egg.files else METADATA
    close = difflib.get_close_matches(name, declared, n=1)
    hint = f"Did you mean {close[0]}?" if close else "Declare it under 'parameters' in metadata.json."
    line = _line_of(name, egg.files[file].decode())
    message = f"The template uses {name}, which is not a parameter."
    return Finding("error", "undeclared_parameter", message, file, line, field=name, hint=hint)


def _line_of(word: str, text: str) -> int:
    match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _invented(metadata: Metadata) -> Parameters:
    return Parameters({parameter.name: _sample(parameter) for parameter in metadata.parameters})


def _sample(parameter: Parameter) -> Any:
    if parameter.default is not None:
        return parameter.default
    if parameter.type in {"integer", "number"}:
        return next((b for b in (parameter.minimum, parameter.maximum) if b is not None), 1)
    if parameter.type == "choice":
        return parameter.choices[0]
    return {"boolean": False, "list": [INVENTED]}.get(parameter.type, INVENTED)


class _SourceLines:
    """Finds for a line of rendered text the line of the template that it came from, as well as can be."""

    def __init__(self, source: str, rendered: str) -> None:
        self._source = source.splitlines()
        self._rendered = rendered.splitlines()
        size = len(self._source) * len(self._rendered)
        self._blocks = (
            difflib.SequenceMatcher(None, self._source, self._rendered, autojunk=False).get_opcodes()
            if self._source != self._rendered and size <= _MAX_ALIGNED
            else []
        )

    def line(self, line: int) -> int:
        """The template's line for ``line`` of what was rendered, both from 1."""
        for kind, start, end, first, last in self._blocks:
            if not first < line <= last:
                continue
            if kind == "equal":
                return start + line - first
            nearest = range(start, min(end, start + _MAX_COMPARED)) or range(start, start + 1)
            inside = [n for n in nearest if n < len(self._source)]
            result = self._rendered[line - 1]
            return 1 + max(inside, key=lambda n: _likeness(self._source[n], result), default=start - 1)
        return max(1, min(line, len(self._source)))


def _likeness(source: str, result: str) -> tuple[int, float]:
    """How well ``result`` may have come from ``source``: its literal beginning first, then the rest."""
    literal = re.split(r"\{[{%]", source, maxsplit=1)[0]
    beginning = len(literal) if result.startswith(literal) else 0
    return beginning, difflib.SequenceMatcher(None, source[:200], result[:200], autojunk=False).ratio()


def _part_findings(egg: Egg, rendered: Mapping[str, str]) -> list[Finding]:
    findings: list[Finding] = []
    source = egg.files[METADATA].decode()
    for key, raws in rendered_parts(egg, rendered).items():
        for index, raw in enumerate(raws):
            try:
                if key == "checks":
                    parse_check(raw)
                else:
                    parse_volume(raw)
            except InvalidInput as error:
                line = _line_of(f'"{key}"', source)
                field = f"{key}.{index}"
                findings.append(
                    Finding("error", error.code, error.message, METADATA, line, field=field, hint=error.hint)
                )
    return findings
