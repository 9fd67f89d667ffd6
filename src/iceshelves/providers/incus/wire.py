"""How our values look in the daemon's JSON: marks as ``user.*`` configuration, instances, root disks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from iceshelves.core.errors import InvalidInput
from iceshelves.providers.base import Instance, InstanceKind, InstanceSpec, Mark, PowerState

_PREFIX: Final = "user.iceshelves."
STATE: Final = _PREFIX + "state"
#: on an instance that waits to take another's place: that one's name
REPLACES: Final = _PREFIX + "replaces"
BUILT, REBUILDING = "built", "rebuilding"

_POWER: Final[Mapping[str, PowerState]] = {
    "Running": "running",
    "Ready": "running",
    "Stopped": "stopped",
    "Frozen": "frozen",
    "Error": "error",
}
#: kept by the daemon itself, never part of a specification
_DAEMONS_OWN: Final = ("volatile.", "image.")

Devices = dict[str, dict[str, str]]


def mark_to_config(mark: Mark) -> dict[str, str]:
    """``mark`` as configuration keys of an instance or a volume."""
    return {
        _PREFIX + "installation": mark.installation,
        _PREFIX + "deployment": mark.deployment,
        _PREFIX + "operation": mark.operation,
        _PREFIX + "revision": str(mark.revision),
        _PREFIX + "egg": mark.egg,
    }


def adoption_to_config(mark: Mark) -> dict[str, str]:
    """The mark of an adoption: there is no operation, revision or egg to tell of."""
    return {_PREFIX + "installation": mark.installation, _PREFIX + "deployment": mark.deployment}


def is_marked(config: Mapping[str, Any]) -> bool:
    """Whether any key of ours is in ``config``, be it half a mark."""
    return any(key.startswith(_PREFIX) for key in config)


def mark_from_config(config: Mapping[str, Any]) -> Mark | None:
    """The mark in ``config``; ``None`` unless installation and deployment are there."""
    installation, deployment = config.get(_PREFIX + "installation"), config.get(_PREFIX + "deployment")
    if not installation or not deployment:
        return None
    revision = str(config.get(_PREFIX + "revision", ""))
    return Mark(
        installation=str(installation),
        deployment=str(deployment),
        operation=str(config.get(_PREFIX + "operation", "")),
        revision=int(revision) if revision.isdecimal() else 0,
        egg=str(config.get(_PREFIX + "egg", "")),
    )


def instance_from_wire(raw: Mapping[str, Any]) -> Instance:
    """An instance as the daemon describes it.  Its devices include those of its profiles."""
    config: Mapping[str, Any] = raw.get("config") or {}
    kind: InstanceKind = "virtual-machine" if raw.get("type") == "virtual-machine" else "container"
    location = str(raw.get("location") or "")
    return Instance(
        name=str(raw.get("name", "")),
        kind=kind,
        power=_POWER.get(str(raw.get("status")), "unknown"),
        mark=mark_from_config(config),
        architecture=str(raw.get("architecture", "")),
        member=location if location not in ("", "none") else None,
        image=str(config.get("volatile.base_image", "")),
        description=str(raw.get("description", "")),
        settled=config.get(STATE) != REBUILDING,
        # Of instances on a member that is away the daemon lists the name, and neither of these.
        readable=bool(config or raw.get("architecture")),
        config={k: str(v) for k, v in config.items() if not k.startswith((*_DAEMONS_OWN, _PREFIX))},
        devices=raw.get("expanded_devices") or {},
    )


def is_whole(raw: Mapping[str, Any]) -> bool:
    """Whether the creation of the instance ``raw`` came to its end.

    As its last act the daemon notes that templates are to be applied at the first start, which takes the
    note away and leaves another: that it ran.  An instance with neither is what a crash cut off.
    """
    config = raw.get("config") or {}
    return "volatile.apply_template" in config or "volatile.last_state.power" in config


def config_of(spec: InstanceSpec, state: str) -> dict[str, str]:
    """The whole configuration that ``spec`` asks for, with its mark and ``state``."""
    return {**spec.config, **mark_to_config(spec.mark), STATE: state}


def kept_config(config: Mapping[str, str]) -> dict[str, str]:
    """What of an instance's configuration is the daemon's own and survives a new specification."""
    return {key: value for key, value in config.items() if key.startswith(_DAEMONS_OWN)}


def root_device(devices: Mapping[str, Mapping[str, str]]) -> tuple[str, Mapping[str, str]] | None:
    """The name and the options of the root disk in ``devices``."""
    for name, device in devices.items():
        if device.get("type") == "disk" and device.get("path") == "/":
            return name, device
    return None


def devices_of(spec: InstanceSpec, inherited: Mapping[str, Mapping[str, str]]) -> Devices:
    """The instance's own devices: those of ``spec``, and the root disk of ``inherited`` when resized.

    Raises :class:`InvalidInput` ``no_root_disk`` where a size is asked for and nobody gives a root disk.
    """
    own: Devices = {name: dict(device) for name, device in spec.devices.items()}
    if spec.root_size is None:
        return own
    found = root_device(own) or root_device(inherited)
    if found is None:
        raise no_root_disk(spec)
    name, device = found
    own[name] = {**device, "size": f"{spec.root_size}B"}
    return own


def no_root_disk(spec: InstanceSpec) -> InvalidInput:
    """Neither the specification nor its profiles give ``spec`` a root disk."""
    return InvalidInput(
        f"No root disk for {spec.name!r}: profiles {', '.join(spec.profiles)} have none, nor has the egg.",
        code="no_root_disk",
        hint="Add one: incus profile device add default root disk path=/ pool=default (lxc on LXD)",
    )


def successor_of(name: str) -> str:
    """The name under which a replacement of ``name`` waits to take its place; at most 63 characters."""
    return f"{name[:58]}-next"
