"""A judge on a real server, whose verdicts a test computes from what it was shown; and episodes to be judged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from envs import Completion, Episode, Message, Stop, Task, ToolCall, ToolResult, Turn
from served import Server, completion


@dataclass(frozen=True)
class Shown:
    """What a request shows, read back: what it says ahead of the record, the record, and what it says after it."""

    system: str
    mark: str
    lines: list[dict[str, Any]]
    after: str


def shown(request: dict[str, Any]) -> Shown:
    """Read a request as a judge is told to."""
    system, user = (message["content"] for message in request["messages"])
    found = re.fullmatch(
        r"The record stands between the two lines marked (\w{32})\.\n\nBEGIN \1\n(.*)\nEND \1(.*)", user, re.DOTALL
    )
    assert found is not None, user
    return Shown(system, found[1], [json.loads(line) for line in found[2].split("\n")], found[3])


@contextmanager
def judge(verdict: Callable[[Shown], Any]) -> Iterator[Server]:
    """A server whose completions say what the verdict of a request is, a text as it is."""
    server = Server()

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        said = verdict(shown(request))
        return 200, completion(said if isinstance(said, str) else json.dumps(said))

    server.answer = answer
    try:
        yield server
    finally:
        server.close()


def turn(text: str = "", **results: str) -> Turn:
    """A turn that says a text and calls tools, by name: what they gave."""
    calls = tuple(ToolCall(id=f"c{n}", name=name, arguments="{}") for n, name in enumerate(results))
    message = Message(role="assistant", content=text, tool_calls=calls)
    gave = tuple(ToolResult(call_id=c.id, name=c.name, content=results[c.name]) for c in calls)
    return Turn(completion=Completion(message=message), results=gave)


def episode(*turns: Turn, ask: str = "What?", stop: Stop = Stop.DONE, name: str = "e", **item: Any) -> Episode:
    """An episode of these turns."""
    return Episode(id=name, env="made", task=Task.ask(ask, id="t", **item), turns=list(turns), stop=stop)
