"""How model families write a turn: the text they sample, read into content and tool calls.

A turn arrives as pieces: `Mark`s, the control tokens that were sampled as such, and the text between
them. Only a mark opens a call where the family has a token for it, so a model that quotes
`<tool_call>` from a web page has not called anything.

Nothing here raises on what a model wrote. A call that can't be read is still a call: its `arguments`
are its whole text, or its name is empty, and the environment answers it with a fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


class Mark(str):
    """A control token that was sampled as one id; ordinary text is plain `str`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one turn says: its text without reasoning, and (name, arguments) of each call."""

    content: str
    calls: tuple[tuple[str, str], ...] = ()


def without_reasoning(pieces: Sequence[str]) -> list[str]:
    """Drop what stands before `</think>`; a turn that never stops thinking has said nothing."""
    marks = [piece if isinstance(piece, Mark) else "" for piece in pieces]
    if "</think>" in marks:
        rest = list(pieces[marks.index("</think>") + 1 :])
        if rest and not isinstance(rest[0], Mark):
            rest[0] = rest[0].lstrip("\n")
        return rest
    return [] if "<think>" in marks else list(pieces)


def hermes(pieces: Sequence[str]) -> Said:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number of them (Qwen2.5, Qwen3, Hermes)."""
    outside, bodies = between(pieces, "<tool_call>", "</tool_call>")
    return Said(content=_content(outside), calls=tuple(read_call(body, "arguments") for body in bodies))


def llama(pieces: Sequence[str]) -> Said:
    """A turn that is `{"name": ..., "parameters": {...}}`; several are separated by `;` (Llama 3.1, 3.2)."""
    text = "".join(pieces)
    tagged = bool(pieces) and isinstance(pieces[0], Mark) and pieces[0] == "<|python_tag|>"
    body = text.removeprefix("<|python_tag|>").strip() if tagged else text.strip()
    if not tagged and not re.match(r'\{\s*"name"\s*:', body):
        return Said(content=text)
    calls = []
    while body:
        end = _object_end(body)
        cut = len(body) if end is None or not re.match(r"\s*(;|\{|$)", body[end:]) else end
        calls.append(read_call(body[:cut], "parameters"))
        body = body[cut:].lstrip().removeprefix(";").lstrip()
    return Said(content="", calls=tuple(calls) or (("", text),))


def between(pieces: Sequence[str], opening: str, closing: str) -> tuple[list[str], list[str]]:
    """Split into the texts around, and the texts inside, each pair of marks.

    `len(around) == len(inside) + 1`. The last pair may lack its closing mark.
    """
    around, inside = [""], list[str]()
    calling = False
    for piece in pieces:
        if isinstance(piece, Mark) and piece == opening:
            around.append("")
            inside.append("")
            calling = True
        elif calling and isinstance(piece, Mark) and piece == closing:
            calling = False
        elif calling:
            inside[-1] += piece
        else:
            around[-1] += piece
    return around, inside


def read_call(body: str, key: str) -> tuple[str, str]:
    """The name and the verbatim arguments of one call written as a JSON object.

    Where the object can't be read, the arguments are all of `body`, which no tool can take; where it
    can, but names no tool or has no `key`, the name is empty, which no tool is called.
    """
    body = body.strip()
    try:
        spans, end = _members(body)
    except (ValueError, RecursionError):
        spans, end = {}, -1
    if end != len(body):
        named = re.search(r'"name"\s*:\s*("(?:[^"\\]|\\.)*")', body)
        return (_string(named[1]) if named else ""), body
    name = _string(spans.get("name", ""))
    if not name or (key not in spans and len(spans) > 1):
        return "", body
    return name, spans.get(key, "{}")


def _members(text: str) -> tuple[dict[str, str], int]:
    """The members of the JSON object `text` starts with, values verbatim, and where the object ends.

    Raises:
        ValueError: not a JSON object.
    """
    spans: dict[str, str] = {}
    at = _skip(text, 0, "{")
    if text[at : at + 1] == "}":
        return spans, at + 1
    while True:
        name, at = _JSON.raw_decode(text, at)
        at = _skip(text, at, ":")
        _, end = _JSON.raw_decode(text, at)
        spans[str(name)] = text[at:end]
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # matches the empty string too
        if text[at : at + 1] == "}":
            return spans, at + 1
        at = _skip(text, at, ",")


def _object_end(text: str) -> int | None:
    try:
        return _members(text)[1]
    except (ValueError, RecursionError):
        return None


def _skip(text: str, at: int, what: str) -> int:
    if text[at : at + 1] != what:
        raise ValueError(f"expected {what!r} at {at}")
    return _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]


def _string(text: str) -> str:
    """The string that JSON `text` stands for; empty if it is not one."""
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


def _content(around: Sequence[str]) -> str:
    """A turn's text: what stands before the first call, and whatever was said between and after."""
    if len(around) == 1:
        return around[0]
    return "".join([around[0].removesuffix("\n"), *(text for text in around[1:] if text.strip())])


# numbers stay text: their values are not needed here, and Python refuses integers of many digits
_JSON = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
_SPACE = re.compile(r"[ \t\n\r]*")

DIALECTS: Mapping[str, Callable[[Sequence[str]], Said]] = {"hermes": hermes, "llama": llama}
