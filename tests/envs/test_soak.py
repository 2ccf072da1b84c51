"""Random agents in the environments whose tools keep nothing outside: they solve next to nothing and leave nothing."""

import asyncio
import copy
import gc
import os
import random
import statistics
import threading
import tracemalloc
from functools import cache

import pytest

from agents import random_agent
from envs import ENVS
from rewards import build
from rl.rollout import Limits, run_episode

SUCCESS = {
    "arithmetic": {"use": "numeric"},
    "desk": {"use": "state_equal", "require": ["done", "answered", "no_violations"]},
    "desk_talk": {"use": "state_equal", "require": ["done", "answered", "no_violations"]},
}
OPTIONS = {"arithmetic": {"steps": 2}}


@cache
def tasks(env):
    return ENVS[env].tasks("train", **OPTIONS.get(env, {}), count=50)


def succeeded(env, episodes):
    """How the random agents of these numbers did, in one event loop."""
    reward = build({"success": SUCCESS[env]})

    async def run():
        scores = []
        for n in episodes:
            agent = random_agent(random.Random(n))
            episode = await run_episode(ENVS[env](tasks(env)[n % 50]), agent, Limits(turns=8), id="1")
            scores.append((await reward(episode)).value)
        return scores

    return asyncio.run(run())


@pytest.mark.parametrize("env", SUCCESS)
def test_a_random_agent_solves_next_to_nothing(env):
    assert statistics.mean(succeeded(env, range(100))) < 0.1


@pytest.mark.parametrize("env", SUCCESS)
def test_no_state_crosses_episodes(env):
    kind, task = ENVS[env], tasks(env)[0]
    item = copy.deepcopy(dict(task.item))
    first, second = kind(task), kind(task)
    untouched = copy.deepcopy(dict(second.state()))

    async def played(one):
        for message in kind.expert(task):
            await one.step(message)
        return copy.deepcopy(dict(one.state()))

    planted = asyncio.run(played(first))
    assert planted != untouched
    assert (dict(second.state()), dict(kind(task).state()), dict(task.item)) == (untouched, untouched, item)
    assert asyncio.run(played(second)) == planted


@pytest.mark.slow
@pytest.mark.parametrize("env", SUCCESS)
def test_a_thousand_random_episodes_leave_nothing_behind(env):
    succeeded(env, range(300))
    tracemalloc.start()
    left = []
    for episodes in (range(300, 400), range(400, 1400)):
        succeeded(env, episodes)
        gc.collect()
        left.append((tracemalloc.get_traced_memory()[0], len(os.listdir("/proc/self/fd"))))
    tracemalloc.stop()
    assert left[1][0] - left[0][0] < 300_000
    assert left[1][1] == left[0][1]
    for thread in threading.enumerate():
        if thread.name == "tool":
            thread.join(timeout=5)  # the last one may be on its way out
            assert not thread.is_alive()
