"""Names in catalogues: what they may be, and what the clients make of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from iceshelves.core.errors import InvalidInput

#: Debian's names of architectures, and the kernel's that images carry (incus: ``shared/osarch``).
ARCHITECTURES: Final[Mapping[str, str]] = {
    "amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "i386": "i686",
    "ppc64el": "ppc64le", "riscv64": "riscv64", "s390x": "s390x",
}  # fmt: skip

#: The metadata item of each family; neither client reads the other's.
METADATA: Final[Mapping[str, str]] = {"incus": "incus.tar.xz", "lxd": "lxd.tar.xz"}
SQUASHFS: Final = "squashfs"
DISK: Final = "disk-kvm.img"
DELTA: Final = "squashfs.vcdiff"

#: Root items in the order in which the clients prefer them, and the member of the metadata item that
#: holds the fingerprint of the image that each makes.
COMBINED: Final[Mapping[str, str]] = {
    "squashfs": "combined_squashfs_sha256",
    "root.tar.xz": "combined_rootxz_sha256",
    "disk-kvm.img": "combined_disk-kvm-img_sha256",
    "uefi1.img": "combined_uefi1-img_sha256",
    "disk1.img": "combined_disk1-img_sha256",
}
_DISKS: Final = frozenset({"disk-kvm.img", "uefi1.img", "disk1.img"})

CONTAINER: Final = "container"
VIRTUAL_MACHINE: Final = "virtual-machine"

SHA256: Final = re.compile(r"[0-9a-f]{64}")
ITEM_PATH: Final = re.compile(r"(?:\.\./){0,4}images/[0-9a-f]{64}(?:\.[a-z0-9]{1,16}){1,4}")
STREAM_PATH: Final = re.compile(r"streams/v1/[a-z0-9](?:[a-z0-9_-]|\.(?!\.)){0,100}\.json")
APPLIANCE: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
CHANNEL: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")
SERVICE_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")
_ALIAS_REST: Final = re.compile(r"[/:][0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")
_NUMBERS: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
#: Folders beside the channels' in a tree.
_RESERVED: Final = frozenset({"images", "streams"})

SERIAL: Final = re.compile(r"[0-9]{8}_[0-9]{4}")
_SERIAL_FORMAT: Final = "%Y%m%d_%H%M"
_VERSION_KEY: Final = re.compile(r"[0-9]{8}(?:[0-9A-Za-z_.:-]{0,40})?")


def image_type(root: str) -> str:
    """``container`` or ``virtual-machine``: what an image with a root item of type ``root`` becomes."""
    return VIRTUAL_MACHINE if root in _DISKS else CONTAINER


def check_channel(name: str) -> str:
    """``name`` if a channel can be called so.  Raises :class:`InvalidInput` ``invalid_channel``."""
    if not CHANNEL.fullmatch(name) or name in _RESERVED or name in ARCHITECTURES:
        raise InvalidInput(
            f"{name[:80]!r} cannot be the name of a channel.",
            code="invalid_channel",
            hint="Use up to 32 of a-z, 0-9 and '-', starting with a letter, such as stable or testing.",
        )
    return name


def check_alias(alias: str, appliance: str, version: str) -> str:
    """``alias`` if it may name this ``version`` of ``appliance`` besides the aliases it has anyway.

    It starts with the appliance's name, so that no two appliances ever want the same one; it does not end
    with an architecture, since clients make ``ALIAS/ARCHITECTURE`` themselves; and numbers in it are the
    first of the version's.  Raises :class:`InvalidInput` ``invalid_alias`` and ``misleading_alias``.
    """
    rest = alias.removeprefix(appliance)
    if rest == alias or not _ALIAS_REST.fullmatch(rest) or rest[1:] in ARCHITECTURES:
        raise InvalidInput(
            f"{alias[:120]!r} cannot be an alias of the appliance {appliance!r}.",
            code="invalid_alias",
            hint=f"Write {appliance}/ and a word, such as {appliance}/lts; no architecture.",
        )
    if _NUMBERS.fullmatch(rest[1:]) and not f"{version}.".startswith(f"{rest[1:]}."):
        raise InvalidInput(
            f"The alias {alias!r} would name version {version}.",
            code="misleading_alias",
            hint=f"Numbers in an alias are the first of the version's, such as {appliance}/{version}.",
        )
    return alias


def check_service_version(version: str) -> str:
    """``version`` if an alias can end with it.  Raises :class:`InvalidInput` ``invalid_service_version``."""
    if not SERVICE_VERSION.fullmatch(version) or version in ARCHITECTURES:
        raise InvalidInput(
            f"{version[:80]!r} cannot be the version of an appliance.",
            code="invalid_service_version",
            hint="Use up to 64 letters, digits and any of . + ~ _ -, such as 1.22.1.",
        )
    return version


def read_serial(serial: str) -> datetime:
    """The moment that a serial such as ``20261120_0729`` means, in UTC.

    Raises :class:`InvalidInput` ``invalid_serial``.
    """
    if SERIAL.fullmatch(serial):
        with suppress(ValueError):  # the 31st of February
            return datetime.strptime(serial, _SERIAL_FORMAT).replace(tzinfo=UTC)
    raise InvalidInput(
        f"{serial[:40]!r} is not an image's serial.",
        code="invalid_serial",
        hint="Write the UTC time as YYYYMMDD_HHMM, such as 20261120_0729.",
    )


def serial_at(moment: datetime) -> str:
    """The serial of ``moment``."""
    return moment.astimezone(UTC).strftime(_SERIAL_FORMAT)


def next_serial(serial: str) -> str:
    """The serial one minute later."""
    return serial_at(read_serial(serial) + timedelta(minutes=1))


def is_version_key(key: str) -> bool:
    """Whether clients see a version called so: it begins with a date (incus: ``Products.ToAPI``)."""
    return _VERSION_KEY.fullmatch(key) is not None and _is_date(key[:8])


@functools.lru_cache(maxsize=1024)
def _is_date(digits: str) -> bool:
    try:
        datetime.strptime(digits, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
