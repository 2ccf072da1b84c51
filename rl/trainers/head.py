"""Log-probabilities of the sampled tokens alone: the LM head's work for everything else is left out.

TRL's fused head scores whatever has a label, and on CPU every position, label or not. In an agent's
episode most tokens are prompts and tool results; here only what was sampled is projected.
"""

from __future__ import annotations

import types
from typing import Any

import torch

from rl.trainers import packed
from rl.trainers.packed import Packed

LOGITS_BYTES = 1 << 30
"""On CPU, the most memory the logits of a micro-batch may take; above it TRL's chunked head is used."""

RESHAPED = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""Config fields of models that do something to their logits; TRL's head knows what."""


def attach(model: Any, temperature: float, *, entropy_gradient: bool) -> None:
    """Teach a causal LM to answer `model(..., sampled_labels=...)` with (log_probs, entropy), (B, L - 1) each.

    `sampled_labels` are the input ids where a token was sampled and -100 elsewhere, (B, L); the results
    are 0 elsewhere. Calls without it go to the forward that was there. With `layout` as well, of the same
    rows, a model on CPU computes them as one sequence where it can. To be called after TRL has attached
    its own head.

    Args:
        entropy_gradient: whether the entropy is part of the loss.
    """
    inner = model.forward
    config = model.config.get_text_config()
    reshaped = any(getattr(config, name, None) is not None for name in RESHAPED)
    packs = model.device.type == "cpu" and not reshaped and packed.attach(model)

    def forward(
        self: Any,
        *args: Any,
        sampled_labels: torch.Tensor | None = None,
        layout: Packed | None = None,
        **kwargs: Any,
    ) -> Any:
        if sampled_labels is None:
            return inner(*args, **kwargs)
        head = self.get_output_embeddings()
        size = int((sampled_labels != -100).sum()) * head.weight.shape[0] * 4
        if reshaped or sampled_labels.device.type != "cpu" or size > LOGITS_BYTES:
            scored = inner(*args, labels=sampled_labels, fused_lm_head=True, **kwargs)
            return scored.log_probs, scored.entropy
        body, labels = getattr(self, self.base_model_prefix), sampled_labels[:, 1:]
        keep = labels != -100
        if layout is None or not packs:
            hidden = body(*args, use_cache=False, **kwargs).last_hidden_state[:, :-1][keep]
        else:
            tokens = body(use_cache=False, **packed.inputs(kwargs["input_ids"], layout)).last_hidden_state[0]
            hidden = tokens[layout.rows[:, :-1][keep]]
        return _score(head, hidden, labels, keep, temperature, entropy_gradient)

    model.forward = types.MethodType(forward, model)


def _score(
    head: torch.nn.Module,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    keep: torch.Tensor,
    temperature: float,
    entropy_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of tokens (B, L) where `keep` is True, from what the model had in mind before each of them, (K, d)."""
    distribution = (head(hidden).float() / temperature).log_softmax(-1)
    logps = distribution.gather(-1, labels[keep].unsqueeze(-1)).squeeze(-1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = -(distribution.exp() * distribution).sum(-1)
    empty = hidden.new_zeros(labels.shape, dtype=torch.float32)
    return empty.masked_scatter(keep, logps), empty.masked_scatter(keep, entropy)
