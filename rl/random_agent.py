"""A policy without a model that calls tools at random: what an environment must not pay for."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from envs.tools import ToolSpec
from envs.types import Completion, Episode, Message, ToolCall
from rl.policy import Policy

Phrase = Callable[[random.Random, list[str]], str]
"""A text for an argument, made of the words read so far."""

DEPTH = 4
"""How far objects in objects are filled in: a schema may refer to itself."""


def random_agent(rng: random.Random, phrases: Mapping[str, Phrase] | None = None) -> Policy:
    """Calls a random tool each turn, with arguments that fit its schema and words that it has read.

    One turn in ten it answers instead. Patterns, formats and bounds of a schema are not looked at.

    Args:
        rng: the seed.
        phrases: name of an argument -> how its text is made; a single word where none is given.
    """

    async def policy(episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        if rng.random() < 0.1 or not tools:
            return Completion(message=Message(role="assistant", content=f"It is {rng.randint(0, 99)}."))
        words = read_words(episode)
        name = rng.choice(list(tools))
        schema = tools[name].parameters
        fill = _Fill(rng, words, schema)
        arguments = {
            key: phrases[key](rng, words) if phrases and key in phrases else fill.value(about)
            for key, about in schema.get("properties", {}).items()
        }
        call = ToolCall(id=f"c{len(episode.turns)}", name=name, arguments=json.dumps(arguments))
        return Completion(message=Message(role="assistant", tool_calls=(call,)))

    return policy


def read_words(episode: Episode) -> list[str]:
    """Every word of the prompt and of what tools said."""
    texts = [m.content for m in episode.task.prompt] + [r.content for t in episode.turns for r in t.results]
    return re.findall(r"\w+", " ".join(texts))


class _Fill:
    """Random values by a schema, whose references lead into `whole`."""

    def __init__(self, rng: random.Random, words: list[str], whole: Mapping[str, Any]) -> None:
        self._rng, self._words, self._whole = rng, words, whole

    def value(self, schema: Any, depth: int = DEPTH) -> Any:
        rng = self._rng
        if not isinstance(schema, Mapping):  # true, in a schema, is anything
            schema = {}
        if "$ref" in schema:
            return self.value(self._referred(schema["$ref"]), depth - 1)
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return self.value(rng.choice(schema[choice]), depth)
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        kind = schema.get("type")
        match rng.choice(kind) if isinstance(kind, list) else kind:
            case "integer":
                return rng.randint(0, 99)
            case "number":
                return round(rng.uniform(0, 99), 2)
            case "boolean":
                return rng.random() < 0.5
            case "array":
                many = rng.randint(1, 3) if depth > 0 else 0
                return [self.value(schema.get("items"), depth - 1) for _ in range(many)]
            case "object":
                properties = schema.get("properties", {}) if depth > 0 else {}
                return {key: self.value(about, depth - 1) for key, about in properties.items()}
            case "null":
                return None
            case _:
                return rng.choice(self._words) if self._words else ""

    def _referred(self, reference: str) -> Any:
        """What `#/$defs/line` names."""
        found: Any = self._whole
        for part in filter(None, reference.removeprefix("#").split("/")):
            found = found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
        return found
