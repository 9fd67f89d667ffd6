"""From files to an egg: the one place that decides whether they are one."""

from __future__ import annotations

from collections.abc import Mapping

from iceshelves.core.errors import InvalidInput
from iceshelves.eggs.metadata import read_metadata
from iceshelves.eggs.model import METADATA, USER_DATA, Egg
from iceshelves.eggs.names import check_file_name, check_size, check_totals


def egg_from_files(files: Mapping[str, bytes], fallback_name: str | None = None) -> Egg:
    """The egg that ``files`` make.  Raises :class:`InvalidInput` with every error in ``details``."""
    for required in (METADATA, USER_DATA):
        if required not in files:
            raise InvalidInput(
                f"This is not an egg: it has no {required}.",
                code="not_an_egg",
                hint="Make one with 'iceshelves egg new'.",
                details={"file": required},
            )
    for name, content in files.items():
        check_size(check_file_name(name), len(content))
    check_totals(len(files), sum(map(len, files.values())))
    metadata, findings = read_metadata(files[METADATA], fallback_name)
    errors = [finding for finding in findings if finding.level == "error"]
    if metadata is None or errors:
        first = errors[0]
        raise InvalidInput(
            f"{METADATA}, line {first.line}: {first.message}",
            code=first.code,
            hint=first.hint or "Run 'iceshelves egg lint' to see everything.",
            details={"file": METADATA, "line": first.line, "findings": [f.to_json() for f in errors]},
        )
    return Egg(metadata, files)
