"""A LoRA layer on CPU as one matrix product: with base + scale * B @ A made anew for every call.

PEFT computes the base's product and the adapter's beside it and adds them up, which on CPU costs six small
products and several passes over activations a layer. Made first, base + scale * B @ A costs next to nothing: it
does not grow with the tokens. The result is the same up to rounding.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.autograd.function import once_differentiable


def attach(model: torch.nn.Module) -> None:
    """Let the LoRA layers of a model that is on CPU compute this way wherever it means the same."""
    for layer in model.modules():
        if type(layer) is Linear and type(layer.base_layer) is torch.nn.Linear and layer.weight.device.type == "cpu":
            _attach(layer)


def _attach(layer: Any) -> None:
    inner = layer.forward

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = _plain(self, x) if not args and not kwargs else None
        if name is None:
            result: Tensor = inner(x, *args, **kwargs)
            return result
        base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        product: Tensor = _Product.apply(x, base.weight, base.bias, a, b, self.scaling[name])  # type: ignore[no-untyped-call]
        return product

    layer.forward = types.MethodType(forward, layer)


def _plain(layer: Any, x: Tensor) -> str | None:
    """The one adapter that is at work, if it is nothing but scale * B @ A in float32."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(names) != 1 or torch.is_autocast_enabled("cpu"):
        return None
    (name,) = names
    weights = (layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight)
    plain = (
        name not in layer.lora_variant
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
        and layer.lora_B[name].bias is None
        and not layer.base_layer.weight.requires_grad
        and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in (x, *weights))
    )
    return name if plain else None


class _Product(torch.autograd.Function):
    """x @ (W + scale * B @ A).T + bias, with W and the bias held constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scale = scale
        return _linear(x, torch.addmm(weight, b, a, alpha=scale), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        out, inputs = grad.flatten(0, -2), x.flatten(0, -2)
        # Made again rather than kept: keeping one a layer would be a second model in memory.
        into_x = None
        if ctx.needs_input_grad[0]:
            into_x = _linear(grad, torch.addmm(weight.T, a.T, b.T, alpha=ctx.scale))
        into_a = (inputs.T @ _linear(out, b.T.contiguous())).T * ctx.scale
        into_b = (out.T @ _linear(inputs, a)) * ctx.scale
        return into_x, None, None, into_a, into_b, None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias by oneDNN: MKL, which torch takes for float32, is a third slower on AMD's processors."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return torch.nn.functional.linear(x, weight, bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result
