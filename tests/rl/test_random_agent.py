"""The random agent: arguments that fit whatever schema there is."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from envs import Environment, Episode, Task, ToolSpec
from envs.schemas import JsonSchema
from rl.random_agent import random_agent

SCHEMAS: dict[str, dict[str, Any]] = {
    "nothing": {"type": "object"},
    "kinds": {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "number"},
            "c": {"type": "boolean"},
            "d": {"type": "array", "items": {"type": "array", "items": {"type": "null"}}},
            "e": {"type": ["string", "null"]},
            "f": {"oneOf": [{"const": 3}, {"enum": ["x", "y"]}]},
            "g": True,
            "h": {"type": "array"},
        },
        "required": list("abcdefgh"),
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/place~1home"}},
        "required": ["to"],
        "$defs": {
            "place/home": {
                "type": "object",
                "properties": {"street": {"type": "string"}, "no": {"type": "integer"}},
                "required": ["street", "no"],
            }
        },
    },
    "of-itself": {
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "right": {"type": "array", "items": {"$ref": "#"}}},
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_arguments_fit_the_schema_of_any_server(name: str) -> None:
    async def method(env: Environment) -> None: ...

    arguments = JsonSchema(SCHEMAS[name], name)
    tools = {name: ToolSpec(name=name, description="", arguments=arguments, timeout=1, method=method)}
    for prompt in ("Some words to use.", "..."):
        episode = Episode(id="e", env="x", task=Task.ask(prompt))
        agent = random_agent(random.Random(0))
        calls = [call for _ in range(50) for call in asyncio.run(_say(agent, episode, tools)).tool_calls]
        assert len(calls) > 30
        for call in calls:
            assert arguments.parse(call.arguments) == json.loads(call.arguments)


async def _say(agent: Any, episode: Episode, tools: Any) -> Any:
    return (await agent(episode, tools)).message


def test_without_tools_it_answers() -> None:
    episode = Episode(id="e", env="x", task=Task.ask("Well?"))
    assert asyncio.run(_say(random_agent(random.Random(1)), episode, {})).content.startswith("It is ")
