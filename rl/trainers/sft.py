"""Supervised fine-tuning on episodes: a warm start on demonstrations, or on episodes worth keeping.

A thin skin over TRL's SFTTrainer. Rows arrive as token ids, exactly as a rollout would see and sample
them, so nothing is tokenised here or in TRL.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from envs.environment import ToolSpec
from envs.errors import InputError
from envs.types import Completion, Episode, Turn
from rl.chat import Chat
from rl.rows import Row, row
from rl.trainers import heap
from rl.trainers.settings import check_fields

IGNORED = {
    "assistant_only_loss": "only sampled tokens carry loss",
    "chat_template_path": "rows are tokenised by the chat of the rollouts",
    "completion_only_loss": "only sampled tokens carry loss",
    "dataset_text_field": "rows are token ids",
    "eos_token": "rows hold the stop tokens of the rollouts",
    "pad_token": "padding is masked; the tokenizer names its token",
}
"""SFTConfig fields that token rows make meaningless, and why."""


def settings(output_dir: str, fields: Mapping[str, Any]) -> SFTConfig:
    """TRL's SFTConfig of fields by their own names.

    Rows are never cut unless `max_length` says so; every other default is TRL's.

    Raises:
        InputError: a field that does not exist, that would have no effect, or with a value TRL refuses.
    """
    check_fields(SFTConfig, fields, "trainer", IGNORED)
    try:
        return SFTConfig(**{"output_dir": output_dir, "max_length": None, "report_to": [], **fields})
    except ValueError as error:
        raise InputError(f"trainer: {error}") from error


def rows_of(episodes: Iterable[Episode], chat: Chat, tools: Sequence[ToolSpec]) -> list[Row]:
    """One row an episode: as it was sampled where it was, else as the model would have sampled it.

    Raises:
        ValueError: the chat template can't say what a scripted turn says, or a sampled turn does not
            extend the one before.
    """
    return [row(episode if _sampled(episode) else written(episode, chat, tools)) for episode in episodes]


def written(episode: Episode, chat: Chat, tools: Sequence[ToolSpec]) -> Episode:
    """A scripted episode with the token ids that a rollout of the same messages has; logprobs are 0."""
    prompt = chat.prompt(episode.task.prompt, tools)
    turns = []
    for turn in episode.turns:
        message = turn.completion.message
        ids = chat.write(message)
        completion = Completion(
            message=message, prompt_ids=tuple(prompt), token_ids=tuple(ids), logprobs=(0.0,) * len(ids)
        )
        turns.append(Turn(completion=completion, results=turn.results))
        if turn.results:
            prompt = chat.extend([*prompt, *ids], completion, turn.results)
    return dataclasses.replace(episode, turns=turns)


def dataset(rows: Sequence[Row], *, context_share: float = 0.0, seed: int = 0) -> Dataset:
    """Columns `input_ids` and `labels`; labels are -100 where a token carries no loss.

    Sampled tokens carry loss. Of the others (prompt, tool results) a random `context_share` does:
    a little of it teaches a small model to read, in expectation the same as weighting them by it.
    """
    rng = random.Random(seed)
    columns: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for each in rows:
        ids = [*each.prompt_ids, *each.completion_ids]
        mask = [0] * len(each.prompt_ids) + list(each.mask)
        columns["input_ids"].append(ids)
        columns["labels"].append(
            [i if sampled or rng.random() < context_share else -100 for i, sampled in zip(ids, mask, strict=True)]
        )
    return Dataset.from_dict(columns)


def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    args: SFTConfig,
    *,
    lora: LoraConfig | None = None,
    context_share: float = 0.0,
    optimizer: torch.optim.Optimizer | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    held_out: Sequence[Row] = (),
    resume: str | None = None,
) -> SFTTrainer:
    """Train on the rows and return TRL's trainer, whose `model` is the result.

    `held_out` rows are what `eval_strategy` measures, `resume` is a checkpoint to go on from. With `lora` only an
    adapter is trained, else all weights, in place. `trainer.save_model(directory)` writes either.

    Raises:
        InputError: no rows, or settings that TRL or PEFT refuse (a LoRA target that matches nothing).
    """
    if not rows:
        raise InputError("there are no episodes to fine-tune on")
    try:
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=dataset(rows, context_share=context_share, seed=args.seed),
            eval_dataset=dataset(held_out) if held_out else None,
            processing_class=tokenizer,
            peft_config=lora,
            optimizers=(optimizer, None),
            callbacks=list(callbacks),
        )
    except ValueError as error:
        raise InputError(f"supervised fine-tuning can't be set up: {error}") from error
    if args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)  # Trainer's own stand-in for the bar prints every log
    if trainer.accelerator.device.type == "cpu":
        heap.keep()
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def _sampled(episode: Episode) -> bool:
    return bool(episode.turns) and bool(episode.turns[0].completion.token_ids)
