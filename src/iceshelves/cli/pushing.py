"""A registry's tree, copied to where a web server has its files, while clients read there and others publish.

Catalogues are read first, each index before what it names, and written last: so every file that they name is
at the destination before they are.  Nothing is deleted there before the new catalogues are in place, and only
what is named by its content as our images are: the folder may be somebody else's by mistake.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from iceshelves.core import process
from iceshelves.core.errors import Failed, InvalidInput

_INDEX: Final = "index.json"
#: rsync's rule: a colon before the first slash parts host and path; neither may look like an option
_REMOTE: Final = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):(?!:|//)(?!-).+"
)
_SECONDS: Final = 24 * 3600.0
_MOST: Final = 256 * 1024 * 1024
_RSYNC: Final = (
    "rsync", "--recursive", "--times", "--omit-dir-times", "--relative", "--secluded-args",
    "--chmod=D755,F644", "--timeout=300", "--rsh=ssh -o BatchMode=yes", "--out-format=sent %l %n",
)  # fmt: skip
_OURS: Final = tuple(f"{'[0-9a-f]' * 64}.{suffix}" for suffix in ("tar.xz", "squashfs", "qcow2", "vcdiff"))


@dataclass(frozen=True, slots=True)
class Pushed:
    """How many files were sent, their bytes, and how many were deleted."""

    files: int
    bytes: int
    deleted: int = 0


def push(tree: Path, destination: str, *, delete: bool) -> Pushed:
    """Bring ``destination``, a folder or ``[USER@]HOST:FOLDER``, up to date with ``tree``.

    With ``delete`` images go that the tree has no longer.  Raises :class:`InvalidInput`
    ``invalid_destination``, :class:`Failed` ``push_failed`` and ``program_missing``, :class:`TimedOut`.
    """
    target = _checked(destination)
    only_ours = [f"--include=/images/{pattern}" for pattern in _OURS]
    with tempfile.TemporaryDirectory(prefix="iceshelves-push-") as made:
        catalogues = Path(made)
        _snapshot(tree, catalogues)
        sent = [
            _rsync(tree, ["--size-only", "--include=/images/", *only_ours, "--exclude=*"], target),
            _rsync(catalogues, ["--checksum", f"--exclude={_INDEX}"], target),
            _rsync(catalogues, ["--checksum"], target),
        ]
    if delete:
        at_risk = [f"--filter=R /images/{pattern}" for pattern in _OURS]
        others_stay = ["--delete", "--existing", "--ignore-existing", *at_risk, "--filter=P *"]
        sent.append(_rsync(tree, others_stay, target, "./images/"))
    return Pushed(*(sum(numbers) for numbers in zip(*map(astuple, sent), strict=True)))


def _checked(destination: str) -> str:
    """``destination`` as rsync takes it, never as an option or as an rsync server."""
    if _REMOTE.fullmatch(destination):
        return f"{destination.rstrip('/')}/"
    if ":" in destination.partition("/")[0] or "\0" in destination:
        raise InvalidInput(
            f"{destination[:200]!r} is no place to push to.",
            code="invalid_destination",
            hint="Give a folder, or USER@HOST:FOLDER for one that is reached by SSH.",
        )
    return f"{Path(destination).resolve()}/"


def _snapshot(tree: Path, into: Path) -> None:
    """Copy the indexes, then the catalogues: those may be newer than their index, never older."""
    found = sorted(path for depth in ("", "*/", "*/*/") for path in tree.glob(f"{depth}streams/v1/*.json"))
    for path in sorted(found, key=lambda each: each.name != _INDEX):
        target = into / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def _rsync(source: Path, options: Sequence[str], target: str, what: str = "./") -> Pushed:
    done = process.run(
        [*_RSYNC, *options, "--", what, target], timeout=_SECONDS, cwd=source, max_output=_MOST
    )
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Failed(
            f"The registry could not be pushed to {target}: {why[0][:300]}",
            code="push_failed",
            hint="Push again to go on. By SSH it needs rsync there, a known host key, and a key of yours.",
            details={"stderr": why[-20:]},
        )
    said = done.stdout.splitlines()
    sizes = [int(line.split(b" ", 2)[1]) for line in said if line.startswith(b"sent ") and line[-1:] != b"/"]
    return Pushed(len(sizes), sum(sizes), sum(line.startswith(b"deleting ") for line in said))
