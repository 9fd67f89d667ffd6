"""What makes a tree of Debian packages a system that starts in Incus, LXD or QEMU and gets an address there.

Runs with the tree as root, so every path here is one of the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from iceshelves.images.build.job import Source
from iceshelves.images.build.sources import sources_list

#: raised when anything here, in ``base`` or in ``normalise`` changes what a tree holds
REVISION: Final = 1

#: where a release has no package of such a name (systemd-resolved was a part of systemd), it goes without.
#: usr-is-merged stands in for a package that would merge /usr, and brings all of perl
PACKAGES: Final = ("usr-is-merged", "systemd-sysv", "systemd-resolved", "dbus", "netbase", "iproute2")
CLOUD_INIT_PACKAGES: Final = ("cloud-init", "udev", "ca-certificates")

ENABLED: Final = ("systemd-networkd.service", "systemd-resolved.service")
MASKED: Final = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_reap.service")

_HOSTS: Final = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
# The image has no locale but C.UTF-8; cloud-init's own default, en_US.UTF-8, would fail.
_CLOUD_INIT: Final = "datasource_list: [NoCloud, None]\nlocale: C.UTF-8\nssh_genkeytypes: [ed25519]\n"
# "Online" is when any link has an address that reaches further than itself; an instance without a network
# card must not wait for the usual two minutes.
_WAIT_ONLINE: Final = """\
[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --operational-state=routable --timeout=20
"""
_NETWORK: Final = """\
[Match]
Type=ether

[Network]
DHCP=yes
"""
_POLICY: Final = "#!/bin/sh\n# No service starts while an image is built.\nexit 101\n"
POLICY: Final = "usr/sbin/policy-rc.d"


def configure(root: Path, sources: tuple[Source, ...], cloud_init: bool) -> None:
    """Write the settings that all images of a base share; ``sources`` are the official ones."""
    write(root / "etc/apt/sources.list", sources_list(sources))
    for left in ("99mmdebstrap", "90image"):
        (root / "etc/apt/apt.conf.d" / left).unlink(missing_ok=True)
    write(root / "etc/default/locale", "LANG=C.UTF-8\n")
    write(root / "etc/hosts", _HOSTS)
    write(root / "etc/systemd/system/systemd-networkd-wait-online.service.d/image.conf", _WAIT_ONLINE)
    if cloud_init:
        write(root / "etc/cloud/cloud.cfg.d/90_image.cfg", _CLOUD_INIT)
    else:
        write(root / "etc/systemd/network/90-image.network", _NETWORK)
    resolver = root / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")


def forbid_starting(root: Path) -> None:
    """Make package scripts start no service, whatever they call for it."""
    write(root / POLICY, _POLICY)
    (root / POLICY).chmod(0o755)


def write(path: Path, text: str) -> None:
    """A plain file with this text and nothing that was there before, its folders made where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o644)
