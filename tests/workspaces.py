"""Episodes of environments whose model works in a sandbox, many in one event loop so that they share the sandboxes."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agents import Phrase, random_agent
from attacks.ground import missing
from envs import Environment, Episode, Task
from envs.sandbox import shared
from envs.script import Call, script
from rewards import Reward, Score, build
from rl.config import load
from rl.policy import ScriptPolicy
from rl.rollout import Limits, Player

ROOT = Path(__file__).parents[1]
no_tier = pytest.mark.skipif(bool(missing("bwrap") and missing("landlock")), reason="no tier can run here")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def runner() -> Iterator[Run]:
    """For a module's fixture: runs coroutines in one event loop, whose sandboxes end with it."""
    with asyncio.Runner() as made:
        yield made.run


def reward_of(config: str) -> Reward:
    """What a config of the house pays."""
    return build(load(ROOT / "configs" / config).reward)


async def play(
    kind: type[Environment], task: Task, policy: Any, reward: Reward, turns: int = 12
) -> tuple[Episode, Score]:
    """An episode and its score; played again, as in a run, if the machinery broke it."""
    played = await Player(env=kind, reward=reward, limits=Limits(turns=turns)).play(task, policy, id="1")
    return played.episode, played.score


async def did(kind: type[Environment], task: Task, reward: Reward, *calls: Call) -> tuple[Episode, Score]:
    """As `play`, with these calls, one a turn, and then nothing more."""
    turns = script(calls, "")
    return await play(kind, task, ScriptPolicy(turns), reward, turns=len(turns))


def said(episode: Episode) -> list[str]:
    """What the tools said."""
    return [result.content for turn in episode.turns for result in turn.results]


async def standing() -> tuple[int, int]:
    """Our descriptors, and the processes that live for the sandboxes of this event loop, when no more are started.

    The least of a second: a sandbox that is being taken down still has its process for a moment.
    """
    sandboxes = await shared()
    while len(sandboxes._ready) < sandboxes._standby:
        await asyncio.sleep(0.05)
    seen = []
    for _ in range(20):
        seen.append((len(os.listdir("/proc/self/fd")), _descendants(sandboxes.broker.pid)))
        await asyncio.sleep(0.05)
    return min(descriptors for descriptors, _ in seen), min(processes for _, processes in seen)


def _descendants(pid: int) -> int:
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(place.parent.name)] = int(fields[1])
    found, level = 0, {pid}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += len(level)
    return found


async def soaked(
    kind: type[Environment], tasks: Sequence[Task], reward: Reward, phrases: Mapping[str, Phrase], episodes: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Plays many random episodes, eight at a time. Descriptors and processes before and after."""
    slots = asyncio.Semaphore(8)

    async def one(n: int) -> None:
        async with slots:
            episode, _ = await play(kind, tasks[n % len(tasks)], random_agent(random.Random(n), phrases), reward)
            assert not episode.broken, episode.fault

    await asyncio.gather(*(one(n) for n in range(8)))
    before = await standing()
    await asyncio.gather(*(one(n) for n in range(episodes)))
    return before, await standing()
