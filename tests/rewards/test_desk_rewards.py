"""The rewards at the desk: an expert is paid in full, and each way to go wrong costs what it should."""

import asyncio
from dataclasses import replace

import pytest

from envs import Completion, Episode, Message, Stop, Turn
from envs.desk import Desk
from rewards import build

REWARD = build(
    {
        "outcome": {"use": "state_equal", "require": ["done", "answered", "no_violations"]},
        "steps": "progress",
        "policy": "policy_kept",
        "repeats": "no_repeats",
        "form": "valid_calls",
    }
)


def judged(task, messages):
    async def play():
        env = Desk(task)
        turns = [Turn(completion=Completion(message=m), results=await env.step(m)) for m in messages]
        state = env.state()
        return await REWARD(Episode(id="1", env="desk", task=task, turns=turns, stop=Stop.DONE, state=state))

    return asyncio.run(play())


@pytest.fixture(scope="module")
def tasks():
    return Desk.tasks("test", orders=(1, 3), count=30)


def test_an_expert_is_paid_in_full(tasks):
    for task in tasks:
        script = Desk.expert(task)
        score = judged(task, script)
        calls = len(script) - 1
        assert score.parts == {"outcome": 1.0, "steps": calls, "policy": 0.0, "repeats": 0.0, "form": 0.0}
        assert score.turns == (*(1.0,) * calls, None)


def test_the_same_calls_in_one_turn_are_paid_the_same(tasks):
    for task in tasks:
        *calls, answer = Desk.expert(task)
        at_once = Message(role="assistant", tool_calls=tuple(c for m in calls for c in m.tool_calls))
        assert judged(task, [at_once, answer]).total == judged(task, [*calls, answer]).total


def test_stopping_early_asking_twice_and_changing_unchecked_all_cost(tasks):
    for task in tasks:
        script = Desk.expert(task)
        assert judged(task, script[-1:]).parts["outcome"] == 0.0
        assert judged(task, script[:-1]).parts["outcome"] == 0.0
        again = judged(task, [script[0], replace(script[0]), *script[1:]])
        assert (again.parts["outcome"], again.parts["repeats"], again.turns[1]) == (1.0, -1.0, -1.0)
        unchecked = judged(task, [script[0], *script[2:]])
        assert (unchecked.parts["outcome"], unchecked.parts["policy"]) == (0.0, -1.0)
