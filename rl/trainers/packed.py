"""Rows of a micro-batch as one sequence, without padding, a prompt that several of them share in it once.

The episodes of a group have one prompt, and an update that computes it anew for each of them spends most of its time
there where prompts are long. Here everything but attention sees every prompt once:

    rows      P P a b .      sequence   P P a b c d e        (arXiv 2506.05433 shares prefixes in the same way)
              P P c d e

Attention is computed on the rows, whose tokens are looked up in the sequence. The result is the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "localrft_packed"
"""Of the attention, among those that transformers knows."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Where the tokens of R rows of up to L tokens are in a sequence of N, and the other way round."""

    rows: Tensor
    """(R, L): the place of each token in the sequence; 0 where the row is over."""
    back: Tensor
    """(N,): for each place a token it stands for, as row * L + column."""
    positions: Tensor
    """(N,): the column of that token."""
    shared: tuple[tuple[Tensor, int, int], ...]
    """The prompts of several rows: which rows, where it begins in the sequence, and how long it is."""


def pack(ids: Tensor, lengths: Sequence[int], prompts: Sequence[int]) -> Packed:
    """Lay out rows (R, L), padded at the end, with `lengths` tokens, the first `prompts` of which are the prompt.

    Rows share a prompt if theirs are the same.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, (tokens, size) in enumerate(zip(ids.tolist(), prompts, strict=True)):
        groups.setdefault(tuple(tokens[:size]), []).append(row)
    width = ids.shape[1]
    rows = torch.zeros(ids.shape, dtype=torch.long)
    back: list[int] = []
    shared = []
    for prompt, members in groups.items():
        size, start = len(prompt), len(back)
        back += range(members[0] * width, members[0] * width + size)
        for row in members:
            rows[row, :size] = torch.arange(start, start + size)
            rows[row, size : lengths[row]] = torch.arange(len(back), len(back) + lengths[row] - size)
            back += range(row * width + size, row * width + lengths[row])
        if len(members) > 1:
            shared.append((torch.tensor(members), start, size))
    order = torch.tensor(back)
    return Packed(rows, order, order % width, tuple(shared))


def attach(model: Any) -> bool:
    """Let a causal LM take `packed`; False if its attention is not of a kind that this knows."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    plain = kinds <= {"full_attention"} and (kinds or getattr(config, "sliding_window", None) is None)
    if not plain or not model._supports_attention_backend or config._attn_implementation not in ("sdpa", NAME):
        return False
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def inputs(ids: Tensor, packed: Packed) -> dict[str, Any]:
    """What a model that `attach` has seen takes for rows (R, L): their tokens as one sequence, (1, N)."""
    return {
        "input_ids": ids.flatten()[packed.back][None],
        "position_ids": packed.positions[None],
        # Of four dimensions, so that transformers takes it for a mask that is ready. Nothing reads it.
        "attention_mask": torch.zeros(1, 1, 1, 1),
        "packed": packed,
    }


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: Packed | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if packed is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return plain
    count, width = packed.rows.shape

    def by_row(x: Tensor) -> Tensor:
        heads, size = x.shape[1], x.shape[3]
        tokens = x.transpose(1, 2).reshape(-1, heads * size)
        found: Tensor = _Rows.apply(tokens, packed)  # type: ignore[no-untyped-call]
        return found.view(count, width, heads, size).transpose(1, 2)

    result, _ = sdpa_attention_forward(module, by_row(query), by_row(key), by_row(value), None, **kwargs)
    tokens: Tensor = _Back.apply(result.reshape(count * width, -1), packed)  # type: ignore[no-untyped-call]
    return tokens.view(1, -1, *result.shape[2:]), None


class _Rows(torch.autograd.Function):
    """(N, w) -> (R * L, w): every row's tokens. A shared token's gradient is the sum over its rows."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, packed: Packed) -> Tensor:
        ctx.packed = packed
        return tokens.index_select(0, packed.rows.flatten())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        packed: Packed = ctx.packed
        into = grad.index_select(0, packed.back)
        by_row = grad.view(*packed.rows.shape, -1)
        for members, start, size in packed.shared:
            torch.sum(by_row[members, :size], dim=0, out=into[start : start + size])
        return into, None


class _Back(torch.autograd.Function):
    """(R * L, w) -> (N, w): of tokens that several rows share, the first row's."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, packed: Packed) -> Tensor:
        ctx.packed, ctx.shape = packed, tokens.shape
        return tokens.index_select(0, packed.back)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        into = grad.new_zeros(ctx.shape)
        into[ctx.packed.back] = grad
        return into, None
