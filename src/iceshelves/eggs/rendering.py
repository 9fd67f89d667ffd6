"""From an egg, its parameters and overrides to everything that a deployment needs, checked once more."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from iceshelves.core.bounded import KeyPath
from iceshelves.core.errors import InvalidInput
from iceshelves.core.finding import Finding
from iceshelves.eggs.checks import parse_check, parse_volume
from iceshelves.eggs.cloudconfig import merge_cloud_config
from iceshelves.eggs.metadata import is_amount, is_template
from iceshelves.eggs.model import KVM_CONFIG, LXD_PROFILE, METADATA, USER_DATA, Check, Egg, Profile, Volume
from iceshelves.eggs.parameters import Parameters
from iceshelves.eggs.profile import check_kvm_config, config_text, read_profile
from iceshelves.eggs.sandbox import render_templates
from iceshelves.eggs.userdata import judge

# Name spaces of instance configuration in LXD and Incus (doc/reference/instance_options).
_INSTANCE_NAMESPACES: Final = frozenset({
    "agent", "boot", "cloud-init", "cluster", "environment", "image", "limits", "linux", "migration",
    "nvidia", "oci", "placement", "raw", "security", "smbios11", "snapshots", "ubuntu_pro", "user",
})  # fmt: skip
_USER_DATA_KEYS: Final = ("cloud-init.user-data", "user.user-data")
_CONFIG_KEY: Final = re.compile(r"[a-z0-9_-]+(?:\.[A-Za-z0-9_./-]+)+")


@dataclass(frozen=True)
class Rendered:
    """What becomes of an egg at one instance.

    ``limits`` come from the egg's requirements (``limits.memory``, ``limits.cpu``) and ``instance_config``
    from the overrides, which win; ``root_size`` is the least size of the root disk, such as ``10GiB``.
    ``warnings`` are findings that stopped nothing.
    """

    name: str
    version: str
    digest: str
    user_data: str = field(repr=False)
    egg_type: str = "lxd-container"
    base_image: str | None = None
    limits: Mapping[str, str] = field(default_factory=dict)
    root_size: str | None = None
    instance_config: Mapping[str, str] = field(default_factory=dict, repr=False)
    profile: Profile | None = field(default=None, repr=False)
    kvm_config: str | None = field(default=None, repr=False)
    checks: tuple[Check, ...] = ()
    volumes: tuple[Volume, ...] = ()
    warnings: tuple[Finding, ...] = ()


def render(
    egg: Egg,
    parameters: Parameters,
    overrides: Mapping[str, Any] | None = None,
    *,
    release: str | None = None,
    instance_name: str | None = None,
) -> Rendered:
    """Everything that ``egg`` says about one instance.

    ``user_data`` is byte-exact when the egg asks for no rendering and nothing overrides it.  ``release`` (or
    the egg's base image) chooses cloud-init's schema for ``warnings``; ``instance_name`` is the template
    variable ``instance.name`` (the egg's name if not given).  Raises :class:`InvalidInput`, with file and
    line, when a template fails or what comes out would not work.
    """
    texts = rendered_texts(egg, parameters, instance_name or egg.name)
    config, cloud = split_overrides(overrides or {})
    user_data = next((config.pop(key) for key in _USER_DATA_KEYS if key in config), texts[USER_DATA])
    if cloud:
        user_data = merge_cloud_config(user_data, cloud, lists=egg.metadata.merge)
    warnings = _check_user_data(user_data, release or egg.metadata.base_image)
    parts = rendered_parts(egg, texts)
    limits, root_size = _limits(egg.metadata.requirements)
    return Rendered(
        name=egg.name,
        version=str(egg.version),
        digest=egg.digest,
        user_data=user_data,
        egg_type=egg.metadata.egg_type,
        base_image=egg.metadata.base_image,
        limits={key: value for key, value in limits.items() if key not in config},
        root_size=root_size,
        instance_config=config,
        profile=_profile(texts.get(LXD_PROFILE)),
        kvm_config=_kvm_config(texts.get(KVM_CONFIG)),
        checks=tuple(parse_check(raw) for raw in parts["checks"]),
        volumes=tuple(parse_volume(raw) for raw in parts["volumes"]),
        warnings=tuple(warnings),
    )


def rendered_texts(egg: Egg, parameters: Parameters, instance_name: str) -> dict[str, str]:
    """The egg's own files as text, and texts of checks and volumes by path, rendered where it asks for it.

    Raises :class:`InvalidInput`.
    """
    texts = {name: _text(egg, name) for name in (USER_DATA, LXD_PROFILE, KVM_CONFIG) if name in egg.files}
    templates = template_texts(egg, texts)
    return texts | render_templates(templates, parameters, instance_name)


def template_texts(egg: Egg, texts: Mapping[str, str]) -> dict[str, str]:
    """What is to be rendered: of ``texts`` the files that the egg names, and templates in its metadata."""
    if egg.metadata.rendering == "none":
        return {}
    templates = {name: texts[name] for name in egg.metadata.rendered_files if name in texts}
    for path, text in _leaves(egg):
        if is_template(text):
            templates[_label(path)] = text
    return templates


def rendered_parts(egg: Egg, texts: Mapping[str, str]) -> dict[str, list[Mapping[str, Any]]]:
    """The raw checks and volumes of ``egg`` with rendered texts in their places."""
    parts = {"checks": list(egg.metadata.checks), "volumes": list(egg.metadata.volumes)}
    parts = copy.deepcopy(parts)
    for path, _ in _leaves(egg):
        label = _label(path)
        if label in texts:
            holder: Any = parts
            for part in path[:-1]:
                holder = holder[part]
            holder[path[-1]] = texts[label]
    return parts


def split_overrides(overrides: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """``overrides`` as instance configuration (keys with a name space, as text) and cloud-config (the rest).

    Raises :class:`InvalidInput` (``invalid_overrides``).
    """
    config: dict[str, str] = {}
    cloud: dict[str, Any] = {}
    for key, value in overrides.items():
        if "." not in key:
            cloud[key] = value
            continue
        if key.split(".", 1)[0] not in _INSTANCE_NAMESPACES or not _CONFIG_KEY.fullmatch(key):
            raise InvalidInput(
                f"The override {key[:80]!r} is neither instance configuration nor cloud-config.",
                code="invalid_overrides",
                hint="Examples: limits.cpu, security.nesting, or a cloud-config key such as packages.",
            )
        if not isinstance(value, str | int | float):
            raise InvalidInput(
                f"The override {key} must be a text, number or boolean.", code="invalid_overrides"
            )
        config[key] = config_text(value)
    return config, cloud


def _leaves(egg: Egg) -> Iterator[tuple[KeyPath, str]]:
    waiting: list[tuple[KeyPath, Any]] = [
        (("checks",), egg.metadata.checks),
        (("volumes",), egg.metadata.volumes),
    ]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, Mapping):
            waiting.extend(((*path, key), child) for key, child in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend(((*path, index), child) for index, child in enumerate(value))


def _label(path: KeyPath) -> str:
    return f"{METADATA} ({'.'.join(map(str, path))})"


def _text(egg: Egg, name: str) -> str:
    try:
        return egg.files[name].decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidInput(
            f"{name}, line {line}: this is not UTF-8 text.",
            code="not_utf8",
            hint="Save the file as UTF-8.",
            details={"file": name, "line": line},
        ) from error


def _check_user_data(user_data: str, release: str | None) -> list[Finding]:
    document, findings = judge(user_data, USER_DATA)
    _refuse_errors(findings)
    if document is not None:
        from iceshelves.eggs.schema import schema_findings  # here: the command line rarely comes this way

        findings += schema_findings(document, USER_DATA, release)
    return findings


def _profile(text: str | None) -> Profile | None:
    if text is None:
        return None
    profile, findings = read_profile(text)
    _refuse_errors(findings)
    return profile


def _kvm_config(text: str | None) -> str | None:
    if text is not None:
        _refuse_errors(check_kvm_config(text))
    return text


def _refuse_errors(findings: list[Finding]) -> None:
    for finding in findings:
        if finding.level == "error":
            raise InvalidInput(
                f"{finding.file}, line {finding.line}: {finding.message}",
                code=finding.code,
                hint=finding.hint,
                details={"file": finding.file, "line": finding.line, "field": finding.field},
            )


def _limits(requirements: Mapping[str, Any]) -> tuple[dict[str, str], str | None]:
    amounts = {
        key: int(value)
        for key, value in requirements.items()
        if key in {"min_memory_mb", "min_cores", "min_disk_gb"} and is_amount(value) and value >= 1
    }
    limits: dict[str, str] = {}
    if "min_memory_mb" in amounts:
        limits["limits.memory"] = f"{amounts['min_memory_mb']}MiB"
    if "min_cores" in amounts:
        limits["limits.cpu"] = str(amounts["min_cores"])
    disk = amounts.get("min_disk_gb")
    return limits, f"{disk}GiB" if disk else None
