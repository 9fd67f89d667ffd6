"""Secrets in the text of a recipe: what is written there is in every image, and known to all who have one.

The tree that a build made is searched as well, by the builder; this finds what can be found before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from iceshelves.appliances.model import AllowedSecret
from iceshelves.core.finding import Finding

_MAX_LINE: Final = 4096
_MAX_TEXT: Final = 1024 * 1024
_MAX_FINDINGS: Final = 50


@dataclass(frozen=True, slots=True)
class _Rule:
    code: str
    pattern: re.Pattern[str]
    message: str
    hint: str


_GENERATE: Final = "Generate it in first_boot, or make it a secret of the environment."
# A value that stands in the text itself, and not for another: no variable, template, path or placeholder.
_LITERAL: Final = (
    r"[\"']?(?![$<{(%!/`\"'#\\]|(?i:true|false|yes|no|on|off|null|none|required|sha256|bcrypt|"
    r"scram-sha-256)\b)[^\s\"',;]{3,}"
)
_RULES: Final = (
    _Rule(
        code="private_key",
        pattern=re.compile(
            r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|AGE-SECRET-KEY-1[0-9A-Z]{20}"
            r"|PuTTY-User-Key-File-"
        ),
        message="A private key would be the same in every instance.",
        hint="Generate it in first_boot.",
    ),
    _Rule(
        code="authorized_keys",
        pattern=re.compile(
            r"\b(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-nistp\d{3}|sk-[a-z0-9-]+@openssh\.com) AAAA"
        ),
        message="Whoever holds this SSH key could enter every instance.",
        hint="Leave it to whoever deploys the appliance.",
    ),
    _Rule(
        code="token",
        pattern=re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{30}|github_pat_\w{20}|glpat-[\w-]{20}|(?:AKIA|ASIA)[0-9A-Z]{16}\b"
            r"|xox[abprs]-[\w-]{10}|sk_live_\w{16}|hvs\.[\w-]{20})"
        ),
        message="This is an access token.",
        hint="Revoke it, and leave it out.",
    ),
    _Rule(
        code="password_hash",
        pattern=re.compile(r"\$(?:1|2[abxy]|5|6|7|y|apr1|argon2id?)\$[./A-Za-z0-9$=,+]{12,}"),
        message="The hash of a password: everybody who knows that password may enter every instance.",
        hint=_GENERATE,
    ),
    _Rule(
        code="password_in_url",
        pattern=re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'$<{]{1,64}:[^\s/@\"'$<{]{1,128}@"),
        message="A URL with a password in it.",
        hint=_GENERATE,
    ),
    _Rule(
        code="default_password",
        pattern=re.compile(
            r"(?i)(?:password|passwd|passphrase|secret|token|api_?key|access_?key)[\"']?"
            rf"\s{{0,8}}(?:=|:|\?=)\s{{0,8}}{_LITERAL}"
        ),
        message="A password that everybody can read.",
        hint=_GENERATE,
    ),
    _Rule(
        code="default_password",
        pattern=re.compile(
            rf"(?i)(?:\brequirepass\s+|\bidentified\s+by\s+|\b(?:role|user)\s.{{0,64}}\bpassword\s+){_LITERAL}"
        ),
        message="A password that everybody can read.",
        hint=_GENERATE,
    ),
    _Rule(
        code="default_password",
        pattern=re.compile(
            r"(?:^|[\s\"'])(?:root|admin|user|guest|postgres|redis):(?!\d)[\w!@#%^*-]{3,64}[\"']?\s*\|"
        ),
        message="A password that everybody can read.",
        hint=_GENERATE,
    ),
)
_MAKES_KEY: Final = re.compile(
    r"\b(?:ssh-keygen\b(?! -[lRF])|openssl\s+(?:genrsa|genpkey|rand)|openssl\s+req\b.{0,200}-(?:newkey|new)"
    r"|make-ssl-cert\b|step\s+ca\s+init|certtool\s+--generate|wg\s+genkey|age-keygen\b|pwgen\b)"
)


def secret_findings(text: str, file: str) -> list[Finding]:
    """What looks like a secret in ``text``, the content of ``file``; one finding a line and rule.

    Of a very long text or line only the beginning is searched.
    """
    found = dict.fromkeys(_found(text, file))
    return list(found)[:_MAX_FINDINGS]


def key_making_findings(script: str, file: str, line: int, field: str) -> list[Finding]:
    """Where ``script``, run while the image is built, makes keys that all instances share.

    ``line`` is where it begins in ``file``.
    """
    return [
        Finding(
            "warning",
            "key_made_at_build",
            "A key made while the image is built is the same in every instance.",
            file,
            line + offset,
            None,
            field,
            "Move it to first_boot.",
        )
        for offset, part in enumerate(script.splitlines())
        if _MAKES_KEY.search(part[:_MAX_LINE]) and not part.lstrip().startswith("#")
    ]


def is_allowed(allowed: AllowedSecret, path: str, rule: str) -> bool:
    """Whether ``allowed`` covers the finding ``rule`` about ``path``, a file of the image or the recipe."""
    return allowed.rule in (None, rule) and fnmatchcase(path, allowed.path)


def _found(text: str, file: str) -> Iterator[Finding]:
    for number, line in enumerate(text[:_MAX_TEXT].splitlines(), 1):
        if _is_comment(line):
            continue
        for rule in _RULES:
            if match := rule.pattern.search(line[:_MAX_LINE]):
                column = match.start() + 1
                yield Finding("error", rule.code, rule.message, file, number, column, None, rule.hint)


def _is_comment(line: str) -> bool:
    """Comments only show how things are written; but a key in a comment is a key all the same."""
    return line.lstrip().startswith(("#", "//", ";")) and "PRIVATE KEY" not in line
