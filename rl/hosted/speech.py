"""One answer as it is being sampled: which of its text is certain, where it stops, what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from envs.tools import ToolSpec
from envs.types import Message
from rl.engines import Piece

if TYPE_CHECKING:
    from rl.chat import Chat


class Speech:
    """The tokens of one answer, read as a grader would read them.

    Args:
        chat: reads tokens as messages.
        tools: what may be called.
        stop: texts that end the answer and are not part of it.
        turn: how many answers the conversation has already; ids of calls have it in them.
    """

    def __init__(self, chat: Chat, tools: Sequence[ToolSpec], stop: Sequence[str], *, turn: int = 0) -> None:
        self._chat, self._tools, self._stop, self._turn = chat, tools, stop, turn
        self._ids: list[int] = []
        self._places: list[Mapping[int, float]] = []
        self._sent = 0
        self.finish: str | None = None
        """Why it ended, by the names of the chat API; None while it goes on."""

    @property
    def tokens(self) -> int:
        """How many were sampled, the one that ends the turn included."""
        return len(self._ids)

    def hear(self, piece: Piece) -> str:
        """Take in what was sampled; the text that is certain now and was not before."""
        self._ids += piece.token_ids
        self._places += piece.logprobs
        message = self._read()
        text, stopped = self._cut(message.content)
        if stopped:
            self.finish = "stop"
        elif piece.finish is not None:
            self.finish = "tool_calls" if message.tool_calls and piece.finish == "stop" else piece.finish
        return self._new(text if self.finish else self._certain(message, text))

    def message(self) -> Message:
        """The whole answer."""
        message = self._read()
        text, stopped = self._cut(message.content)
        return Message(role="assistant", content=text, tool_calls=() if stopped else message.tool_calls)

    def logprobs(self, start: int = 0, *, top: int) -> list[dict[str, Any]]:
        """The tokens from `start` on in the shape of the chat API, without the one that ends the turn."""
        return [
            _place(self._chat, token, place, top)
            for token, place in zip(self._ids[start:], self._places[start:], strict=True)
            if token not in self._chat.stop_ids
        ]

    def _read(self) -> Message:
        return self._chat.parse(self._ids, self._tools, turn=self._turn)

    def _cut(self, text: str) -> tuple[str, bool]:
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        return (text[: min(found)], True) if found else (text, False)

    def _certain(self, message: Message, text: str) -> str:
        """What of a text stays whatever comes: no call, no half of a letter or of a stop, no space before a call."""
        if message.tool_calls or text.lstrip().startswith("{"):
            return ""
        text = text.rstrip("\N{REPLACEMENT CHARACTER}").rstrip()
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        return text[: len(text) - held]

    def _new(self, text: str) -> str:
        fresh = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return fresh


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of a text may be the beginning of a stop."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _place(chat: Chat, token: int, place: Mapping[int, float], top: int) -> dict[str, Any]:
    likeliest = sorted(place.items(), key=lambda item: -item[1])[:top]
    return _token(chat, token, place[token]) | {"top_logprobs": [_token(chat, *one) for one in likeliest]}


def _token(chat: Chat, token: int, logprob: float) -> dict[str, Any]:
    text = chat.text([token])
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode("utf-8", "replace"))}
