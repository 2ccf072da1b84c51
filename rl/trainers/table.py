"""Episodes where people look at metrics: a W&B table of some of them at each logging step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from envs.types import Episode
from rl.rollout import Played

ROWS = 8
"""Episodes a table. All of them are in the run's records."""

COLUMNS = ("step", "task", "transcript", "reward", "stop")


class EpisodeTable(TrainerCallback):
    """Adds a table `episodes` to the W&B run that the Trainer's own callback has opened."""

    def __init__(self, latest: Callable[[], Sequence[Played]]) -> None:
        self._latest = latest

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        import wandb

        table = wandb.Table(columns=list(COLUMNS))
        for played in self._latest()[:ROWS]:
            episode = played.episode
            reward = None if played.score.error else played.score.total
            table.add_data(state.global_step, episode.task.id, transcript(episode), reward, str(episode.stop))
        wandb.log({"episodes": table, "train/global_step": state.global_step})


def transcript(episode: Episode) -> str:
    """What was said and what was done, as text to read."""
    parts = []
    for message in episode.messages:
        calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
        parts.append("\n".join([f"[{message.role}]", *filter(None, [message.content]), *calls]))
    return "\n".join(parts)
