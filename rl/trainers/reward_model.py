"""Reward models over TRL and transformers: a scalar head on the policy's own base, read where a state ends.

The outcome model is a sequence classifier that TRL's RewardTrainer trains on pairs (Bradley-Terry): of a success and
a failure at one task the success is to score higher. The process model is a token classifier, trained on how often
rollouts through a state succeeded. Both are saved as transformers and PEFT save their models. Weights are in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from logging import ERROR
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import softplus
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.utils import logging
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.utils import disable_dropout_in_model

from envs.errors import InputError
from rl.learned.labels import Labelled
from rl.learned.record import Kind, Record
from rl.trainers import heap
from rl.trainers.settings import LORA_DEFAULTS

HEADS: dict[Kind, Any] = {"outcome": AutoModelForSequenceClassification, "process": AutoModelForTokenClassification}

FORWARD_TOKENS = 1 << 14
"""Of a batch that is scored, padding included."""


def settings(scratch: str, *, steps: int, batch: int, learning_rate: float, seed: int) -> RewardConfig:
    """TRL's settings for either kind, from the few that are ours to choose."""
    on_gpu = torch.cuda.is_available()
    return RewardConfig(
        output_dir=scratch,
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=learning_rate,
        warmup_steps=steps // 10,
        seed=seed,
        max_length=None,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        activation_checkpointing=on_gpu,
        save_strategy="no",
        disable_tqdm=True,
        report_to=[],
    )


def begin(base: str, tokenizer: PreTrainedTokenizerBase, kind: Kind, *, seed: int) -> PreTrainedModel:
    """A base model with a new scalar head.

    Raises:
        InputError: transformers has no such head for this architecture.
    """
    set_seed(seed)
    try:
        model, _ = _read(kind, base)
    except (OSError, ValueError) as error:
        raise InputError(f"no {kind} model can be made of {base}: {str(error).splitlines()[0]}") from error
    model.config.pad_token_id = tokenizer.pad_token_id
    disable_dropout_in_model(model)
    return model


def _read(kind: Kind, directory: str) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names of weights that are not there and were drawn at random."""
    loud = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        model, info = HEADS[kind].from_pretrained(
            directory, num_labels=1, dtype=torch.float32, output_loading_info=True
        )
    finally:
        logging.set_verbosity(loud)
    return model, sorted(info["missing_keys"])


def adapter(kind: Kind, rank: int) -> LoraConfig:
    """LoRA on every linear layer but the head, which is trained whole."""
    task = "SEQ_CLS" if kind == "outcome" else "TOKEN_CLS"
    own = LORA_DEFAULTS | {"r": rank, "lora_alpha": 2 * rank}
    return LoraConfig(task_type=task, modules_to_save=["score"], exclude_modules=["score"], **own)


def fit_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    args: RewardConfig,
    *,
    lora: LoraConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PreTrainedModel | PeftModel:
    """Train an outcome model on token rows (success, failure); the model that came of it."""
    columns = {"chosen_ids": [list(good) for good, _ in pairs], "rejected_ids": [list(bad) for _, bad in pairs]}
    return _trained(
        RewardTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=list(callbacks),
        )
    )


def fit_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Labelled],
    args: RewardConfig,
    *,
    lora: LoraConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PreTrainedModel | PeftModel:
    """Train a process model on states; the model that came of it.

    A state of which s in n rollouts succeeded adds -s log p - (n - s) log(1 - p): each rollout counts once, so that
    a label weighs what it stands on. The sum is divided by the mean number of rollouts a row, over all rows.
    """
    from peft import get_peft_model

    args.remove_unused_columns = False
    network: Any = model if lora is None else get_peft_model(model, lora)
    return _trained(
        _StateTrainer(
            mean=sum(sum(row.rollouts) for row in rows) / len(rows),
            model=network,
            args=args,
            train_dataset=list(rows),
            data_collator=lambda batch: padded(batch, int(tokenizer.pad_token_id)),
            callbacks=list(callbacks),
        )
    )


class _StateTrainer(Trainer):
    def __init__(self, *, mean: float, **given: Any) -> None:
        super().__init__(**given)
        self._mean = mean

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        good, rollouts = inputs["good"], inputs["rollouts"]
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        loss = binomial(logits[..., 0].float(), good, rollouts) / (len(good) * self._mean)
        return (loss, logits) if return_outputs else loss


def binomial(logits: Tensor, good: Tensor, rollouts: Tensor) -> Tensor:
    """-log likelihood of so many successes in so many trials whose log-odds are `logits`, summed; all of one shape."""
    return (good * softplus(-logits) + (rollouts - good) * softplus(logits)).sum()


def padded(rows: Sequence[Labelled], pad: int) -> dict[str, Tensor]:
    """(B, L) ids, mask, and at the last token of each labelled state its successes and rollouts; 0 elsewhere."""
    batch = _tokens([row.ids for row in rows], pad)
    for name in ("good", "rollouts"):
        batch[name] = torch.zeros(batch["input_ids"].shape)
        for line, row in zip(batch[name], rows, strict=True):
            line[[end - 1 for end in row.ends]] = torch.tensor(getattr(row, name), dtype=torch.float32)
    return batch


def _tokens(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    shape = (len(rows), max(map(len, rows)))
    ids, mask = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    for n, row in enumerate(rows):
        ids[n, : len(row)], mask[n, : len(row)] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def _trained(trainer: Any) -> PreTrainedModel | PeftModel:
    trainer.remove_callback(PrinterCallback)
    if trainer.accelerator.device.type == "cpu":
        heap.keep()
    trainer.train()
    model: PreTrainedModel | PeftModel = trainer.accelerator.unwrap_model(trainer.model)
    return model.eval()


def load(directory: Path, record: Record) -> PreTrainedModel | PeftModel:
    """A model that was saved, on the device there is, ready to score.

    Raises:
        InputError: the files are not what they were, or the base of an adapter is gone.
    """
    model: Any
    try:
        model, missing = _read(record.kind, record.base if record.lora else str(directory))
        if record.lora:
            model = PeftModel.from_pretrained(model, str(directory))
            with safe_open(directory / "adapter_model.safetensors", "pt") as file:
                missing = sorted(name for name in missing if f"base_model.model.{name}" not in file.keys())  # noqa: SIM118
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"reward model {directory} can't be loaded: {str(error).splitlines()[0]}") from error
    if missing:
        raise InputError(f"reward model {directory} lacks {', '.join(missing)}; make it again")
    model.config.pad_token_id = record.pad
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()  # type: ignore[no-any-return]


@torch.inference_mode()
def logits(
    model: PreTrainedModel | PeftModel, kind: Kind, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[list[float]]:
    """[N] the log-odds at each state of rows (ids, ends); of an outcome model at the row's end alone.

    Scored in batches of like lengths.
    """
    found: list[list[float]] = [[] for _ in rows]
    for chosen in _batches([len(ids) for ids, _ in rows]):
        tokens = _tokens([rows[n][0] for n in chosen], model.config.pad_token_id)
        said: Tensor = model(**{name: value.to(model.device) for name, value in tokens.items()}).logits[..., 0]
        for n, line in zip(chosen, said.float().tolist(), strict=True):
            found[n] = [line] if kind == "outcome" else [line[end - 1] for end in rows[n][1]]
    return found


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Which rows go together: of like lengths, no more than a forward takes."""
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > FORWARD_TOKENS:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch
