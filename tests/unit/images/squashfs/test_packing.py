"""What one more file costs: its neighbourhood, and nothing beyond."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from iceshelves.images.squashfs import Bytes, Directory, Entry, File
from iceshelves.images.squashfs.nodes import build
from iceshelves.images.squashfs.packing import SPARSE, Packing, pack
from iceshelves.images.squashfs.tree import walk

BLOCK = 64 * 1024
TINY = 4096


def base(files: int, most: int = 6000) -> list[Entry]:
    """Folders of small files, as ``/usr`` has them."""
    source = random.Random(files)
    entries = [Entry(f"/{folder}", Directory()) for folder in range(10)]
    for number in range(files):
        data = source.randbytes(source.randrange(1, most))
        entries.append(Entry(f"/{number % 10}/{source.randrange(10**9)}-{number}", File(Bytes(data))))
    return entries


def packed(entries: list[Entry]) -> Packing:
    return pack(build(entries).others, BLOCK)


def plain_size(packing: Packing) -> int:
    return sum(part.size for block in packing.blocks for part in block.parts)


def new_blocks(before: list[Entry], after: list[Entry]) -> int:
    known = {block.digest for block in packed(before).blocks}
    return sum(block.digest not in known for block in packed(after).blocks)


def test_a_changed_tree_keeps_most_of_its_blocks() -> None:
    entries = base(3000)
    all_blocks = len(packed(entries).blocks)
    assert all_blocks > 100
    added = [*entries, Entry("/3/500000000-new", File(Bytes(b"new" * 1000)))]
    assert new_blocks(entries, added) <= 5
    gone = [entry for entry in entries if entry is not entries[1500]]
    assert new_blocks(entries, gone) <= 5
    changed = [*gone, Entry(entries[1500].path, File(Bytes(b"another content, and another length")))]
    assert new_blocks(entries, changed) <= 3
    folder = [
        Entry("/35", Directory()),
        *(Entry(f"/35/{n}", File(Bytes(b"%d" % n * 999))) for n in range(200)),
    ]
    assert new_blocks(entries, entries + folder) <= 20


def test_fragments_are_well_filled() -> None:
    packing = packed(base(3000))
    assert plain_size(packing) > 0.65 * BLOCK * len(packing.blocks)


@given(
    st.lists(
        st.one_of(st.integers(0, 3 * TINY), st.sampled_from([TINY // 2 - 1, TINY // 2, TINY, 2 * TINY])),
        max_size=30,
    ),
    st.integers(0, 1000),
)
def test_every_byte_has_its_place(sizes: list[int], seed: int) -> None:
    source = random.Random(seed)
    contents = [source.choice([source.randbytes(size), bytes(size)]) for size in sizes]
    tree = build([Entry(f"/{number}", File(Bytes(data))) for number, data in enumerate(contents)])
    packing = pack(tree.others, TINY)
    assert all(0 < sum(part.size for part in block.parts) <= TINY for block in packing.blocks)
    plain = [block.read() for block in packing.blocks]
    for node in tree.others:
        stored = packing.files[node.number]
        data = contents[int(node.entry.path[1:])]
        found = b"".join(bytes(TINY) if number == SPARSE else plain[number] for number in stored.blocks)
        if stored.fragment is not None:
            fragment = plain[packing.fragments[stored.fragment]]
            found += fragment[stored.offset : stored.offset + stored.size % TINY]
        assert found[: stored.size] == data
        assert stored.size == len(data)
        assert stored.sparse <= data.count(0)
        real = [number for number in stored.blocks if number != SPARSE]
        assert real == list(range(real[0], real[0] + len(real))) if real else True, "one after the other"


def test_holes_are_not_read(tmp_path: Path) -> None:
    """A file of 8 GiB with some bytes in it, as ``/var/log/lastlog`` may be."""
    (tmp_path / "sparse").touch()
    with (tmp_path / "sparse").open("r+b") as stream:
        stream.truncate(2**33)
        stream.seek(2**32)
        stream.write(b"x")
    stored = packed(list(walk(tmp_path))).files[2]
    assert len(stored.blocks) == 2**33 // BLOCK
    assert sum(number != SPARSE for number in stored.blocks) == 1
    assert stored.sparse == 2**33 - BLOCK
