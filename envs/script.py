"""Episodes written down in advance, as experts, demonstrations and tests do: calls, and the messages that make them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from envs.types import Message, ToolCall

Call = tuple[str, dict[str, Any]]
"""A tool and its arguments."""


def script(calls: Iterable[Call], answer: str | None = None) -> list[Message]:
    """Assistant messages: a call a turn, and the answer, if there is one, after the last."""
    turns = [calling(f"call-{number}", call) for number, call in enumerate(calls)]
    return turns if answer is None else [*turns, Message(role="assistant", content=answer)]


def calling(id: str, call: Call) -> Message:
    """An assistant message with one call."""
    name, arguments = call
    return Message(role="assistant", tool_calls=(ToolCall(id=id, name=name, arguments=json.dumps(arguments)),))
