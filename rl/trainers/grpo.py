"""A thin skin over TRL's GRPOTrainer: episodes in, one advantage per turn, the sampler's bias corrected.

What is ours: `rollout_func` hands over what the collector played; the (B,) advantages that TRL makes
are replaced by (B, T) ones; micro-batches lose their padding; truncated importance weights (token
level) are applied without a second forward. The loss is TRL's.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, TrainerControl
from trl import GRPOConfig, GRPOTrainer

from envs.errors import InputError
from rl.samples import Sample
from rl.trainers import head, heap, linear
from rl.trainers.packed import Packed, pack

Rollout = Callable[[int, int], Sequence[Sample]]
"""(step, number of rows) -> the rows of whole groups, in order."""

Evaluation = Callable[[], Mapping[str, float]]
"""Plays the held-out tasks -> metrics by name, without `eval_`."""

CONTRACT = {"completion_ids", "completion_mask", "prompt_ids", "prompt_mask", "advantages", "num_items_in_batch"}
"""What a batch must hold for the overrides below to mean what they say."""


FULL_BYTES = 1 << 20
"""A disk with less room than this is full."""


class EpisodeGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO on whole episodes, with credit by the turn."""

    def __init__(
        self,
        *,
        model: str | PeftModel,
        args: GRPOConfig,
        tokenizer: PreTrainedTokenizerBase,
        lora: LoraConfig | None,
        rollout: Rollout,
        evaluation: Evaluation | None = None,
        tasks: int,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self._rollout, self._evaluation = rollout, evaluation
        self._batch: dict[str, Any] | None = None
        self._buffered_inputs: Any
        self._beside: list[torch.Tensor] = []
        if lora is not None and "lm_head" in (lora.target_modules or ()):
            raise InputError("lora.target_modules: lm_head adapters can't be served; leave it out")
        rows = max(tasks, args.generation_batch_size // args.num_generations)
        try:
            super().__init__(
                model=model,
                args=args,
                processing_class=tokenizer,
                peft_config=lora,
                reward_funcs=_reward,
                rollout_func=self._play,
                train_dataset=Dataset.from_dict({"prompt": [""] * rows}),
                eval_dataset=Dataset.from_dict({"prompt": [""]}),
                callbacks=list(callbacks),
            )
        except ValueError as error:
            if "arget modules" in str(error):
                raise InputError(f"lora.target_modules: {error}") from error
            raise
        self.remove_callback(PrinterCallback)
        base = self.accelerator.unwrap_model(self.model).get_base_model()
        head.attach(base, self.temperature, entropy_gradient=self._entropy_bonus_enabled)
        linear.attach(base)
        if self.accelerator.device.type == "cpu":
            heap.keep()

    def export(self, directory: Path) -> None:
        """Write the adapter in training as PEFT does. A collective where the weights are sharded."""
        self.accelerator.unwrap_model(self.model).save_pretrained(directory, selected_adapters=["default"])

    def go_back(self, directory: Path) -> None:
        """Take the adapter of a checkpoint."""
        self._load_from_checkpoint(str(directory))

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Play the held-out tasks, when `eval_strategy` says so: episodes say more than a loss on rows of them."""
        assert self._evaluation is not None, "made without an evaluation"
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self._evaluation().items()}
        self.model.eval()  # TRL adds the metrics of the mode that the model is in, and clears them
        self.log(dict(metrics))
        control: TrainerControl = self.control
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics

    def _run_epoch(self, **how: Any) -> None:
        # The Trainer looks for the end after a step, and takes one more when it is resumed there.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**how)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (SafetensorError, RuntimeError) as error:
            # Neither safetensors nor torch says in its own words that the disk is full.
            if shutil.disk_usage(self.args.output_dir).free > FULL_BYTES:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.args.output_dir) from error

    def _play(self, prompts: Sequence[str], trainer: GRPOTrainer) -> dict[str, Any]:
        return self._fields(self._rollout(self.state.global_step, len(prompts)))

    def _fields(self, samples: Sequence[Sample]) -> dict[str, Any]:
        rows = [sample.row for sample in samples]
        return {
            "prompt_ids": [list(row.prompt_ids) for row in rows],
            "completion_ids": [list(row.completion_ids) for row in rows],
            "logprobs": [list(row.logprobs) for row in rows],
            "env_mask": [list(row.mask) for row in rows],
            "earned": [sample.reward for sample in samples],
            "token_advantages": [list(sample.advantages) for sample in samples],
        }

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        missing = CONTRACT - batch.keys()
        assert not missing, f"this version of TRL makes batches without {sorted(missing)}"
        batch["advantages"] = self._laid_out(inputs, "token_advantages", batch, 0.0)
        return batch

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        every = self.args.steps_per_generation
        one_update = every == self.args.gradient_accumulation_steps
        # TRL shuffles a batch. Where all of it goes into one update that changes nothing, and parts prompts, which
        # `packed` would compute once.
        if self.accelerator.device.type == "cpu" and one_update and self.model.training and self._step % every == 0:
            self._buffered_inputs = by_prompt(self._buffered_inputs)
            inputs = self._buffered_inputs[0]
        return inputs

    def _laid_out(
        self, inputs: Sequence[Mapping[str, Any]], field: str, batch: Mapping[str, torch.Tensor], nothing: float
    ) -> torch.Tensor:
        """A field of the rollout with one number a completion token, as the batch's completions lie (B, T)."""
        laid = torch.full(batch["completion_ids"].shape, nothing, device=batch["completion_ids"].device)
        for i, row in enumerate(inputs):
            laid[i, : len(row[field])] = torch.tensor(row[field])
        return laid

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        self._batch = trimmed(inputs)
        try:
            loss: torch.Tensor = super()._compute_loss(model, self._batch)
            return loss
        finally:
            self._batch = None

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if self._batch is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        mask = self._batch["completion_mask"] * self._batch["tool_mask"]
        labels = torch.full_like(input_ids, -100)
        labels[:, -logits_to_keep:] = input_ids[:, -logits_to_keep:].masked_fill(mask == 0, -100)
        places, padding = without_gaps(attention_mask)
        sampled = labels.gather(1, places).masked_fill(padding, -100)
        rows = input_ids.gather(1, places)
        layout = None
        if input_ids.device.type == "cpu":
            lengths = [mask.sum(dim=1).tolist() for mask in (attention_mask, self._batch["prompt_mask"])]
            layout = pack(rows, *lengths)
        with self.accelerator.autocast():
            # No attention mask: all padding is at the end now, where causal attention does not look, and
            # without a mask it is computed for half of all pairs instead of all.
            scored = self._score(model, rows, sampled, layout)
        width = input_ids.shape[1]
        logps, entropy, *self._beside = (_back(x, places, padding, width)[:, -logits_to_keep:] for x in scored)
        if self.args.vllm_importance_sampling_correction:
            # TRL reads `advantages` after this call, and its losses are linear in them: weighting them here
            # is its own `token_truncate`, without the extra forward that it spends on the old logprobs.
            self._correct(self._batch, logps.detach())
        return logps, entropy, None

    def _score(
        self, model: torch.nn.Module, ids: torch.Tensor, sampled: torch.Tensor, layout: Packed | None
    ) -> Sequence[torch.Tensor]:
        """Log-probabilities and entropies (B, L - 1) of ids (B, L), 0 but where `sampled` has a label.

        What a subclass returns after them lies, laid out as the completions (B, T), in `_beside` when the loss is made.
        """
        scored: Sequence[torch.Tensor] = model(input_ids=ids, sampled_labels=sampled, layout=layout)
        return scored

    def _correct(self, batch: dict[str, Any], logps: torch.Tensor) -> None:
        """Multiply the advantages by min(pi_old / pi_sampler, cap), token by token."""
        mask = batch["completion_mask"] * batch["tool_mask"]
        old = batch.get("old_per_token_logps", logps)
        gap = torch.nan_to_num((old - batch["sampling_per_token_logps"]) * mask)
        weight = gap.exp().clamp(max=self.args.vllm_importance_sampling_clip_max)
        batch["advantages"] = batch["advantages"] * weight
        count = mask.sum().clamp(min=1)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["sampling/logp_gap/mean"].append((gap.abs().sum() / count).item())
        metrics["sampling/logp_gap/max"].append(gap.abs().max().item())
        metrics["sampling/weight/mean"].append(((weight * mask).sum() / count).item())
        clipped = ((weight >= self.args.vllm_importance_sampling_clip_max) * mask).sum() / count
        metrics["sampling/weight/clipped"].append(clipped.item())


def _reward(prompts: Sequence[Any], completions: Sequence[Any], earned: Sequence[float | None], **_: Any) -> list[Any]:
    """What each episode earned; None is left out of TRL's statistics."""
    return list(earned)


_reward.__name__ = "episode"


def by_prompt(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows in micro-batches of the same sizes, those with one prompt next to each other."""
    prompts = torch.cat([batch["prompt_ids"] for batch in batches])
    size = len(batches[0]["prompt_ids"])
    _, kind = torch.unique(prompts, dim=0, return_inverse=True)
    order = kind.argsort(stable=True).split(size)
    of_rows = {
        key: torch.cat([batch[key] for batch in batches])
        for key, value in batches[0].items()
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == size
    }
    return [
        batch | {key: value[rows] for key, value in of_rows.items()} for batch, rows in zip(batches, order, strict=True)
    ]


def trimmed(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without the columns that are padding in every row.

    The generation batch is padded to its longest episode before it is split, so a micro-batch of
    short ones would carry the padding of the longest. Prompts (B, P) are padded on the left,
    everything of completions (B, T) on the right.
    """
    prompt, completion = batch["prompt_mask"], batch["completion_mask"]
    start = int(prompt.any(dim=0).int().argmax())
    end = int(completion.any(dim=0).nonzero().max()) + 1 if completion.any() else 1
    shape = completion.shape
    cut = {}
    for key, value in batch.items():
        if key in ("prompt_ids", "prompt_mask"):
            cut[key] = value[:, start:]
        elif isinstance(value, torch.Tensor) and value.shape == shape:
            cut[key] = value[:, :end]
        else:
            cut[key] = value
    return cut


def without_gaps(attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns (B, L) in which every row begins with its first token, and where they are padding (B, L).

    Rows are padded on both sides, (B, P + T) with a prompt that ends in column P; L is the longest row.

    Example: mask [[0, 1, 1, 0], [1, 1, 1, 0]] gives columns [[1, 2, 3], [0, 1, 2]] and padding only in the
    last of the first row.
    """
    mask = attention_mask.int()
    length = mask.sum(dim=1, keepdim=True)
    place = torch.arange(int(length.max()), device=mask.device)
    columns = (mask.argmax(dim=1, keepdim=True) + place).clamp(max=mask.shape[1] - 1)
    return columns, place >= length


def _back(scored: torch.Tensor, places: torch.Tensor, padding: torch.Tensor, width: int) -> torch.Tensor:
    """Scores of tokens 1 ... L - 1, (B, L - 1), in the columns (B, width) those tokens came from; 0 elsewhere."""
    known = scored.masked_fill(padding[:, 1:], 0.0)
    return known.new_zeros(len(known), width).scatter_add(1, places[:, 1:], known)
