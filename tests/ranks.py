"""One rank of a PPO update whose episodes are made up: `python -m torch.distributed.run ... ranks.py BASE OUT`."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from batches import made_up, settings
from rl.samples import Sample

ROWS, STEPS = 8, 3


def judged(step: int, place: int) -> Sample:
    """Row `place` of a step's batch, the same whichever rank it falls to."""
    rng = random.Random(100 * step + place)
    sample = made_up(rng, unscored=place == 5)
    values = tuple(rng.uniform(-1, 1) for _ in sample.row.turns)
    returns = tuple(rng.uniform(-1, 1) if m else None for m in sample.row.mask)
    return replace(sample, values=values, returns=returns)


def update(base: str, out: Path) -> dict[str, Any]:
    """A few updates over all ranks; the trained weights by name."""
    from accelerate import PartialState
    from transformers import AutoTokenizer, set_seed

    from rl.config import PPOConfig
    from rl.trainers.ppo import EpisodePPOTrainer
    from rl.trainers.settings import lora_config

    process = PartialState(cpu=True)
    size = ROWS // process.num_processes
    first = process.process_index * size
    fields = {"max_steps": STEPS, "per_device_train_batch_size": size, "gradient_accumulation_steps": 1}
    set_seed(0)
    trainer = EpisodePPOTrainer(
        ppo=PPOConfig(critic_learning_rate=5e-3),
        model=base,
        args=settings(out, gradient_checkpointing=True, **fields),
        tokenizer=AutoTokenizer.from_pretrained(base),
        lora=lora_config({"r": 4}),
        rollout=lambda step, rows: [judged(step, first + place) for place in range(rows)],
        tasks=16,
    )
    trainer.train()
    return {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}


if __name__ == "__main__":
    from accelerate import PartialState
    from safetensors.torch import save_file

    found = update(sys.argv[1], Path(sys.argv[2]))
    save_file(found, Path(sys.argv[2], f"rank{PartialState().process_index}.safetensors"))
