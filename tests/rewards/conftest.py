"""Episodes made by hand, for rewards to judge."""

import json

import pytest

from envs import Completion, Episode, Message, Stop, Task, ToolCall, ToolResult, Turn


@pytest.fixture(scope="session")
def played():
    """A function that makes an episode.

    `calls` holds one list a turn; a call is a tool's name, or (name, arguments), or (name, arguments,
    fault). Ids count up over the episode: "0", "1", ... An answer adds a turn without calls.
    """

    def make(answer=None, *, calls=(), item=None, state=None, stop=Stop.DONE, fault=None):
        turns, number = [], 0
        for made in calls:
            tool_calls, results = [], []
            for call in made:
                name, arguments, failed = (call, {}, None) if isinstance(call, str) else (*call, None)[:3]
                text = arguments if isinstance(arguments, str) else json.dumps(arguments)
                tool_calls.append(ToolCall(id=str(number), name=name, arguments=text))
                results.append(ToolResult(call_id=str(number), name=name, content="", fault=failed))
                number += 1
            message = Message(role="assistant", tool_calls=tuple(tool_calls))
            turns.append(Turn(completion=Completion(message=message), results=tuple(results)))
        if answer is not None:
            turns.append(Turn(completion=Completion(message=Message(role="assistant", content=answer))))
        task = Task.ask("What?", **(item or {}))
        return Episode(id="e", env="hand", task=task, turns=turns, stop=stop, fault=fault, state=state or {})

    return make
