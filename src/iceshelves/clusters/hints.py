"""Hints that can be pasted: with the cluster's own name, and in the words of its own family's client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from iceshelves.core.errors import IceShelvesError
from iceshelves.store.models import Cluster

_COMMAND: Final = re.compile("(iceshelves cluster [a-z-]+) NAME")
_INCUS: Final = re.compile(r"\bincus (info|config (?!trust))")


def fitted(words: str, name: str, family: str) -> str:
    """``words`` for the cluster ``name``; those who wrote them know neither it nor its ``family``."""
    named = _COMMAND.sub(rf"\1 {name}", words)
    return _in_lxds_words(named) if family == "lxd" else named


def _in_lxds_words(words: str) -> str:
    if "on LXD" in words:  # it has both already
        return words
    trusting = words.replace("incus config trust add-certificate FILE", "lxc config trust add FILE")
    return _INCUS.sub(r"lxc \1", trusting)


@contextmanager
def hints_for(cluster: Cluster) -> Iterator[None]:
    """The errors that are raised within get hints for ``cluster``."""
    try:
        yield
    except IceShelvesError as error:
        if error.hint:
            error.hint = fitted(error.hint, cluster.name, cluster.provider)
        raise
