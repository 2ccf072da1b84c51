"""Preference optimisation on segments of episodes: what is learned is the turns in which two episodes part.

A thin skin over TRL's DPOTrainer. Pairs arrive as token ids with masks of their own, and TRL's loss is summed over
the tokens that its `completion_mask` names: with ours these are the sampled tokens of the two segments,
-log sigmoid(beta * (sum over the chosen of D - sum over the rejected of D)), D = log pi - log pi_reference
(DPO, arXiv 2305.18290; on segments of as many turns, arXiv 2501.01821).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from envs.errors import InputError
from rl.pairs import Pair
from rl.trainers import heap
from rl.trainers.settings import check_fields

COLUMNS = ("prompt_ids", "chosen_ids", "chosen_mask", "rejected_ids", "rejected_mask")

IGNORED = {
    "dataset_num_proc": "pairs are token ids",
    "max_length": "pairs are never cut; a shorter `segment` makes them shorter",
    "model_init_kwargs": "the model is loaded as the other commands load it",
    "output_dir": "it is named by --out",
    "pad_token": "padding is masked; the tokenizer names its token",
    "padding_free": "TRL has it no longer",
    "precompute_ref_batch_size": "nothing is precomputed",
    "precompute_ref_log_probs": "the reference is the same base without what is learned: it takes no memory",
    "ref_model_mixup_alpha": "the reference stays",
    "ref_model_sync_steps": "the reference stays",
    "remove_unused_columns": "the collator needs every column",
    "resume_from_checkpoint": "begin again: pairs are mined in seconds",
    "seed": "it is set as seed",
    "sync_ref_model": "the reference stays",
    "truncation_mode": "pairs are never cut",
    "trust_remote_code": "the model is loaded as the other commands load it",
}
"""DPOConfig fields that would have no effect here, and why. Setting one is an error."""

DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 1,
    "logging_steps": 1,
    "disable_tqdm": True,
    "report_to": [],
    "save_strategy": "no",
}
"""Where a value that was run differs from TRL's default."""


def settings(output_dir: str, seed: int, fields: Mapping[str, Any]) -> DPOConfig:
    """TRL's DPOConfig of fields by their own names.

    Raises:
        InputError: a field that does not exist, that would have no effect, or with a value TRL refuses.
    """
    check_fields(DPOConfig, fields, "trainer", IGNORED)
    fixed = {"output_dir": output_dir, "seed": seed, "max_length": None, "remove_unused_columns": False}
    on_gpu = torch.cuda.is_available()
    try:
        return DPOConfig(**{"bf16": on_gpu, "use_cpu": not on_gpu, **DEFAULTS, **fields, **fixed})
    except (ValueError, TypeError) as error:
        raise InputError(f"trainer: {error}") from error


def dataset(pairs: Sequence[Pair]) -> Dataset:
    """The columns that `Collator` reads."""
    return Dataset.from_dict({name: [list(getattr(pair, name)) for pair in pairs] for name in COLUMNS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Collator:
    """Pairs as TRL's loss reads them: the chosen halves of a batch, then the rejected, padded on the right."""

    pad_id: int

    def __call__(self, examples: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """[2B][T] `input_ids`, `attention_mask`, and 1 in `completion_mask` where a token carries loss."""
        sides = [(example, side) for side in ("chosen", "rejected") for example in examples]
        ids = [[*example["prompt_ids"], *example[f"{side}_ids"]] for example, side in sides]
        masks = [[0] * len(example["prompt_ids"]) + [*example[f"{side}_mask"]] for example, side in sides]
        return {
            "input_ids": _padded(ids, self.pad_id),
            "attention_mask": _padded([[1] * len(each) for each in ids], 0),
            "completion_mask": _padded(masks, 0),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihoods:
    """Log-probabilities (natural) of the sampled tokens of a pair's segments, summed."""

    chosen: float
    rejected: float
    reference_chosen: float
    reference_rejected: float

    @property
    def advantage(self) -> float:
        """The sum of D over the chosen segment less that over the rejected one; 0 before anything is learned."""
        return (self.chosen - self.reference_chosen) - (self.rejected - self.reference_rejected)


class SegmentTrainer(DPOTrainer):  # type: ignore[misc]
    """Trains an adapter on pairs. The reference is the model as it was given: its base, or its adapter at the start.

    Args:
        model: a model, of which with `lora` a new adapter is trained, or one with an adapter, which is trained on.
        held_out: what `eval_strategy` measures.

    Raises:
        InputError: no pairs, or settings that TRL or PEFT refuse.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        pairs: Sequence[Pair],
        args: DPOConfig,
        *,
        lora: LoraConfig | None = None,
        held_out: Sequence[Pair] = (),
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        if not pairs:
            raise InputError("there are no pairs to learn from")
        try:
            super().__init__(
                model=model,
                args=args,
                data_collator=Collator(pad_id=int(tokenizer.pad_token_id)),
                train_dataset=dataset(pairs),
                eval_dataset=dataset(held_out) if held_out else None,
                processing_class=tokenizer,
                peft_config=lora,
                callbacks=list(callbacks),
            )
        except (ValueError, NotImplementedError) as error:
            raise InputError(f"preference optimisation can't be set up: {error}") from error
        if args.disable_tqdm:
            self.remove_callback(PrinterCallback)  # Trainer's own stand-in for the bar prints every log
        if self.accelerator.device.type == "cpu":
            heap.keep()

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """As it is: TRL would look for texts to tokenise."""
        return dataset

    @torch.no_grad()
    def likelihoods(self, pairs: Sequence[Pair]) -> list[Likelihoods]:
        """What the model and its reference make of some pairs, with the weights as they are now."""
        training = self.model.training
        self.model.eval()
        found = list[Likelihoods]()
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(pairs), size):
            batch = self.data_collator(dataset(pairs[start : start + size]).to_list())
            inputs = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
            labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
            known = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            with self.accelerator.autocast():
                output = self.model(**known, labels=labels, use_cache=False, fused_lm_head=True)
            chosen, rejected = output.log_probs.sum(dim=1).chunk(2)
            before = self.compute_ref_log_probs(self.model, inputs)
            columns = (chosen, rejected, *before)
            found += [
                Likelihoods(chosen=a, rejected=b, reference_chosen=c, reference_rejected=d)
                for a, b, c, d in zip(*(column.tolist() for column in columns), strict=True)
            ]
        self.model.train(training)
        return found

    def export(self, directory: Path) -> None:
        """Write the adapter that was trained, as PEFT does."""
        self.accelerator.unwrap_model(self.model).save_pretrained(directory, selected_adapters=["default"])


def _padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    """[N][longest]"""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
