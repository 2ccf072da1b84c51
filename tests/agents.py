"""Policies without a model: one that follows a script, and one that calls tools at random."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from envs import Completion, Episode, Message, ToolCall
from envs.tools import ToolSpec

Phrase = Callable[[random.Random, list[str]], str]
"""A text for an argument, made of the words read so far."""


def scripted(messages: Iterable[Message]) -> Callable[..., Any]:
    """Says these messages, one a turn, and then nothing more."""
    rest = iter(messages)

    async def policy(episode: Episode, tools: Mapping[str, ToolSpec]) -> Completion:
        return Completion(message=next(rest, Message(role="assistant")))

    return policy


def random_agent(rng: random.Random, phrases: Mapping[str, Phrase] | None = None) -> Callable[..., Any]:
    """Calls a random tool each turn, with arguments that fit its schema and words that it has read.

    Args:
        rng: the seed.
        phrases: name of an argument -> how its text is made; a single word where none is given.
    """

    async def policy(episode: Episode, tools: Mapping[str, ToolSpec]) -> Completion:
        if rng.random() < 0.1:
            return Completion(message=Message(role="assistant", content=f"It is {rng.randint(0, 99)}."))
        words = read_words(episode)
        name = rng.choice(list(tools))
        schema = tools[name].parameters
        arguments = {
            key: phrases[key](rng, words) if phrases and key in phrases else _value(rng, about, words)
            for key, about in schema["properties"].items()
        }
        call = ToolCall(id=f"c{len(episode.turns)}", name=name, arguments=json.dumps(arguments))
        return Completion(message=Message(role="assistant", tool_calls=(call,)))

    return policy


def read_words(episode: Episode) -> list[str]:
    """Every word of the prompt and of what tools said."""
    texts = [m.content for m in episode.task.prompt] + [r.content for t in episode.turns for r in t.results]
    return re.findall(r"\w+", " ".join(texts))


def _value(rng: random.Random, schema: Mapping[str, Any], words: list[str]) -> Any:
    if "anyOf" in schema:
        return _value(rng, rng.choice(schema["anyOf"]), words)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    match schema.get("type"):
        case "integer":
            return rng.randint(0, 99)
        case "number":
            return round(rng.uniform(0, 99), 2)
        case "array":
            return [_value(rng, schema["items"], words) for _ in range(rng.randint(1, 3))]
        case "null":
            return None
        case _:
            return rng.choice(words)
