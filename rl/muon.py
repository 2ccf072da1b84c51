"""Muon for the matrices of a model and Adam for the rest, as one optimizer.

Muon (Jordan et al., 2024) steps along the orthogonalised momentum, found by a few Newton-Schulz
iterations. A small transformer learns to copy numbers in far fewer steps with it than with AdamW.
Matrices of one shape are orthogonalised as one batch, in float32: for matrices this small the time
goes into the number of operations, not into their size.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from Muon's reference implementation."""


class MuonAdam(torch.optim.Optimizer):
    """Muon for two-dimensional weights other than embeddings, Adam without weight decay for the others.

    Muon's steps are scaled to the size Adam's would have (Liu et al., 2025), so that one learning rate
    fits both.
    """

    def __init__(
        self, model: torch.nn.Module, *, lr: float, weight_decay: float = 0.05, betas: tuple[float, float] = (0.9, 0.95)
    ) -> None:
        named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
        others = [weight for name, weight in named if weight.ndim != 2 or "embed" in name]
        groups = [{"params": matrices, "muon": True}, {"params": others, "muon": False}]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients at hand."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not group["muon"]:
                for weight in weights:
                    self._adam(weight, group)
                continue
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for weight in weights:
                by_shape[weight.shape].append(weight)
            for same in by_shape.values():
                self._muon(same, group)

    def _muon(self, weights: list[Any], group: dict[str, Any]) -> None:
        updates = []
        for weight in weights:
            state = self.state[weight]
            momentum = state.setdefault("momentum", torch.zeros_like(weight))
            gradient = weight.grad
            momentum.lerp_(gradient, 1 - MOMENTUM)
            updates.append(torch.lerp(gradient, momentum, MOMENTUM))
        size = 0.2 * max(weights[0].shape) ** 0.5
        for weight, update in zip(weights, orthogonal(torch.stack(updates)), strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update, alpha=-group["lr"] * size)

    def _adam(self, weight: Any, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(weight.grad, 1 - first)
        state["square"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
        spread = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(1e-8)
        weight.addcdiv_(state["mean"], spread, value=-group["lr"] / (1 - first ** state["step"]))


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values end up between about 0.7 and 1.2.

    Args:
        matrices: (n, rows, columns).
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


MOMENTUM = 0.95
