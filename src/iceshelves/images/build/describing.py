"""What an image says of itself, and how the settings of an instance reach its guest."""

from __future__ import annotations

import time
from typing import Final

from iceshelves.appliances.model import Recipe
from iceshelves.images.build.lock import Lock
from iceshelves.images.build.sources import DISTRIBUTIONS
from iceshelves.images.metadata import ImageMetadata, Template

#: Debian's names to the kernel's, which is what Incus and LXD go by
ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "aarch64"}

_SEED: Final = "/var/lib/cloud/seed/nocloud-net"
_HOSTNAME: Final = "{{ container.name }}\n"
_HOSTS: Final = """\
127.0.0.1 localhost
127.0.1.1 {{ container.name }}
::1 localhost ip6-localhost ip6-loopback
"""
_META_DATA: Final = """\
instance-id: {{ container.name }}
local-hostname: {{ container.name }}
{{ config_get("user.meta-data", "") }}
"""
_EMPTY: Final = "#cloud-config\n{}"
_DHCP: Final = "version: 2\nethernets:\n  eth0: {dhcp4: true}"
_PARTS: Final = {"user-data": _EMPTY, "vendor-data": _EMPTY, "network-config": _DHCP}


def serial(epoch: int) -> str:
    """The moment ``epoch`` as images are numbered: ``YYYYMMDD_HHMM`` in UTC."""
    return time.strftime("%Y%m%d_%H%M", time.gmtime(epoch))


def describe(recipe: Recipe, lock: Lock, version: str) -> ImageMetadata:
    """The metadata of the image that ``recipe`` and ``lock`` give."""
    facts = DISTRIBUTIONS[lock.distribution]
    templates = {"/etc/hostname": Template("hostname.tpl"), "/etc/hosts": Template("hosts.tpl")}
    if recipe.cloud_init:
        templates |= {f"{_SEED}/{part}": Template(f"{part}.tpl") for part in ("meta-data", *_PARTS)}
    return ImageMetadata(
        ARCHITECTURES[lock.architecture],
        lock.epoch,
        properties={
            "os": facts.title,
            "release": lock.release,
            "variant": recipe.name,
            "architecture": lock.architecture,
            "version": version,
            "description": f"{recipe.title or recipe.name} {version} on {facts.title} {lock.release}",
            "serial": serial(lock.epoch),
        },
        templates=templates,
    )


def template_files(recipe: Recipe) -> dict[str, bytes]:
    """The templates that :func:`describe` names.

    Each part of cloud-init's seed comes from ``cloud-init.PART``, else from the older ``user.PART``, else it
    is empty (user-data, vendor-data) or DHCP on eth0 (network-config).
    """
    files = {"hostname.tpl": _HOSTNAME, "hosts.tpl": _HOSTS}
    if recipe.cloud_init:
        files["meta-data.tpl"] = _META_DATA
        files |= {f"{part}.tpl": _seed(part, default) for part, default in _PARTS.items()}
    return {name: text.encode() for name, text in files.items()}


def _seed(part: str, default: str) -> str:
    new, old = f'config_get("cloud-init.{part}", "")', f'config_get("user.{part}", "")'
    return (
        f'{{% if {new} != "" %}}{{{{ {new} }}}}'
        f'{{% elif {old} != "" %}}{{{{ {old} }}}}'
        f"{{% else %}}{default}\n{{% endif %}}\n"
    )
