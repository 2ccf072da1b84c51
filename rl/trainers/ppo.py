"""PPO on the same skin: TRL's clipped policy loss on advantages against a critic, and the critic's own clipped loss.

The advantages come with the rows, as in GRPO; what is added is where they come from (`values`, one forward before the
update) and that the critic learns (`value_losses`, in the same backward). Actor and critic share a frozen base and not
one trained weight: neither's gradient reaches the other, their norms are clipped apart, and they may learn at different
rates. So there is no coefficient between the two losses: to Adam it would be nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from envs.errors import InputError
from rl.config import PPOConfig
from rl.rows import Row
from rl.samples import Sample
from rl.trainers.critic import Critic
from rl.trainers.grpo import EpisodeGRPOTrainer, trimmed
from rl.trainers.packed import Packed

NOWHERE = math.nan
"""The return where the critic is not asked."""


class EpisodePPOTrainer(EpisodeGRPOTrainer):
    """PPO on whole episodes: what a state is worth is asked of a critic, not of the rest of the group."""

    def __init__(self, *, ppo: PPOConfig, **given: Any) -> None:
        """`given`: as for `EpisodeGRPOTrainer`."""
        super().__init__(**given)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise InputError("algorithm: ppo is not made for sharded weights; launch it without FSDP and DeepSpeed")
        self._ppo = ppo
        self._critic = Critic(self.accelerator.unwrap_model(self.model))

    @torch.no_grad()
    def values(self, rows: Sequence[Row]) -> list[list[float]]:
        """[N][T_i] what the critic expects before each completion token, without dropout."""
        training = self.model.training
        self.model.eval()
        ids = [torch.tensor([*row.prompt_ids, *row.completion_ids]) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: len(ids[i]))
        found: dict[int, list[float]] = {}
        size = self.args.per_device_train_batch_size
        for part in (order[start : start + size] for start in range(0, len(order), size)):
            padded = torch.nn.utils.rnn.pad_sequence([ids[i] for i in part], batch_first=True)
            with self.accelerator.autocast():
                values = self.model(input_ids=padded.to(self.accelerator.device), valued=True)
            for i, own in zip(part, values.tolist(), strict=True):
                start = len(rows[i].prompt_ids) - 1
                found[i] = own[start : start + len(rows[i].completion_ids)]
        self.model.train(training)
        return [found[i] for i in range(len(rows))]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """TRL's, with the critic's parameters in groups of their own."""
        fresh = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        rate = self._ppo.critic_learning_rate
        if fresh and rate is not None:
            critic = {id(p) for p in self._critic.parameters}
            for group in list(optimizer.param_groups):
                own = [p for p in group["params"] if id(p) in critic]
                group["params"] = [p for p in group["params"] if id(p) not in critic]
                optimizer.add_param_group({**group, "params": own, "lr": rate})
        return optimizer

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        critic = {id(p) for p in self._critic.parameters}
        actor = [p for p in model.parameters() if id(p) not in critic]
        norm = self.accelerator.clip_grad_norm_(actor, self.args.max_grad_norm)
        own = torch.nn.utils.clip_grad_norm_(self._critic.parameters, self.args.max_grad_norm)
        self._metrics["train"]["critic/grad_norm"].append(own.item())
        return norm

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            self._critic.save(Path(self.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._critic.load(Path(resume_from_checkpoint))

    def _fields(self, samples: Sequence[Sample]) -> dict[str, Any]:
        returns = [[NOWHERE if r is None else r for r in sample.returns] for sample in samples]
        return super()._fields(samples) | {"token_values": [list(s.values) for s in samples], "token_returns": returns}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        self._critic.thaw()  # the reference's log-probabilities were computed without adapters, or with another
        values = self._laid_out(inputs, "token_values", batch, 0.0)
        returns = self._laid_out(inputs, "token_returns", batch, NOWHERE)
        sums = self.accelerator.reduce(_sums(values, returns), "sum")
        for name, value in _told(sums).items():
            self._metrics["train"][f"critic/{name}"].append(value)
        return batch | {"values": values, "returns": returns, "num_returns_in_batch": sums[0].clamp(min=1)}

    def _score(self, model: torch.nn.Module, ids: Tensor, sampled: Tensor, layout: Packed | None) -> Sequence[Tensor]:
        scored: Sequence[Tensor] = model(input_ids=ids, sampled_labels=sampled, layout=layout, valued=True)
        return scored

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        policy = super()._compute_loss(model, inputs)
        (values,) = self._beside
        batch = trimmed(inputs)
        asked = ~batch["returns"].isnan()
        losses, clipped = value_losses(values, batch["values"], batch["returns"], self._ppo.cliprange_value)
        # As TRL's "dapo": the mean over all states that one accumulation of micro-batches, on all processes, holds.
        items = inputs["num_returns_in_batch"] / self.accelerator.num_processes
        items = items * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        counted = torch.stack([losses.detach().sum(), clipped.sum(), asked.sum()])
        error, share, count = self.accelerator.reduce(counted, "sum").tolist()
        self._metrics["train"]["critic/loss"].append(error / max(count, 1))
        self._metrics["train"]["critic/clip_ratio"].append(share / max(count, 1))
        loss: Tensor = policy + losses.sum() / items
        return loss


def value_losses(values: Tensor, old: Tensor, returns: Tensor, cliprange: float | None) -> tuple[Tensor, Tensor]:
    """max((V - R)^2, (clip(V, old - c, old + c) - R)^2) / 2 in each state, and where the second was the larger.

    Args:
        values: (B, T) of the critic in training.
        old: (B, T) of the critic that the advantages were made with.
        returns: (B, T), NaN where the critic is not asked; the loss is 0 there.
        cliprange: c; None does not clip.

    Example: V .5, old .2, R .3, c .2: the clipped value is .4, so the loss is .02, that of V itself. With R 1 it is
    .18, that of the clipped, which does not pull V any further.
    """
    asked = ~returns.isnan()
    error = torch.where(asked, values - returns, 0.0)
    if cliprange is None:
        return error**2 / 2, torch.zeros_like(asked)
    bounded = torch.where(asked, old + (values - old).clamp(-cliprange, cliprange) - returns, 0.0)
    return torch.maximum(error**2, bounded**2) / 2, bounded**2 > error**2


def _sums(values: Tensor, returns: Tensor) -> Tensor:
    """How many states, and over them the sums of R, R^2, R - V, (R - V)^2, which add up over processes."""
    r = returns.double()[~returns.isnan()]
    e = r - values.double()[~returns.isnan()]
    return torch.stack([r.new_tensor(len(r)), r.sum(), (r**2).sum(), e.sum(), (e**2).sum()])


def _told(sums: Tensor) -> dict[str, float]:
    """The mean return, and the share of the returns' variance that the values had explained, where there was any."""
    count, r, rr, e, ee = sums.tolist()
    if not count:
        return {}
    variance, left = rr / count - (r / count) ** 2, ee / count - (e / count) ** 2
    told = {"returns": r / count, "values": (r - e) / count}
    return told | {"explained_variance": 1 - left / variance} if variance > 1e-12 else told
