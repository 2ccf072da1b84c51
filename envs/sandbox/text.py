"""Output of foreign programs as text: short enough for a model, harmless for a terminal."""

from __future__ import annotations

import unicodedata


def for_model(output: bytes, limit: int = 16_000) -> str:
    """Head and tail of an output, at most `limit` characters of it, with a mark where something was left out.

    Bytes that are not UTF-8 become the replacement character, and NUL is left out.
    """
    text = output.decode("utf-8", "replace").replace("\0", "")
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2], text[len(text) - (limit - limit // 2) :]
    return f"{head}\n[... {len(text) - limit} characters left out ...]\n{tail}"


def for_terminal(text: str) -> str:
    """The text with everything spelled out that would move a cursor, change a colour or turn the reading direction."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode("ascii")
