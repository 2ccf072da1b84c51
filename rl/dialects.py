"""How model families write a turn: what they sample, read into content and tool calls.

A turn arrives as pieces: `Mark`s, the control tokens that were sampled as such, and the text between
them. Where a family has a token that opens a call, only that token does: a model that quotes
`<tool_call>` letter by letter from a web page has not called anything.

Nothing here raises on what a model wrote. A call that can't be read is still a call: its arguments
are its whole text, or its name is empty, and the environment answers it with a fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Items = tuple[tuple[str, str], ...]
"""Arguments as a family writes them that has no JSON: names and values, untyped."""


class Mark(str):
    """A control token that was sampled as one id; ordinary text is plain `str`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one turn says: its text without reasoning, and (name, arguments) of each call."""

    content: str
    calls: tuple[tuple[str, str | Items], ...] = ()


def without_reasoning(pieces: Sequence[str], *, thinking: bool) -> list[str]:
    """Drop the thoughts a turn begins with; a turn that never stops thinking has said nothing.

    `thinking`: the prompt has opened the thoughts already.
    """
    first = next((piece for piece in pieces if isinstance(piece, Mark) or piece.strip()), "")
    if not thinking and not _is(first, "<think>"):
        return list(pieces)
    ends = [k for k, piece in enumerate(pieces) if _is(piece, "</think>")]
    if not ends:
        return []
    rest = list(pieces[ends[0] + 1 :])
    if rest and not isinstance(rest[0], Mark):
        rest[0] = rest[0].lstrip("\n")
    return rest


def hermes(pieces: Sequence[str]) -> Said:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>` (Qwen2.5, Qwen3, Hermes)."""
    around, bodies = _calls(pieces)
    return Said(content=_content(around), calls=tuple(read_call("".join(body), "arguments") for body in bodies))


def xml(pieces: Sequence[str]) -> Said:
    """`<tool_call><function=NAME><parameter=KEY>VALUE</parameter>...` (Qwen3-Coder, Qwen3.5, Nemotron 3)."""

    def read(body: str) -> tuple[str, str | Items]:
        named = re.match(r"\s*<function=([^\n>]+)>(.*)</function>\s*$", body, re.DOTALL)
        items = _items(r"<parameter=([^\n>]+)>\n?(.*?)\n?</parameter>", named[2]) if named else None
        return (named[1], items) if named and items is not None else ("", body)

    around, bodies = _calls(pieces)
    content = around[0].rstrip("\n") if bodies else around[0]
    return Said(content=_content([content, *around[1:]]), calls=tuple(read("".join(body)) for body in bodies))


def glm(pieces: Sequence[str]) -> Said:
    """`<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>...` (GLM 4.5 and on)."""

    def read(body: Sequence[str]) -> tuple[str, str | Items]:
        text = "".join(_LEAD + piece if isinstance(piece, Mark) else piece.replace(_LEAD, "") for piece in body)
        name, lead, rest = text.partition(_LEAD)
        pair = rf"{_LEAD}<arg_key>(.*?){_LEAD}</arg_key>\s*{_LEAD}<arg_value>(.*?){_LEAD}</arg_value>"
        items = _items(pair, lead + rest)
        if items is None:
            return "", "".join(body)
        return name.strip(), tuple((key, value.replace(_LEAD, "")) for key, value in items)

    around, bodies = _calls(pieces)
    return Said(content=_content([around[0].strip(), *around[1:]]), calls=tuple(map(read, bodies)))


def llama(pieces: Sequence[str]) -> Said:
    """A turn that is `{"name": ..., "parameters": {...}}`; several are separated by `;` (Llama 3.1 to 3.3)."""
    text = "".join(pieces)
    tagged = bool(pieces) and _is(pieces[0], "<|python_tag|>")
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


def harmony(pieces: Sequence[str]) -> Said:
    """Messages on channels; one addressed `to=functions.NAME` is a call (GPT-OSS)."""
    content, calls = [], []
    header, body, reading = "", "", False
    for piece in (*pieces, Mark("<|end|>")):
        if isinstance(piece, Mark) and piece in ("<|end|>", "<|call|>", "<|return|>", "<|start|>"):
            to = re.search(r"to=([^\s<]+)", header)
            if to:
                calls.append((to[1].removeprefix("functions."), body))
            elif "analysis" not in header:
                content.append(body)
            header, body, reading = "", "", False
        elif not reading and _is(piece, "<|message|>"):
            reading = True
        elif reading:
            body += piece
        else:
            header += piece
    return Said(content="".join(content), calls=tuple(calls))


def read_call(body: str, key: str) -> tuple[str, str]:
    """The name and the verbatim arguments of one call written as a JSON object.

    Where the object can't be read, the arguments are all of `body`, which no tool can take; where it
    can, but names no tool or has no `key`, the name is empty, which no tool has.
    """
    body = body.strip()
    try:
        members, end = _members(body)
    except (ValueError, RecursionError):
        members, end = {}, -1
    if end != len(body):
        named = re.search(r'"name"\s*:\s*("(?:[^"\\]|\\.)*")', body)
        return (_string(named[1]) if named else ""), body
    name = _string(members.get("name", ""))
    if not name or (key not in members and len(members) > 1):
        return "", body
    return name, members.get(key, "{}")


def as_json(items: Items, schema: Mapping[str, Any]) -> str:
    """Untyped arguments as JSON text: a value is a string where the tool's schema, or its look, says so."""
    known = schema.get("properties", {})
    return "{" + ", ".join(f"{_quoted(key)}: {_typed(value, known.get(key, {}))}" for key, value in items) + "}"


def _typed(text: str, schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "string":
        return _quoted(text)
    literal = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    try:
        _JSON.decode(literal)
    except (ValueError, RecursionError):
        return _quoted(text)
    return literal


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _items(pair: str, text: str) -> Items | None:
    """The (name, value) pairs `text` consists of; None if there is anything else in it.

    One match after the other, never backtracking into an earlier one: the policy writes this text.
    """
    items, at = [], 0
    while match := re.compile(rf"\s*{pair}", re.DOTALL).match(text, at):
        items.append((match[1], match[2]))
        at = match.end()
    return None if text[at:].strip() else tuple(items)


def _is(piece: str, mark: str) -> bool:
    return isinstance(piece, Mark) and piece == mark


def _calls(pieces: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The texts around calls, and the pieces inside each. The last call may lack its closing mark.

    There is one text more than there are calls.
    """
    around, inside = [""], list[list[str]]()
    calling = False
    for piece in pieces:
        if _is(piece, "<tool_call>"):
            around.append("")
            inside.append([])
            calling = True
        elif calling and _is(piece, "</tool_call>"):
            calling = False
        elif calling:
            inside[-1].append(piece)
        else:
            around[-1] += piece
    return around, inside


def _content(around: Sequence[str]) -> str:
    """A turn's text: what stands before the first call, and whatever was said between and after."""
    if len(around) == 1:
        return around[0]
    return "".join([around[0].removesuffix("\n"), *(text for text in around[1:] if text.strip())])


def _members(text: str) -> tuple[dict[str, str], int]:
    """The members of the JSON object `text` starts with, values verbatim, and where the object ends.

    Raises:
        ValueError: not a JSON object.
    """
    members: dict[str, str] = {}
    at = _behind(text, 0, "{")
    if text[at : at + 1] == "}":
        return members, at + 1
    while True:
        name, at = _JSON.raw_decode(text, at)
        at = _behind(text, _blanks(text, at), ":")
        _, end = _JSON.raw_decode(text, at)
        members[str(name)] = text[at:end]
        at = _blanks(text, end)
        if text[at : at + 1] == "}":
            return members, at + 1
        at = _behind(text, at, ",")


def _object_end(text: str) -> int | None:
    try:
        return _members(text)[1]
    except (ValueError, RecursionError):
        return None


def _behind(text: str, at: int, what: str) -> int:
    if text[at : at + 1] != what:
        raise ValueError(f"expected {what!r} at {at}")
    return _blanks(text, at + 1)


def _blanks(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


def _string(text: str) -> str:
    """The string that JSON `text` stands for; empty if it is not one."""
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


_LEAD = "\ufdd0"  # stands before a mark while a call is matched as one string; Unicode keeps it for inner use
# numbers stay text: their values are not needed here, and Python refuses integers of many digits
_JSON = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)

DIALECTS: Mapping[str, Callable[[Sequence[str]], Said]] = {
    "hermes": hermes,
    "llama": llama,
    "xml": xml,
    "glm": glm,
    "harmony": harmony,
}
