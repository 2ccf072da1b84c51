"""A critic on the actor's own base: one frozen model, a second LoRA adapter and a value head.

Both adapters are at work within one forward, the actor's for the log-probabilities and then the critic's for the
values, so that one backward serves both and DDP sees one pass. Gradient checkpointing computes blocks again during that
backward, with whatever adapter is active then; `_contexts` brings back the one that was.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from envs.errors import InputError

ACTOR = "default"
"""What PEFT calls the adapter that was there first."""

NAME = "critic"
"""The critic's adapter, and the directory in a checkpoint that PEFT saves it to."""

HEAD = "value_head.safetensors"
"""In that directory: what PEFT does not save."""


class Critic:
    """Expects returns: V(s) before each token, linear in the last hidden state, 0 at the start."""

    def __init__(self, model: PeftModel) -> None:
        """Give the model a second adapter of the same kind as the first, and a value head.

        From then on the base answers `model(..., valued=True)` with what it answered before and V (B, L - 1) of
        the tokens 1 ... L - 1, each before it is known; with `input_ids` alone, with V alone.
        """
        model.add_adapter(NAME, copy.deepcopy(model.peft_config[ACTOR]))
        base: Any = model.get_base_model()
        weight = base.get_output_embeddings().weight
        # In float32 whatever the base is in: values that differ by a hundredth are the same number in bfloat16.
        head = torch.nn.Linear(weight.shape[1], 1, device=weight.device, dtype=torch.float32)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        base.value_head = self._head = head
        self._layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
        self._lora = [p for name, p in model.named_parameters() if "lora_" in name and f".{NAME}." in name]
        self._remembers = False
        self._answer(base)
        self._remember(base)
        self.thaw()

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained for the value loss alone: the adapter's and the head's."""
        return [*self._lora, *self._head.parameters()]

    def thaw(self) -> None:
        """Let the critic learn. PEFT freezes it whenever it sets an adapter, or takes one out for a reference."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)

    def save(self, checkpoint: Path) -> None:
        """Complete a checkpoint in which PEFT has saved both adapters."""
        save_file(self._head.state_dict(), checkpoint / NAME / HEAD)

    def load(self, checkpoint: Path) -> None:
        """The head of a checkpoint whose adapters are loaded, and everything ready to learn again."""
        self._head.load_state_dict(load_file(checkpoint / NAME / HEAD))
        self.thaw()

    def _answer(self, base: Any) -> None:
        inner = base.forward

        def forward(this: Any, *args: Any, valued: bool = False, **kwargs: Any) -> Any:
            if not valued:
                return inner(*args, **kwargs)
            assert self._remembers or not (this.training and this.is_activation_checkpointing), "see _remember"
            said = inner(*args, **kwargs) if "sampled_labels" in kwargs else None
            kwargs = {key: value for key, value in kwargs.items() if key not in ("sampled_labels", "layout")}
            with _AtWork(self._layers, NAME):
                hidden = getattr(this, this.base_model_prefix)(*args, use_cache=False, **kwargs).last_hidden_state
            with torch.autocast(hidden.device.type, enabled=False):
                values: Tensor = this.value_head(hidden[:, :-1].float()).squeeze(-1)
            return values if said is None else (*said, values)

        base.forward = types.MethodType(forward, base)

    def _remember(self, base: Any) -> None:
        """Whenever checkpointing is switched on, let it keep which adapter a block was computed with."""
        cls = type(base)

        def enable(this: Any, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
            given = {"use_reentrant": False} | dict(activation_checkpointing_kwargs or {})
            if given["use_reentrant"]:
                raise InputError(
                    "trainer.gradient_checkpointing_kwargs: algorithm ppo needs use_reentrant: false, or what is "
                    "computed again would be computed with the wrong adapter"
                )
            given["context_fn"] = self._contexts
            cls.activation_checkpointing_enable(this, activation_checkpointing_kwargs=given, **kwargs)
            self._remembers = True

        base.activation_checkpointing_enable = types.MethodType(enable, base)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For a block's forward, and for computing it again."""
        return nullcontext(), _AtWork(self._layers, self._layers[0].active_adapters[0])


class _AtWork:
    """One adapter in all layers. PEFT's `set_adapter` would freeze the others, whose gradients are wanted.

    To be entered as often as one likes: a graph that is kept is computed again in each backward.
    """

    def __init__(self, layers: Sequence[Any], name: str) -> None:
        self._layers, self._name = layers, name
        self._before: list[list[list[str]]] = []

    def __enter__(self) -> None:
        self._before.append([layer._active_adapter for layer in self._layers])
        for layer in self._layers:
            layer._active_adapter = [self._name]

    def __exit__(self, *_: object) -> None:
        for layer, before in zip(self._layers, self._before.pop(), strict=True):
            layer._active_adapter = before
