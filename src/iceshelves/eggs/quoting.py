"""Filters of the template language.  The rendering process loads this file by path: standard library only."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

# Line breaks and invisible characters that YAML or JSON would not keep inside a quoted text.
_ESCAPED: Final = {
    code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF)
}


def to_json(value: Any) -> str:
    """``value`` on one line, as JSON that YAML 1.1 reads alike.  Raises ``ValueError`` for NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_ESCAPED)


def to_base64(value: Any) -> str:
    """The UTF-8 bytes of ``value`` as text, in base 64."""
    return base64.b64encode(str(value).encode()).decode()
