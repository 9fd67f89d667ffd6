"""A tree looked over from end to end: ours, one that was copied elsewhere, or a stranger's.

Nothing ends the look before everything was looked at.  Where the tree is a registry's own, its database is
compared with it too, and remembers which files were found good.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.images.registry import catalogues, entries
from iceshelves.images.registry.collecting import OURS
from iceshelves.images.registry.database import hasty, transaction
from iceshelves.images.registry.disk import disk_errors
from iceshelves.images.registry.findings import Findings, Verification
from iceshelves.images.registry.judging import Delta, Image, Judge, Needed
from iceshelves.images.registry.layout import IMAGES, INDEX
from iceshelves.images.registry.memory import Memory, recall, remember
from iceshelves.images.registry.registry import Registry
from iceshelves.images.registry.scrubbing import Scrub
from iceshelves.images.simplestreams.model import Index, Product
from iceshelves.images.simplestreams.names import STREAM_PATH
from iceshelves.images.simplestreams.parsing import MAX_BYTES, Problem, parse_catalogue, parse_index

T = TypeVar("T")

_DEEPEST: Final = 2
_MOST_VIEWS: Final = 10_000
_MOST_STREAMS: Final = 10_000


def verify_tree(tree: Path) -> Verification:
    """Look over a tree of which nothing is known.  Raises :class:`NotFound` ``tree_not_found``."""
    with disk_errors():
        return _Look(tree, Memory()).result()


def verify(registry: Registry, everything: bool = False) -> Verification:
    """Look over ``registry``, after finishing what a killed publisher left.

    Files that were found good before are read again only where they changed, or for ``everything``.
    Publishers may work meanwhile: what looks wrong is looked at once more while none can.  Raises
    :class:`Failed` ``registry_unusable``, :class:`Temporary` ``registry_busy``.
    """
    registry.recover()
    memory = Memory()
    if not everything:
        with registry.reading() as connection:
            memory = recall(connection)
    with disk_errors():
        result = _look_over(registry, memory)
    if not result.clean:
        with registry.writing():
            result = _look_over(registry, memory)
    with registry.writing() as desk, hasty(desk.connection), transaction(desk.connection):
        remember(desk.connection, memory)
    return result


def _look_over(registry: Registry, memory: Memory) -> Verification:
    look = _Look(registry.layout.tree, memory)
    with registry.reading() as connection:
        look.compare(catalogues.expected_files(connection))
        look.need(entries.all_files(connection))
    return look.result()


class _Look:
    """One look over a tree."""

    def __init__(self, tree: Path, memory: Memory) -> None:
        if not tree.is_dir():
            raise NotFound(f"There is no tree at {tree}.", code="tree_not_found", hint="Give its folder.")
        self._tree = tree
        self._memory = memory
        self._findings = Findings()
        self._files: list[Needed] = []
        self._images: list[Image] = []
        self._deltas: list[Delta] = []

    def compare(self, expected: Iterable[tuple[str, str]]) -> None:
        """Have every catalogue file be what the database says."""
        for path, text in expected:
            if _read(self._tree / path) != text.encode():
                self._findings.catalogue("not_as_recorded", path, "It is not what the registry has recorded.")

    def need(self, files: Iterable[tuple[str, int]]) -> None:
        """Have the files of every image that the database knows, shown or not."""
        self._files += [Needed(name, name[:64], size, f"{IMAGES}/{name}") for name, size in files]

    def result(self) -> Verification:
        """Look at everything; what was found."""
        views = list(_views(self._tree))
        if not views:
            self._findings.catalogue("no_index", INDEX, "There is no index in the tree.")
        for view in views:
            self._view(view)
        scrub = Scrub(self._tree / IMAGES, self._findings, self._memory)
        scrub.check(self._files, self._images, self._deltas)
        self._orphans({file.name for file in self._files})
        return Verification(
            tuple(self._findings.found),
            len(views),
            len({image.fingerprint for image in self._images}),
            scrub.files,
            scrub.read,
            scrub.known_good,
        )

    def _view(self, path: str) -> None:
        file = str(PurePosixPath(path, INDEX))
        index = self._parsed(file, parse_index)
        if index is None:
            return
        judge = Judge(self._findings, path)
        everything: list[Product] = []
        for stream_file, products in self._catalogues(path, file, index):
            judge.judge(stream_file, products)
            everything += products
        judge.judge_aliases(everything)
        self._files += judge.files
        self._images += judge.images
        self._deltas += judge.deltas

    def _catalogues(self, view: str, file: str, index: Index) -> Iterator[tuple[str, Sequence[Product]]]:
        """The catalogues that ``index`` names and clients read."""
        taken: set[str] = set()
        for stream in index.streams[:_MOST_STREAMS]:
            where = f"{file}#{stream.name}"
            name = PurePosixPath(stream.path).name
            if not STREAM_PATH.fullmatch(stream.path):
                self._findings.catalogue("unsafe_path", where, f"It leads elsewhere: {stream.path[:120]!r}.")
                continue
            if name in taken:
                self._findings.catalogue(
                    "same_file_name", where, f"Two catalogues are called {name}; clients keep only one."
                )
            taken.add(name)
            stream_file = str(PurePosixPath(view, stream.path))
            catalogue = self._parsed(stream_file, parse_catalogue) if stream.products else None
            if catalogue is None:
                continue
            listed, there = set(stream.products), {product.key for product in catalogue.products}
            if listed != there:
                self._findings.warning(
                    "index_differs", where,
                    f"The index lists {len(listed - there)} products that are not in the catalogue, "
                    f"and lacks {len(there - listed)}.",
                    "Clients do not mind; if no publisher was at work, let the registry write it again.",
                )  # fmt: skip
            yield stream_file, catalogue.products

    def _parsed(self, file: str, parse: Callable[[bytes, str], tuple[T, list[Problem]]]) -> T | None:
        data = _read(self._tree / file)
        if data is None:
            self._findings.catalogue(
                "file_missing", file, "It is not there, no plain file, or far too large."
            )
            return None
        try:
            value, problems = parse(data, file)
        except InvalidInput as error:
            self._findings.catalogue(error.code, file, error.message)
            return None
        for problem in problems:
            self._findings.catalogue("bad_catalogue", f"{file}#{problem.where}", f"It {problem.message}.")
        return value

    def _orphans(self, needed: set[str]) -> None:
        images = self._tree / IMAGES
        names = (path.name for path in images.iterdir()) if images.is_dir() else ()
        orphans = sorted(name for name in names if OURS.fullmatch(name) and name not in needed)
        if orphans:
            self._findings.note(
                "orphans", IMAGES, f"{len(orphans)} files belong to no image, such as {orphans[0]}.",
                "Garbage collection removes them in time.",
            )  # fmt: skip


def _views(tree: Path) -> list[str]:
    """Every folder of ``tree`` that clients could add, as deep as views are; links are not followed."""
    found: list[str] = []
    due = [("", 0)]
    while due and len(found) + len(due) < _MOST_VIEWS:
        path, depth = due.pop()
        folder = tree / path
        if (folder / INDEX).exists():
            found.append(path)
        if depth < _DEEPEST:
            with os.scandir(folder) as inner:
                names = [each.name for each in inner if each.is_dir(follow_symlinks=False)]
            due += [(str(PurePosixPath(path, name)), depth + 1) for name in names if name != IMAGES]
    return sorted(found)


def _read(path: Path) -> bytes | None:
    """The content of a plain file that is not out of all bounds."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BYTES:
            return None
        return stream.read(MAX_BYTES + 1)
