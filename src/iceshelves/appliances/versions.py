"""Versions of packages, and what of them is the version of the service inside."""

from __future__ import annotations

import re
from typing import Final

# Debian policy 5.6.12: [epoch:]upstream[-revision].
_EPOCH: Final = re.compile(r"\A[0-9]+:")
_REVISION: Final = re.compile(r"-[A-Za-z0-9+.~]*\Z")
# What packagers append to the upstream part when they repack, backport or snapshot: 2.42.0+ds, 1.22.1~dfsg2.
_REPACKED: Final = re.compile(r"[+~.](?:ds|dfsg|debian|really|repack|git|deb)[A-Za-z0-9+.~]*\Z")
_STABLE_UPDATE: Final = re.compile(r"\+deb[0-9]+u[0-9]+\Z")


def upstream_version(version: str) -> str:
    """The upstream part of a Debian package's ``version``: ``5:7.0.15-1~deb12u1`` gives ``7.0.15``.

    >>> upstream_version("2.42.0+ds-5+b5")
    '2.42.0'
    """
    upstream = _STABLE_UPDATE.sub("", _REVISION.sub("", _EPOCH.sub("", version, count=1), count=1))
    return _REPACKED.sub("", upstream) or upstream
