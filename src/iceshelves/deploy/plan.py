"""From an egg and a deployer's wishes to a specification: pure, and the one place where they meet.

Precedence, weakest first: the egg's requirements, its profile, what the deployer overrides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from iceshelves.access.policy import Actor, Role
from iceshelves.core.errors import Denied, InvalidInput
from iceshelves.core.names import check_instance_name
from iceshelves.core.units import parse_size
from iceshelves.deploy.spec import USER_DATA_KEY, CheckSpec, DeploymentSpec, VolumeSpec, Wishes
from iceshelves.eggs import Egg, Rendered, render, resolve_parameters
from iceshelves.providers.base import InstanceKind

#: keys of Incus that reach the host's kernel, its drivers, or another guest's ids
_HOST_KEYS: Final = ("raw.", "linux.kernel_modules", "security.syscalls.", "security.idmap.base", "nvidia.")
#: egg types of the original, and what they become here; ``hybrid`` leaves the choice to the deployer
_KINDS: Final[dict[str, InstanceKind]] = {
    "lxd-container": "container",
    "kvm-vm": "virtual-machine",
    "hybrid": "container",
}
_CLOUD_TYPES: Final = frozenset({"aws-ec2", "gcp-vm"})


def make_spec(egg: Egg, instance: str, wishes: Wishes, member: str | None = None) -> DeploymentSpec:
    """The specification.  Raises :class:`InvalidInput` naming the parameter, key or file that is wrong."""
    check_instance_name(instance)
    parameters = resolve_parameters(egg, wishes.parameters)
    rendered = render(egg, parameters, wishes.config_overrides, instance_name=instance)
    return DeploymentSpec(
        instance=instance,
        kind=_kind(egg, wishes),
        egg=f"{egg.name}@{egg.version}",
        image=_image(egg, rendered, wishes),
        config=_config(rendered),
        devices=_devices(rendered),
        profiles=wishes.profiles if wishes.profiles is not None else ("default",),
        volumes=tuple(VolumeSpec(**dataclasses.asdict(volume)) for volume in rendered.volumes),
        checks=tuple(CheckSpec(**dataclasses.asdict(check)) for check in rendered.checks),
        member=member,
        root_size=parse_size(rendered.root_size) if rendered.root_size else None,
        secrets=tuple(parameters.secrets),
        wishes=wishes,
    )


def _kind(egg: Egg, wishes: Wishes) -> InstanceKind:
    egg_type = egg.metadata.egg_type
    if egg_type in _CLOUD_TYPES:
        raise InvalidInput(
            f"The egg {egg.name} is made for {egg_type}, which no cluster here can run.",
            code="egg_type_unsupported",
            hint="Choose an egg of type lxd-container, kvm-vm or hybrid.",
        )
    return wishes.kind or _KINDS.get(egg_type, "container")


def _image(egg: Egg, rendered: Rendered, wishes: Wishes) -> str:
    image = wishes.image or rendered.base_image
    if not image:
        raise InvalidInput(
            f"The egg {egg.name} names no base image.",
            code="image_missing",
            hint="Name one with --image, for example --image debian/13.",
        )
    return image


def _config(rendered: Rendered) -> dict[str, str]:
    profile = dict(rendered.profile.config) if rendered.profile else {}
    return {**rendered.limits, **profile, **rendered.instance_config, USER_DATA_KEY: rendered.user_data}


def _devices(rendered: Rendered) -> dict[str, dict[str, str]]:
    return {name: dict(keys) for name, keys in rendered.profile.devices.items()} if rendered.profile else {}


def check_host_access(actor: Actor, spec: DeploymentSpec) -> None:
    """Refuse what reaches through to the host, unless an administrator asks.

    It is applied to the finished specification, wherever a key came from: an egg, its profile or an override.
    """
    reaches = [*_risky_config(spec.config), *_risky_devices(spec.devices)]
    if reaches and actor.role is not Role.ADMIN:
        raise Denied(
            f"This deployment reaches through to the host: {', '.join(reaches)}.",
            code="host_access_denied",
            hint="Only an administrator may deploy it.",
            details={"keys": reaches},
        )


def _risky_config(config: Mapping[str, str]) -> list[str]:
    # Incus "instance options": raw.* bypasses its checks; a privileged container's root is the host's
    return [
        key
        for key, value in config.items()
        if key.startswith(_HOST_KEYS)
        or (key == "security.privileged" and value.lower() in {"true", "1", "yes", "on"})
    ]


def _risky_devices(devices: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [f"device {name}" for name, device in devices.items() if not _stays_inside(device)]


def _stays_inside(device: Mapping[str, str]) -> bool:
    """Only what is known to stay inside does: networks, storage of a pool, and no device at all.

    To Incus a key with an empty value is a key that is not set.
    """
    match device.get("type"):
        case "none":
            return True
        case "nic":
            return device.get("nictype", "") not in {"physical", "sriov"}
        case "disk":
            return bool(device.get("pool")) or (device.get("path") == "/" and not device.get("source"))
    return False
