"""Rows of hosted fine-tuning played: single turns, and tools that real HTTP servers carry out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from envs.bridges import hosted
from envs.bridges.hosted import Hosted, ToolServer, task_of
from envs.errors import InputError
from envs.types import Episode, Message, Stop, Task, ToolCall
from rewards.graders import Grader, parse
from rl.policy import ScriptPolicy
from rl.rollout import Limits, Played, Player, run_episode
from served import Server

PARAMETERS = {
    "type": "object",
    "properties": {"q": {"type": "string", "title": "Query"}},
    "required": ["q"],
    "additionalProperties": False,
}
ROW = {
    "messages": [{"role": "developer", "content": "Use the tool."}, {"role": "user", "content": "Where is it?"}],
    "tools": [
        {"type": "function", "function": {"name": "search", "description": "Finds.", "parameters": PARAMETERS}},
        {"type": "function", "function": {"name": "look"}},
    ],
    "answer": "here",
}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "BACKOFF", 0.001)


def said(text: str = "", *calls: tuple[str, str]) -> Message:
    made = tuple(ToolCall(id=f"call_{i}", name=name, arguments=arguments) for i, (name, arguments) in enumerate(calls))
    return Message(role="assistant", content=text, tool_calls=made)


def env(*servers: Server) -> type[Any]:
    """`search` and `look` at the servers, or both at the one."""
    at = dict(zip(("search", "look"), servers * 2, strict=False))
    key = {"X-Key": "secret"}
    return Hosted.configured({name: ToolServer(server_url=s.url, headers=key) for name, s in at.items()})


def played(kind: type[Any], *turns: Message, task: Task | None = None) -> Episode:
    made = kind(task or task_of(ROW, "row 1"))
    return asyncio.run(run_episode(made, ScriptPolicy(turns), Limits(turns=8), id="1"))


def test_a_row_is_a_task_and_its_tools_are_shown_as_they_are() -> None:
    task = task_of(ROW, "row 1")
    assert [message.role for message in task.prompt] == ["system", "user"]
    assert task.item == ROW
    tools = Hosted(task).available()
    assert tools["search"].schema == {
        "type": "function",
        "function": {"name": "search", "description": "Finds.", "parameters": PARAMETERS},
    }
    assert tools["look"].parameters == {"type": "object", "properties": {}}
    assert tools == Hosted(task).available() and hash(tuple(tools.values())), (
        "prompts are rendered once for equal tools"
    )


def test_without_servers_the_first_turn_is_the_episode_and_its_calls_are_graded() -> None:
    episode = played(Hosted.configured(), said("", ("search", '{"q": "x"}')))
    assert (episode.stop, len(episode.turns), episode.turns[0].results) == (Stop.DONE, 1, ())
    grader = {
        "type": "string_check",
        "name": "called",
        "input": "{{ sample.output_tools[0].function.name }}",
        "reference": "search",
        "operation": "eq",
    }
    assert asyncio.run(Grader(parse(grader))(episode)).value == 1.0


def test_calls_go_to_their_servers_with_one_trace_and_the_row(server: Server) -> None:
    other = Server()
    server.answer = lambda request: (200, {"type": "function_call_output", "output": f"found {request['arguments']}"})
    other.answer = lambda request: (200, {"output": "looked"})
    try:
        turns = (said("", ("search", '{"q": "a"}'), ("look", "")), said("", ("search", '{"q": "é"}')), said("here"))
        episode = played(env(server, other), *turns)
    finally:
        other.close()
    assert episode.stop == Stop.DONE
    assert [[r.content for r in turn.results] for turn in episode.turns] == [
        ['found {"q": "a"}', "looked"],
        ['found {"q": "é"}'],
        [],
    ]
    heard = [*server.heard, *other.heard]
    assert len({request["trace_id"] for request in heard}) == 1
    assert heard[0]["trace_id"] == episode.context["trace_id"]
    for request in heard:
        assert set(request) == {"path", "type", "id", "call_id", "name", "arguments", "trace_id", "item"}
        assert request["type"] == "function_call" and request["item"] == ROW
        assert request["id"].startswith("fc_") and request["call_id"].startswith("call_")
    assert len({request["call_id"] for request in heard}) == 3
    assert [json.loads(request["arguments"]) for request in heard] == [{"q": "a"}, {"q": "é"}, {}]


def test_another_rollout_has_another_trace(server: Server) -> None:
    server.answer = lambda request: (200, {"output": ""})
    for _ in range(2):
        played(env(server), said("", ("look", "{}")), said("done"))
    assert len({request["trace_id"] for request in server.heard}) == 2


def test_the_endpoint_grader_is_told_the_trace_that_the_tools_were(server: Server) -> None:
    server.answer = lambda request: (200, {"output": "x"} if "name" in request else {"score": 0.25})
    episode = played(env(server), said("", ("look", "{}")), said("done"))
    score = asyncio.run(Grader(parse({"type": "endpoint", "name": "e", "url": server.url}))(episode))
    assert score.value == 0.25
    tool, grader = server.heard
    assert tool["trace_id"] == grader["trace_id"]


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        ((400, {"error": "no such q"}), 'Error: {"error": "no such q"}'),
        ((404, "gone"), "Error: gone"),
        ((422, {"output": "try again"}), "Error: try again"),
        ((429, {}), "Error: {}"),
    ],
)
def test_what_a_server_complains_about_goes_to_the_model(server: Server, answer: tuple[int, Any], content: str) -> None:
    server.answer = lambda request: answer
    episode = played(env(server), said("", ("look", "{}")), said("done"))
    (result,) = episode.turns[0].results
    assert (episode.stop, result.content, result.fault, len(server.heard)) == (Stop.DONE, content, "raised", 1)


@pytest.mark.parametrize("answer", [(500, {}), (503, "down"), (200, "web page"), (200, {"result": 1}), (302, {})])
def test_a_server_that_fails_is_asked_three_more_times_and_then_the_rollout_is_lost(
    server: Server, answer: tuple[int, Any]
) -> None:
    server.answer = lambda request: answer
    episode = played(env(server), said("", ("look", "{}")), said("done"))
    assert (episode.stop, len(server.heard)) == (Stop.ENV_LOST, 4)
    assert server.url in (episode.fault or "") and "failed 4 times" in (episode.fault or "")
    assert len({request["call_id"] for request in server.heard}) == 1, "a retry is the same call"


def test_a_server_that_comes_back_is_no_fault(server: Server) -> None:
    answers = iter([(500, {}), (502, {}), (503, {}), (200, {"output": "at last"})])
    server.answer = lambda request: next(answers)
    episode = played(env(server), said("", ("look", "{}")), said("done"))
    assert episode.turns[0].results[0].content == "at last"


def test_a_rollout_that_is_lost_is_discarded_and_counted(server: Server) -> None:
    from rl.evaluate import summarise

    server.answer = lambda request: (500, {}) if request["item"]["answer"] == "bad" else (200, {"output": ""})
    kind = env(server)

    def script(episode: Episode) -> Message:
        return said("here") if episode.turns else said("", ("look", "{}"))

    async def worth(episode: Episode) -> Any:
        from rewards.score import Score

        return Score(value=1.0)

    player = Player(env=kind, reward=worth, retries=0)
    tasks = [task_of(ROW | {"answer": answer}, "row") for answer in ("good", "bad", "fine")]

    async def play() -> list[Played]:
        return await player.play_all([(task, str(i)) for i, task in enumerate(tasks)], ScriptPolicy(script))

    found = asyncio.run(play())
    assert [p.score.error is None for p in found] == [True, False, True]
    report = summarise(found)
    assert (report.broken, report.score, report.episodes) == (1, 1.0, 3)


def test_a_server_that_is_down_or_hangs_loses_the_rollout(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(hosted, "RETRIES", 1)
    monkeypatch.setattr(hosted, "SECONDS", 0.2)
    server.answer = lambda request: time.sleep(1.0) or (200, {"output": ""})  # type: ignore[func-returns-value]
    assert played(env(server), said("", ("look", "{}"))).stop == Stop.ENV_LOST
    gone = Server()
    gone.close()
    assert played(env(gone), said("", ("look", "{}"))).stop == Stop.ENV_LOST


def test_a_call_or_an_answer_over_1_mb_is_a_413_for_the_model(server: Server) -> None:
    server.answer = lambda request: (200, {"output": "x" * 1_000_000})
    long = json.dumps({"q": "x" * 1_000_000})
    episode = played(env(server), said("", ("search", long)), said("", ("look", "{}")), said("done"))
    call, answer = (turn.results[0].content for turn in episode.turns[:2])
    assert '"code": 413' in call and "the call is larger than 1,000,000 bytes" in call
    assert '"code": 413' in answer and "the answer is larger" in answer
    assert [request["name"] for request in server.heard] == ["look"]


@pytest.mark.parametrize(
    ("call", "fault"),
    [(("find", "{}"), "unknown_tool"), (("look", "{"), "bad_arguments"), (("look", "[]"), "bad_arguments")],
)
def test_what_no_server_could_answer_is_answered_here(server: Server, call: tuple[str, str], fault: str) -> None:
    episode = played(env(server), said("", call), said("done"))
    assert (episode.turns[0].results[0].fault, server.heard) == (fault, [])


def test_a_guard_in_a_row_narrows_its_tools(server: Server) -> None:
    server.answer = lambda request: (200, {"output": "x"})
    task = task_of(ROW | {"guard": {"deny": ["look"]}}, "row 1")
    episode = played(env(server), said("", ("look", "{}"), ("search", "{}")), said("done"), task=task)
    assert [result.fault for result in episode.turns[0].results] == ["denied", None]
    with pytest.raises(InputError, match="guard"):
        env(server)(task_of(ROW | {"guard": "no"}, "row 1"))


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"messages": "hello"}, "a row needs 'messages'"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "it must be the user's"),
        ({"messages": ROW["messages"], "tools": {}}, "tools: Input should be a valid list"),
        ({"messages": ROW["messages"], "tools": [{"type": "function", "function": {"name": "a b"}}]}, "function.name"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ],
)
def test_a_row_that_can_not_be_played_says_why(row: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InputError, match=f"row 3: .*{wrong}"):
        task_of(row, "row 3")
