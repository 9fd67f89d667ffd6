"""Catalogues there and back: what is written is what is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceshelves.core.errors import IceShelvesError, InvalidInput
from iceshelves.images.simplestreams import (
    Catalogue,
    Index,
    Item,
    Product,
    Stream,
    Version,
    catalogue_text,
    index_text,
    parse_catalogue,
    parse_index,
    product_text,
)

HASH = "a" * 64
texts = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12)
items = st.builds(
    Item, texts, texts, st.just(HASH), st.integers(0, 2**50),
    st.dictionaries(st.sampled_from(["squashfs", "disk-kvm.img"]), st.just(HASH)),
    st.none() | texts,
)  # fmt: skip
versions = st.builds(
    lambda key, found, label: Version(key, found, label),
    texts,
    st.dictionaries(texts, items, max_size=3),
    texts,
)
aliases = st.lists(texts.filter(lambda text: "," not in text), max_size=3).map(tuple)
products = st.builds(
    lambda key, names, found, needs: Product(
        key, names, "amd64", "Debian", "12", "nginx", {each.key: each for each in found}, "1.0", needs
    ),
    texts, aliases, st.lists(versions, max_size=3), st.dictionaries(texts, texts, max_size=2),
)  # fmt: skip


@given(st.lists(products, max_size=3, unique_by=lambda product: product.key))
def test_a_catalogue_is_read_as_it_was_written(found: list[Product]) -> None:
    text = catalogue_text("images", map(product_text, found))
    assert parse_catalogue(text.encode(), "test") == (Catalogue(tuple(found)), [])


def test_an_index_is_read_as_it_was_written() -> None:
    index = Index(
        (Stream("images", "streams/v1/images.json", ("a", "b")), Stream("two", "streams/v1/2.json", ()))
    )
    assert parse_index(index_text(index).encode(), "test") == (index, [])


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["products", "versions", "items", "index", "aliases", "path", "size", "x"]), inner
    ),
    max_leaves=20,
))  # fmt: skip
def test_any_json_is_read_or_refused(value: object) -> None:
    for parse in (parse_catalogue, parse_index):
        try:
            parse(json.dumps(value).encode(), "test")
        except IceShelvesError as error:
            assert error.hint  # noqa: PT017


@pytest.mark.parametrize(
    "data", [b"[" * 300_000, b"[" * 3_000_000, b"[" + b"1," * 3_000_000 + b"1]", bytes(40 * 2**20)]
)
def test_what_is_too_much_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_catalogue(data, "test")
    assert refusal.value.code == "unreadable_catalogue"
