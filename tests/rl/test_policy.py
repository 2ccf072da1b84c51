"""Policies behind a chat endpoint, spoken to over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from envs import Environment, Message, Stop, Task, ToolCall, tool
from envs.types import Completion, Episode
from made import turn
from rl.policy import ChatPolicy, ContextFull, PolicyError, ScriptPolicy, as_openai, turn_seed
from rl.rollout import Limits, run_episode
from served import Server


class Sums(Environment):
    @tool
    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b


TASK = Task.ask("What is 2 + 3?", id="t")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def said(content: str | None = None, *calls: tuple[str, str], finish: str = "stop") -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"id": f"x{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def play(url: str, **request: Any) -> Episode:
    async def episode() -> Episode:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=5) as client:
            return await run_episode(Sums(TASK), ChatPolicy(client, "m", **request), Limits(), id="t#0")

    return asyncio.run(episode())


def test_a_chat_endpoint_plays_with_tools(server: Server) -> None:
    calls = [("add", '{"a": 2, "b": 3}'), ("add", "{broken"), ("sub", "{}")]
    answers = iter([said(None, *calls, finish="tool_calls"), said("It is 5.")])
    server.answer = lambda request: (200, next(answers))
    episode = play(server.url, temperature=0.3, max_tokens=7)
    assert (episode.stop, episode.answer) == (Stop.DONE, "It is 5.")
    assert [result.fault for result in episode.turns[0].results] == [None, "bad_arguments", "unknown_tool"]
    assert [call.arguments for call in episode.turns[0].completion.message.tool_calls] == [c[1] for c in calls]
    assert (episode.cost.prompt_tokens, episode.cost.sampled_tokens, episode.cost.tool_calls) == (22, 10, 3)
    first, second = server.heard
    assert first["path"] == "/v1/chat/completions"
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0.3, 7)
    assert first["tools"] == [spec.schema for spec in Sums.tools().values()]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool", "tool", "tool"]
    assert second["messages"][2] == {"role": "tool", "content": "5", "tool_call_id": "x0"}
    assert second["messages"][1]["tool_calls"][1]["function"] == {"name": "add", "arguments": "{broken"}


def test_a_turn_cut_short_by_its_limit_is_truncated(server: Server) -> None:
    server.answer = lambda request: (200, said("It is", finish="length"))
    assert play(server.url).stop is Stop.TRUNCATED


@pytest.mark.parametrize(
    "answer",
    [(500, {"error": {"message": "oh"}}), (200, "<html>a proxy</html>"), (200, {"choices": []}), (400, {"error": {}})],
    ids=["error", "web page", "no choices", "refused"],
)
def test_an_endpoint_that_gives_no_answer_is_the_machinerys_fault(server: Server, answer: tuple[int, Any]) -> None:
    server.answer = lambda request: answer
    episode = play(server.url)
    assert episode.stop is Stop.FAULT
    assert server.url in str(episode.fault)


def test_a_server_that_is_down_is_named(server: Server) -> None:
    server.close()
    episode = play(server.url)
    assert (episode.stop, episode.turns) == (Stop.FAULT, [])
    assert server.url in str(episode.fault)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too long", "code": "context_length_exceeded"},
        {"message": "This model's maximum context length is 512 tokens. However, you requested 600", "code": 400},
    ],
    ids=["OpenAI's way", "vLLM's way"],
)
def test_a_conversation_that_does_not_fit_is_no_fault(server: Server, error: dict[str, Any]) -> None:
    server.answer = lambda request: (400, {"error": error})
    assert play(server.url).stop is Stop.MAX_TOKENS


def test_a_script_says_its_lines_in_order_and_complains_when_it_is_over() -> None:
    policy = ScriptPolicy([Message(role="assistant", content="one")])
    episode = Episode(id="e", env="sums", task=TASK)
    completion: Completion = asyncio.run(policy(episode, {}))
    assert completion.message.content == "one"
    episode.turns.append(turn())
    with pytest.raises(PolicyError, match="the script has 1 turns"):
        asyncio.run(policy(episode, {}))


def test_messages_take_the_shape_of_the_chat_api() -> None:
    call = ToolCall(id="c", name="add", arguments='{"a": 1}')
    assert as_openai(Message(role="assistant", tool_calls=(call,))) == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
    }
    assert as_openai(Message(role="user", content="hi")) == {"role": "user", "content": "hi"}


def test_a_turns_seed_is_the_same_everywhere_and_its_own() -> None:
    assert turn_seed(0, "t@3#1", 2) == 2707068494
    seeds = {turn_seed(seed, f"t#{k}", n) for seed in range(5) for k in range(20) for n in range(20)}
    assert len(seeds) == 5 * 20 * 20
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_full_context_is_not_a_policy_error() -> None:
    assert not issubclass(ContextFull, PolicyError), "it would be retried"
