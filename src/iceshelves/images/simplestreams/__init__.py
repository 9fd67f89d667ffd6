"""SimpleStreams, the format in which Incus and LXD read image servers.  Pure: no files, no network.

The rules are the clients' own (``shared/simplestreams`` in incus 6.0 and lxd 5.0), which are wider in some
places and narrower in others than what the format's inventors wrote down.
"""

from __future__ import annotations

from iceshelves.images.simplestreams.model import Catalogue, Index, Item, Product, Stream, Version
from iceshelves.images.simplestreams.parsing import Problem, parse_catalogue, parse_index
from iceshelves.images.simplestreams.rendering import catalogue_text, index_text, product_text
from iceshelves.images.simplestreams.resolution import Listed, Resolution, resolve

__all__ = [
    "Catalogue",
    "Index",
    "Item",
    "Listed",
    "Problem",
    "Product",
    "Resolution",
    "Stream",
    "Version",
    "catalogue_text",
    "index_text",
    "parse_catalogue",
    "parse_index",
    "product_text",
    "resolve",
]
