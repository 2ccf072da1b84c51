"""Policies without a model, for tests of environments: one that follows a script, and one at random."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from envs import Completion, Episode, Message
from envs.tools import ToolSpec
from rl.random_agent import Phrase, random_agent, read_words

__all__ = ["Phrase", "random_agent", "read_words", "scripted"]


def scripted(messages: Iterable[Message]) -> Callable[..., Any]:
    """Says these messages, one a turn, and then nothing more."""
    rest = iter(messages)

    async def policy(episode: Episode, tools: Mapping[str, ToolSpec]) -> Completion:
        return Completion(message=next(rest, Message(role="assistant")))

    return policy
