"""Secrets in a built tree: what every instance of an image would share, with all who can read the image.

The tree is read without following a link.  A finding stops the build, unless the recipe allows it and says
why.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.appliances.model import AllowedSecret
from iceshelves.core.errors import InvalidInput

_MAX_READ: Final = 4 * 1024 * 1024
_MAX_LEAKS: Final = 100
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that no image should hold.  ``path`` is absolute in the image, ``rule`` a stable name."""

    path: str
    rule: str
    message: str
    hint: str


@dataclass(frozen=True)
class _Rule:
    """``places`` are patterns of paths; without ``found`` a file there that is not empty is a leak."""

    name: str
    message: str
    hint: str
    places: tuple[str, ...] = ("/*",)
    found: Callable[[bytes], bool] | None = None

    @functools.cached_property
    def place(self) -> re.Pattern[str]:
        """All places in one pattern: there are many files to compare with it."""
        return re.compile("|".join(fnmatch.translate(place) for place in self.places))


def _any(*patterns: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(b"|".join(patterns), re.MULTILINE)
    return lambda content: compiled.search(content) is not None


def _private_key(content: bytes) -> bool:
    """A key with its body: programs hold the first line alone to compare with, or keys to test themselves."""
    if content.startswith(_PROGRAM):
        return False
    if b"PRIVATE KEY" in content and _PEM.search(content):
        return True
    return any(mark in content for mark in (b"AGE-SECRET-KEY-1", b"PuTTY-User-Key-File-")) and (
        _OTHER_KEYS.search(content) is not None
    )


def _open_account(content: bytes) -> bool:
    """Whether shadow(5) has a hash, locked or not, or lets somebody in without a password."""
    for line in content.decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) > 1 and (fields[1] == "" or fields[1].strip("!*") not in ("", "x")):
            return True
    return False


_PEM: Final = re.compile(
    rb"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----\r?\n"
    rb"(?:[A-Za-z-]{1,40}: [^\n]{0,200}\n){0,10}\r?\n?[A-Za-z0-9+/=]{32,}"
)
_PROGRAM: Final = b"\x7fELF"
_OTHER_KEYS: Final = re.compile(rb"AGE-SECRET-KEY-1[0-9A-Z]{58}|PuTTY-User-Key-File-[23]: \S+")
_HOMES: Final = ("/root/", "/home/*/", "/var/lib/*/", "/opt/*/", "/srv/*/")
#: configuration and data, not the programs that packages bring
_SETTINGS: Final = ("/etc/*", "/root/*", "/home/*", "/opt/*", "/srv/*", "/usr/local/*", "/var/lib/*")
_DEFAULTS: Final = (
    rb"(?:admin|administrator|password|passw0rd|changeme|change_me|secret|letmein|123456|12345678|root|toor"
    rb"|guest|default|test|postgres|redis|grafana|minioadmin|rabbitmq|mysql|example)"
)
_NAMES: Final = rb"[a-z0-9_.-]{0,40}(?:password|passwd|passphrase|requirepass|secret_key)[a-z0-9_.-]{0,20}"


def _in_homes(*names: str) -> tuple[str, ...]:
    return tuple(home + name for home in _HOMES for name in names)


_RULES: Final = (
    _Rule(
        "host_key",
        "an SSH host key: every instance would be the same host",
        "Remove it in an action; systems make theirs at the first start.",
        ("/etc/ssh/ssh_host_*_key", "/etc/dropbear/dropbear_*_host_key"),
    ),
    _Rule(
        "snakeoil_key",
        "the key of a self-signed certificate, made while the image was built",
        "Delete key and certificate in an action, and make them in first_boot.",
        ("/etc/ssl/private/ssl-cert-snakeoil.key",),
    ),
    _Rule(
        "private_key",
        "a private key that every instance would share",
        "Generate it in first_boot, or pass it to the instance when it is created.",
        found=_private_key,
    ),
    _Rule(
        "machine_id",
        "an identity that every instance would share",
        "Leave /etc/machine-id empty.",
        ("/etc/machine-id", "/var/lib/dbus/machine-id"),
    ),
    _Rule(
        "password_hash",
        "an account with a password, or with none where one is needed",
        "Lock the account (passwd --lock after --delete), or set its password in first_boot.",
        ("/etc/shadow", "/etc/shadow-"),
        _open_account,
    ),
    _Rule(
        "default_password",
        "a setting with a password that everybody knows",
        "Take it from an environment variable with 'secret: true', which is generated at the first boot.",
        _SETTINGS,
        _any(
            rb"(?i)^[ \t]*(?:export[ \t]+)?[\"']?" + _NAMES + rb"[\"']?(?:[ \t]*[:=][ \t]*|[ \t]+)[\"']?"
            + _DEFAULTS + rb"[\"']?[ \t]*[;,]?[ \t]*\r?$"
        ),
    ),
    _Rule(
        "authorized_keys",
        "a key with which somebody could log in to every instance",
        "Give keys to instances by cloud-init.",
        ("*/.ssh/authorized_keys*", "/etc/ssh/authorized_keys*"),
        _any(rb"^(?:[^#\n]{0,500}[ \t])?(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+ AAAA"),
    ),
    _Rule(
        "token",
        "what looks like a token of a known service",
        "Pass it to the instance when it is created.",
        _SETTINGS,
        _any(
            rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
            rb"\bgh[pousr]_[A-Za-z0-9]{36}\b",
            rb"\bgithub_pat_[A-Za-z0-9_]{50,}\b",
            rb"\bglpat-[A-Za-z0-9_-]{20,}",
            rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
            rb"\bsk_live_[A-Za-z0-9]{16,}",
            rb"\bAIza[0-9A-Za-z_-]{35}\b",
            rb"\bnpm_[A-Za-z0-9]{36}\b",
            rb"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{20,}",
            rb"\bdop_v1_[a-f0-9]{64}\b",
            rb"\bhvs\.[A-Za-z0-9_-]{20,}",
        ),
    ),
    _Rule(
        "password_in_url",
        "an address with a password in it",
        "Pass it to the instance when it is created.",
        ("/etc/*", "/root/*", "/home/*", "/usr/local/*"),
        _any(rb"^[^#\n]{0,400}\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>$%{}]{1,64}:[^\s/:@\"'<>$%{}]{3,128}@[a-z0-9\[]"),
    ),
    _Rule(
        "wireguard_key",
        "a WireGuard key that every instance would share",
        "Generate it in first_boot.",
        ("/etc/wireguard/*", "/etc/systemd/network/*"),
        _any(rb"^[ \t]*(?:PrivateKey|PresharedKey)[ \t]*=[ \t]*[A-Za-z0-9+/]{43}="),
    ),
    _Rule(
        "credentials_file",
        "a file in which a tool keeps credentials",
        "Remove it in an action.",
        (
            *_in_homes(
                ".aws/credentials", ".azure/*.json", ".config/gcloud/*", ".kube/config",
                ".docker/config.json",
                ".netrc", ".pgpass", ".my.cnf", ".git-credentials", ".npmrc", ".pypirc", ".vault-token",
                ".gnupg/private-keys-v1.d/*", ".gnupg/secring.gpg",
            ),
            "/etc/apt/auth.conf", "/etc/apt/auth.conf.d/*", "/etc/krb5.keytab", "/etc/cloud/credentials*",
        ),
    ),
    _Rule(
        "history",
        "what somebody typed",
        "Remove it in an action.",
        _in_homes(
            ".bash_history", ".ash_history", ".zsh_history", ".python_history", ".psql_history",
            ".mysql_history",
        ),
    ),
    _Rule(
        "random_seed",
        "a random seed that every instance would share",
        "Remove it in an action.",
        (
            "/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret",
            "/var/lib/urandom/random-seed",
        ),
    ),
)  # fmt: skip


def find_leaks(tree: Path, allowed: Iterable[AllowedSecret] = ()) -> list[Leak]:
    """What :func:`check_tree` would refuse, at most a hundred of them, in order of path."""
    accepted = tuple(allowed)
    leaks: list[Leak] = []
    for path, descriptor in _regular_files(tree):
        rules = [rule for rule in _RULES if rule.place.match(path)]
        content = os.read(descriptor, _MAX_READ) if rules else b""
        for rule in rules:
            if content and (rule.found is None or rule.found(content)):
                leak = Leak(path, rule.name, rule.message, rule.hint)
                if not any(_allows(each, leak) for each in accepted):
                    leaks.append(leak)
                break  # one finding a file is enough to mend it
        if len(leaks) >= _MAX_LEAKS:
            break
    return sorted(leaks, key=lambda leak: leak.path)


def check_tree(tree: Path, allowed: Iterable[AllowedSecret] = ()) -> None:
    """Raises :class:`InvalidInput` (``secret_in_image``; ``details``: leaks) when the tree holds a secret."""
    leaks = find_leaks(tree, allowed)
    if not leaks:
        return
    named = "; ".join(f"{leak.path}: {leak.message}" for leak in leaks[:_SHOWN])
    more = f"; and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
    raise InvalidInput(
        f"The image would hold secrets: {named}{more}.",
        code="secret_in_image",
        hint=f"{leaks[0].hint}  What is no secret can be listed under allow_secrets, with the reason.",
        details={
            "leaks": [
                {"path": leak.path, "rule": leak.rule, "message": leak.message, "hint": leak.hint}
                for leak in leaks
            ]
        },
    )


def _regular_files(tree: Path) -> Iterator[tuple[str, int]]:
    """Path in the image and open descriptor of each file; closed when the next one is asked for."""
    for where, folders, files, descriptor in os.fwalk(tree, follow_symlinks=False):
        folders.sort()
        inside = "/" + os.path.relpath(where, tree).removeprefix(".").lstrip("/")
        for name in sorted(files):
            if not stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                continue
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor)
            try:
                yield f"{inside.rstrip('/')}/{name}", opened
            finally:
                os.close(opened)


def _allows(allowed: AllowedSecret, leak: Leak) -> bool:
    return allowed.rule in (None, leak.rule) and fnmatch.fnmatchcase(leak.path, allowed.path)
