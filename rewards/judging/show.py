r"""What a judge sees: JSON lines between two lines whose mark nobody could have known, cut by one rule.

What is judged may try to speak to the judge. All of it stands inside JSON strings, so that it can't end its line, nor
look like a line of ours; `<` and `[INST]` are escaped, so that it can't become a special token of the judge's; what is
invisible is written out. The mark is a hash of all that it encloses: no text can hold the hash of itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from envs.types import Episode, Message, Task, Turn

_ESCAPED = re.compile(
    "[<\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
    r"|\[(?=/?[A-Z_]{2,}\])"
)
"""What opens special tokens, and what is invisible: control and format characters, half surrogates, tags."""

CUT = '{"start": "...", "left_out": 123, "end": "..."}'
"""How a text that was cut is shown; a text that was not is a string, so that no text can pass for a cut one."""


def task_line(task: Task, chars: int) -> str:
    """The prompt as one line of JSON: `{"task": [{"role": ..., "text": ...}, ...]}`."""
    return written(shortened({"task": [{"role": m.role, "text": m.content} for m in task.prompt]}, chars))


def turn_lines(episode: Episode, chars: int) -> list[str]:
    """A line of JSON for each turn, numbered from 1, then `{"ended": ...}`; their texts come to `chars` at most.

    A turn has `turn`, and where there are any `text`, `calls` (`tool`, `arguments`) and `results` (`tool`, `text`,
    `fault`). No turn is ever left out; see `shortened` for what is.
    """
    turns = [_turn(number, turn) for number, turn in enumerate(episode.turns, 1)]
    return [written(line) for line in (*shortened(turns, chars), {"ended": str(episode.stop)})]


def fenced(lines: Iterable[str]) -> str:
    """Lines between two that bear their hash, 32 hex digits of it, announced ahead of them."""
    body = "\n".join(lines)
    mark = hashlib.sha256(body.encode()).hexdigest()[:32]
    return f"The record stands between the two lines marked {mark}.\n\nBEGIN {mark}\n{body}\nEND {mark}"


def written(value: Any) -> str:
    """JSON on one line, its texts escaped as this file's beginning says."""
    return _ESCAPED.sub(_escape, json.dumps(value, ensure_ascii=False))


def shortened(value: Any, chars: int) -> Any:
    """The same, its texts cut to a common length so that together they come to `chars` characters at most.

    The length is the largest for which that holds, so that the longest texts are cut first and the short ones not at
    all: who talks much can't push out what others said. Of a text that is cut its two ends stay, as `CUT` shows.
    Characters are counted as they are written down.

    Example: of texts of 10, 50 and 90 characters, with `chars` 100, the last two keep 45.
    """
    limit = level([len(_inner(text)) for text in _texts(value)], chars)
    return _cut(value, limit)


def level(lengths: Sequence[int], total: int) -> int:
    """The largest whole L for which the lengths, each cut to L, come to no more than the total; 0 of none."""
    left = total
    for taken, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - taken)
        if length > share:
            return share
        left -= length
    return max(lengths, default=0)


def _turn(number: int, turn: Turn) -> dict[str, Any]:
    said: Message = turn.completion.message
    calls = [{"tool": call.name, "arguments": call.arguments} for call in said.tool_calls]
    results = [
        {"tool": result.name, "text": result.content} | ({"fault": result.fault} if result.fault else {})
        for result in turn.results
    ]
    parts = {"text": said.content, "calls": calls, "results": results}
    return {"turn": number} | {name: part for name, part in parts.items() if part}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _cut(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return value if len(_inner(value)) <= limit else _ends(value, limit)
    if isinstance(value, Mapping):
        return {name: _cut(part, limit) for name, part in value.items()}
    if isinstance(value, list):
        return [_cut(part, limit) for part in value]
    return value


def _ends(text: str, limit: int) -> dict[str, Any]:
    start = _fitting(lambda k: text[:k], limit - limit // 2)
    end = _fitting(lambda k: text[len(text) - k :], limit // 2)
    return {"start": text[:start], "left_out": len(text) - start - end, "end": text[len(text) - end :]}


def _fitting(part: Callable[[int], str], limit: int) -> int:
    """The most characters k for which `part(k)`, written down, fits; of a text that is longer than the limit."""
    return bisect_right(range(limit + 1), limit, key=lambda k: len(_inner(part(k)))) - 1


def _inner(text: str) -> str:
    return written(text)[1:-1]


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]
