"""Runs of careless clerks at the desk, recorded without a model: rows as a tiny policy would have sampled them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from envs.desk import Desk, Noise, demonstration
from envs.environment import Environment
from envs.types import Task
from rewards import build
from rl.chat import Chat
from rl.collect import Group
from rl.config import parse
from rl.feed import Ticket
from rl.lessons import played
from rl.records import Run
from rl.rollout import Played
from rl.trainers.sft import written

SUCCESS = {"use": "state_equal", "require": ["done", "answered", "no_violations"]}
NOISE = Noise(skip=0.3, defy=0.6, stop=0.1, slip=0.02)


def config(base: Path, output_dir: Path, **changes: Any) -> dict[str, Any]:
    """A run at the desk with a base of the desk's tokenizer."""
    tree: dict[str, Any] = {
        "model": str(base),
        "env": {"use": "desk", "options": {"orders": [1, 2]}},
        "reward": {"success": SUCCESS},
        "output_dir": str(output_dir),
        "rollout": {"turns": 9, "max_tokens": 64},
        "engine": {"max_model_len": 1024, "kv_cache_memory_bytes": 1 << 26},
    }
    return tree | changes


def record(base: Path, output_dir: Path, *, tasks: int, samples: int = 8, **changes: Any) -> Path:
    """A run directory with so many groups of so many episodes."""
    made: Mapping[str, Any] = parse(config(base, output_dir, **changes)).model_dump(mode="json")
    dealt, chat = Desk.tasks("train", orders=(1, 2), count=tasks), Chat(AutoTokenizer.from_pretrained(base))
    with Run.create(output_dir, made) as run:
        for position, group in enumerate(asyncio.run(_groups(dealt, samples, chat))):
            run.record(0, Group(ticket=Ticket(position, dealt[position]), played=group))
    return output_dir


async def _groups(tasks: list[Task], samples: int, chat: Chat) -> list[tuple[Played, ...]]:
    reward, rng = build(SUCCESS), random.Random(0)

    async def one(task: Task, sample: int) -> Played:
        env: Environment = Desk(task)
        episode = written(await played(env, demonstration(task, rng, NOISE)), chat, ())
        episode.id = f"{task.id}#{sample}"
        return Played(episode=episode, score=await reward(episode))

    return [tuple([await one(task, sample) for sample in range(samples)]) for task in tasks]
