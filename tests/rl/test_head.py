"""Log-probabilities and entropies of the sampled tokens against a plain softmax."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.stack
torch = pytest.importorskip("torch")

from transformers import Cohere2Config, Cohere2ForCausalLM, Qwen3Config, Qwen3ForCausalLM  # noqa: E402
from trl.trainer.utils import add_fused_lm_head  # noqa: E402

from rl.trainers import head  # noqa: E402

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
MODELS: dict[str, Any] = {
    "plain": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8)),
    "scaled logits": lambda: Cohere2ForCausalLM(Cohere2Config(**SHAPE, logit_scale=0.3)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_scores_and_gradients_are_those_of_a_plain_softmax(kind: str) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]()
    ids = torch.randint(2, 50, (3, 9))
    sampled = torch.rand(3, 9) < 0.5
    sampled[:, 0] = False
    plain = (model(input_ids=ids).logits[:, :-1] / 0.7).log_softmax(-1)
    logps = plain.gather(-1, ids[:, 1:, None])[..., 0] * sampled[:, 1:]
    entropy = -(plain.exp() * plain).sum(-1) * sampled[:, 1:]
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    head.attach(model, 0.7, entropy_gradient=True)
    scored = model(input_ids=ids, sampled_labels=ids.masked_fill(~sampled, -100))
    for expected, got in zip((logps, entropy), scored, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
        gradients = [torch.autograd.grad(x.sum(), model.parameters(), retain_graph=True) for x in (expected, got)]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-3)


def test_an_entropy_that_is_only_watched_has_no_gradient() -> None:
    model = MODELS["plain"]()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    head.attach(model, 1.0, entropy_gradient=False)
    ids = torch.randint(2, 50, (1, 5))
    logps, entropy = model(input_ids=ids, sampled_labels=ids)
    assert logps.requires_grad and not entropy.requires_grad


def test_nothing_sampled_is_nothing_learned() -> None:
    model = MODELS["plain"]()
    head.attach(model, 1.0, entropy_gradient=False)
    ids = torch.randint(2, 50, (2, 5))
    logps, _ = model(input_ids=ids, sampled_labels=torch.full_like(ids, -100))
    logps.sum().backward()
    assert logps.shape == (2, 4) and not logps.any()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
