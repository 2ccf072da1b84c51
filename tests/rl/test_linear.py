"""LoRA layers on CPU compute what PEFT computes, and leave to PEFT what they do not know."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.stack
torch = pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model  # noqa: E402

from rl.trainers import linear  # noqa: E402


def layers(**lora: Any) -> Any:
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Linear(20, 5, bias=False))
    model = get_peft_model(base, LoraConfig(r=3, lora_alpha=7, target_modules=["0", "1"], **lora))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start
            torch.nn.init.normal_(parameter)
    return model


def outcome(model: Any) -> list[Any]:
    """The result, and the gradients of the input and of every adapter weight."""
    torch.manual_seed(1)
    x = torch.randn(2, 4, 12, requires_grad=True)
    result = model(x)
    torch.manual_seed(2)
    (result * torch.randn(result.shape)).sum().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [result.detach(), x.grad, *(parameter.grad for parameter in trained)]


def products(model: Any) -> int:
    """How many of the products were ours."""
    seen: list[Any] = []
    todo = [model(torch.randn(2, 12)).grad_fn]
    while todo:
        node = todo.pop()
        seen += ["_Product" in type(node).__name__]
        todo += [parent for parent, _ in node.next_functions if parent is not None]
    return sum(seen)


def test_results_and_gradients_are_peft_s() -> None:
    expected, ours = layers(), layers()
    linear.attach(ours)
    assert (products(expected), products(ours)) == (0, 2)
    for a, b in zip(outcome(expected), outcome(ours), strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)


def test_a_disabled_adapter_is_the_base() -> None:
    model = layers()
    linear.attach(model)
    x = torch.randn(3, 12)
    expected = x
    for layer in model.get_base_model():
        expected = layer.base_layer(expected)
    with model.disable_adapter():
        assert torch.equal(model(x), expected)
    assert not torch.allclose(model(x), expected)


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_what_is_more_than_a_product_is_left_to_peft(lora: dict[str, Any]) -> None:
    model = layers(**lora)
    linear.attach(model)
    assert products(model) == 0


def test_bfloat16_is_left_to_peft() -> None:
    model = layers()
    linear.attach(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products(model) == 0
