"""What callers ask for is checked at the edge, and mistakes are told."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """Unknown fields are mistakes: they would be silently without effect."""

    model_config = ConfigDict(frozen=True, extra="forbid")
