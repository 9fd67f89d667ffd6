"""Catalogues as values.  Only what clients read is kept; members that they ignore are ignored here too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Item:
    """A file of a version.  ``path`` is relative to the view's URL, ``size`` in bytes.

    ``combined`` is a metadata item's alone: the fingerprint for each type of root item beside it.
    ``delta_base`` is a delta's alone: the key of the version of the same product that it starts from.
    """

    ftype: str
    path: str
    sha256: str
    size: int
    combined: Mapping[str, str] = field(default_factory=dict)
    delta_base: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A build.  ``key`` begins with its date and sorts as text; ``label`` is shown to users."""

    key: str
    items: Mapping[str, Item]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Product:
    """Builds of one kind: aliases and requirements belong to all of them together."""

    key: str
    aliases: tuple[str, ...]
    architecture: str
    os: str
    release: str
    variant: str
    versions: Mapping[str, Version]
    version: str = ""
    requirements: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A file of products."""

    products: tuple[Product, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """A catalogue as its index names it; clients skip one without products."""

    name: str
    path: str
    products: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """The catalogues of one view."""

    streams: tuple[Stream, ...]
