"""Catalogues as text.  The same value gives the same text, so an unchanged file need not be written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from iceshelves.images.simplestreams.model import Index, Item, Product, Version
from iceshelves.images.simplestreams.names import COMBINED


def product_text(product: Product) -> str:
    """``"key":{…}``: a product as it stands in its catalogue, without the comma that follows."""
    return f"{_text(product.key)}:{_text(_product(product))}"


def catalogue_text(name: str, products: Iterable[str]) -> str:
    """The catalogue called ``name`` with products as :func:`product_text` gives them, one a line."""
    head = f'{{"content_id":{_text(name)},"datatype":"image-downloads","format":"products:1.0","products":{{'
    return f"{head}\n{_lines(products)}\n}}}}\n"


def index_text(index: Index) -> str:
    """An index."""
    return raw_index_text((stream.name, stream.path, names_text(stream.products)) for stream in index.streams)


def names_text(names: Iterable[str]) -> str:
    """The names of a stream's products, as :func:`raw_index_text` takes them."""
    return ",".join(_text(name) for name in names)


def raw_index_text(streams: Iterable[tuple[str, str, str]]) -> str:
    """An index of streams given by name, path and the text of their products' names."""
    entries = (
        f'{_text(name)}:{{"datatype":"image-downloads","format":"products:1.0",'
        f'"path":{_text(path)},"products":[{names}]}}'
        for name, path, names in streams
    )
    return f'{{"format":"index:1.0","index":{{\n{_lines(entries)}\n}}}}\n'


def _lines(parts: Iterable[str]) -> str:
    return ",\n".join(parts)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _product(product: Product) -> dict[str, Any]:
    return {
        "aliases": ",".join(product.aliases),
        "arch": product.architecture,
        "os": product.os,
        "release": product.release,
        "release_title": product.release,
        "variant": product.variant,
        "versions": {key: _version(version) for key, version in product.versions.items()},
        **_given("version", product.version),
        **_given("requirements", dict(product.requirements)),
    }


def _version(version: Version) -> dict[str, Any]:
    items = {name: _item(item) for name, item in version.items.items()}
    return {"items": items, **_given("label", version.label)}


def _item(item: Item) -> dict[str, Any]:
    return {
        "ftype": item.ftype,
        "path": item.path,
        "sha256": item.sha256,
        "size": item.size,
        **{COMBINED[root]: combined for root, combined in item.combined.items()},
        **_given("delta_base", item.delta_base),
    }


def _given(name: str, value: str | Mapping[str, str] | None) -> dict[str, Any]:
    return {name: value} if value else {}
