"""Alembic's migrations.  ``HEAD`` is kept here so that start-up need not import Alembic; a test checks it."""

from typing import Final

HEAD: Final = "0003"
KNOWN: Final = frozenset({"0001", "0002", "0003"})
