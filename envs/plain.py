"""Text from a model or a tool, made safe to look at in a terminal."""

from __future__ import annotations

import re

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters but for tab and line feed, what reverses the direction of writing, half surrogates."""


def visible(text: str) -> str:
    r"""The text with what a terminal would obey, or hide, written out: ESC becomes `\x1b`."""
    return _HIDDEN.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(point: int) -> str:
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"
