"""Rows laid out as one sequence: every token once, a shared prompt once, and the same results."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.stack
torch = pytest.importorskip("torch")

from transformers import (  # noqa: E402
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rl.trainers import packed  # noqa: E402
from rl.trainers.packed import pack  # noqa: E402

SHAPE: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
FAMILIES: dict[str, Any] = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
}
ROWS = torch.tensor([[5, 6, 7, 8, 9], [3, 4, 0, 0, 0], [5, 6, 9, 0, 0], [5, 6, 0, 0, 0]])
LENGTHS, PROMPTS = [5, 2, 3, 2], [2, 1, 2, 2]


def test_a_shared_prompt_is_there_once() -> None:
    layout = pack(ROWS, LENGTHS, PROMPTS)
    assert ROWS.flatten()[layout.back].tolist() == [5, 6, 7, 8, 9, 9, 3, 4]
    assert layout.positions.tolist() == [0, 1, 2, 3, 4, 2, 0, 1]
    assert [(members.tolist(), start, size) for members, start, size in layout.shared] == [([0, 2, 3], 0, 2)]


def test_every_row_finds_its_tokens() -> None:
    layout = pack(ROWS, LENGTHS, PROMPTS)
    sequence = ROWS.flatten()[layout.back]
    for row, length in enumerate(LENGTHS):
        assert sequence[layout.rows[row, :length]].tolist() == ROWS[row, :length].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_results_and_gradients_are_those_of_the_rows(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]()
    mask = torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]
    weight = torch.randn(4, 5, 60)
    by_rows = model(input_ids=ROWS).logits
    assert packed.attach(model)
    layout = pack(ROWS, LENGTHS, PROMPTS)
    together = model(**packed.inputs(ROWS, layout)).logits[0][layout.rows]
    torch.testing.assert_close(together[mask], by_rows[mask], atol=1e-5, rtol=1e-5)
    plain, ours = (torch.autograd.grad((x * weight)[mask].sum(), model.parameters()) for x in (by_rows, together))
    for expected, got in zip(plain, ours, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_without_a_layout_it_is_the_attention_it_was() -> None:
    model = FAMILIES["qwen3"]()
    mask = torch.tensor([[0, 0, 1, 1, 1]] * 4)
    expected = model(input_ids=ROWS, attention_mask=mask).logits
    packed.attach(model)
    assert torch.equal(model(input_ids=ROWS, attention_mask=mask).logits, expected)


def test_a_model_that_looks_through_a_window_is_left_alone() -> None:
    model = Gemma2ForCausalLM(Gemma2Config(**SHAPE, sliding_window=4))
    before = model.config._attn_implementation
    assert not packed.attach(model)
    assert model.config._attn_implementation == before
