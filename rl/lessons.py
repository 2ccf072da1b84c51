"""What the embedded policy is taught: a job, demonstrated by somebody who knows it and is careless about it."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from envs import analyst, desk
from envs.environment import Environment
from envs.types import Completion, Episode, Message, Stop, Turn

Lesson = Literal["desk", "analyst"]
"""An environment that there are demonstrations for, by its name."""

Script = tuple[Environment, Sequence[Message]]
"""Where it is played, and the assistant messages."""


def demonstrations(count: int, lesson: Lesson = "desk", *, seed: int = 0, **own: Any) -> list[Episode]:
    """Scripted episodes, played for real: what the tools answered is in them.

    Args:
        own: options of the lesson, by the names that `options` knows.
    """
    scripts = LESSONS[lesson](count, random.Random(f"demonstrations/{seed}"), **own)

    async def play() -> list[Episode]:
        return [await played(env, script) for env, script in scripts]

    return asyncio.run(play())


async def played(env: Environment, script: Sequence[Message]) -> Episode:
    """The episode that a script comes to."""
    await env.setup()
    try:
        turns = [Turn(completion=Completion(message=each), results=await env.step(each)) for each in script]
    finally:
        await env.close()
    return Episode(id=env.task.id, env=env.name, task=env.task, turns=turns, stop=Stop.DONE, state=env.state())


def options(lesson: Lesson) -> tuple[str, ...]:
    """What a lesson can be told."""
    _count, _rng, *own = inspect.signature(LESSONS[lesson]).parameters
    return tuple(own)


def _desk(
    count: int, rng: random.Random, orders: Sequence[int] = (1, 3), noise: desk.Noise | None = None
) -> list[Script]:
    noise = noise or desk.Noise()
    tasks = desk.Desk.tasks("demonstrations", orders=orders, count=count)
    return [(desk.Desk(task), desk.demonstration(task, rng, noise)) for task in tasks]


def _analyst(count: int, rng: random.Random, slips: analyst.Slips | None = None) -> list[Script]:
    """Over tasks of the training split that no run is given unless it asks for more than the default."""
    slips = slips or analyst.Slips()
    spare = analyst.Analyst.tasks("train", difficulty="easy", count=analyst.MOST)[analyst.COUNTS["train"] :]
    tasks = itertools.islice(itertools.cycle(spare), count)
    return [(analyst.Analyst(task), analyst.demonstration(task, rng, slips)) for task in tasks]


LESSONS: Mapping[Lesson, Callable[..., list[Script]]] = MappingProxyType({"desk": _desk, "analyst": _analyst})
