"""Training batches made up from a seed, for trainers that are tried without an engine."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from rl.config import parse
from rl.rows import Row
from rl.samples import Sample


def settings(output_dir: Path, **trainer: Any) -> Any:
    """A trainer's settings: two updates of two micro-batches of four rows."""
    from rl.trainers.settings import grpo_config

    fields: dict[str, Any] = {
        "max_steps": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "learning_rate": 1e-2,
    }
    tree: dict[str, Any] = {"model": "x", "env": {"use": "desk"}, "reward": {}, "output_dir": str(output_dir)}
    return grpo_config(parse(tree | {"trainer": fields | trainer}), output_dir)


def made_up(rng: random.Random, unscored: bool = False, prompt: tuple[int, ...] = ()) -> Sample:
    """An episode of three turns with tool results between, of a length of its own."""
    prompt = prompt or tuple(rng.randrange(10, 700) for _ in range(rng.randint(3, 9)))
    mask: list[int] = []
    turns: list[int] = []
    for turn in range(3):
        spoken, heard = rng.randint(2, 12), rng.randint(1, 9)
        mask += [1] * spoken + [0] * heard * (turn < 2)
        turns += [turn] * spoken + [-1] * heard * (turn < 2)
    credit = [rng.uniform(-2, 2) for _ in range(3)]
    row = Row(
        prompt_ids=prompt,
        completion_ids=tuple(rng.randrange(10, 700) for _ in mask),
        mask=tuple(0 if unscored else m for m in mask),
        logprobs=tuple(rng.uniform(-9.0, -4.5) if m else 0.0 for m in mask),
        turns=tuple(turns),
    )
    spread = tuple(0.0 if turn < 0 or unscored else credit[turn] for turn in turns)
    return Sample(row=row, advantages=spread, reward=None if unscored else sum(credit))
