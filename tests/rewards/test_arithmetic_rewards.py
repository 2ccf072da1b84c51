"""The way through a sum: a step pays once, and only where it was due."""

import asyncio

from envs import Completion, Episode, Stop, Turn
from envs.arithmetic import Arithmetic
from rewards import build

STEPS = build({"steps": "progress", "repeats": {"use": "no_repeats", "weight": 0.5}, "form": "valid_calls"})


def judged(task, messages):
    async def play():
        env = Arithmetic(task)
        turns = [Turn(completion=Completion(message=m), results=await env.step(m)) for m in messages]
        return await STEPS(Episode(id="1", env="arithmetic", task=task, turns=turns, stop=Stop.DONE, state=env.state()))

    return asyncio.run(play())


def test_an_expert_is_paid_for_every_step_and_nobody_for_the_answer():
    for task in Arithmetic.tasks("test", steps=3, count=10):
        assert judged(task, Arithmetic.expert(task)).turns == (1.0, 1.0, 1.0, None)


def test_a_step_made_again_and_again_pays_once_and_costs_from_then_on():
    task = Arithmetic.tasks("test", steps=2, count=1)[0]
    first, *rest = Arithmetic.expert(task)
    assert judged(task, [first, first, first, *rest]).turns == (1.0, -0.5, -0.5, 1.0, None)
