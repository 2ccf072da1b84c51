"""A LoRA adapter on disk, as PEFT's `save_pretrained` wrote it: what it may hold, and what it adds to each weight.

Engines that merge need more than the file: the scale of every module, and certainty that base + scale * B @ A
is all there is. What can't be served that way is refused here, by name and with the reason.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model."
"""What PEFT puts before the base model's own names."""

EMBEDDINGS = ("lm_head", "embed_tokens", "wte")
MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
CHANGES_FORWARD = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)


def refuse_unsupported(config: Mapping[str, Any], where: str) -> None:
    """Raise InputError if an adapter with this `LoraConfig` can't be handed to an engine.

    `config` holds fields of `peft.LoraConfig` by their names; `where` opens the message.
    """
    reason = _unsupported(config)
    if reason:
        raise InputError(f"{where}: {reason}")


def _unsupported(config: Mapping[str, Any]) -> str | None:
    if (config.get("peft_type") or "LORA") != "LORA":
        return f"peft_type {config['peft_type']!r} is not LoRA; engines serve LoRA adapters only."
    if (config.get("bias") or "none") != "none":
        return f"bias={config['bias']!r} trains the base's biases, which an adapter does not carry. Set bias: none."
    for name in CHANGES_FORWARD:
        if config.get(name):
            return f"{name} changes the model by more than base + scale * B @ A, which engines can't serve. Remove it."
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(MOVES_BASE):
        return f"init_lora_weights={init!r} rewrites the base weights, which the engine does not see. Set it to true."
    if config.get("fan_in_fan_out"):
        return "fan_in_fan_out (transposed Conv1D weights) is not supported. Choose a model with linear layers."
    targets = config.get("target_modules") or ()
    for target in [targets] if isinstance(targets, str) else targets:
        if target.rpartition(".")[2] in EMBEDDINGS:
            return f"target_modules holds {target!r}: adapters on embeddings or the output head can't be served."
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What an adapter adds to one linear weight W (out, in): scale * B @ A."""

    a: Tensor
    """(rank, in)"""
    b: Tensor
    """(out, rank)"""
    scale: float


def read_config(adapter: Path) -> dict[str, Any]:
    """The adapter's `LoraConfig` fields. Raises InputError if it is missing or can't be served."""
    path = adapter / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{adapter}: no adapter_config.json; expected what PEFT's save_pretrained writes.") from None
    refuse_unsupported(config, str(path))
    return config


def read_deltas(adapter: Path) -> dict[str, Delta]:
    """Every module the adapter changes, by its name in the base model.

    Raises:
        InputError: a tensor that is no LoRA matrix of a linear layer, or an unsupported config.
    """
    from safetensors.torch import load_file

    config = read_config(adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    names = {_module(name, adapter) for name in tensors}
    return {
        name: Delta(
            a=(a := tensors[f"{PREFIX}{name}.lora_A.weight"]),
            b=tensors[f"{PREFIX}{name}.lora_B.weight"],
            scale=scale_of(config, name, rank=a.shape[0]),
        )
        for name in sorted(names)
    }


def _module(tensor: str, adapter: Path) -> str:
    found = re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_[AB]\.weight", tensor)
    if not found or found[1].rpartition(".")[2] in EMBEDDINGS:
        raise InputError(f"{adapter}: tensor {tensor!r} is no LoRA matrix of a linear layer; engines can't serve it.")
    return found[1]


def scale_of(config: Mapping[str, Any], module: str, *, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank) for rsLoRA, with the module's own alpha (PEFT's `alpha_pattern`)."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    alpha = patterns.get(_pattern(patterns, module), config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pattern(patterns: Iterable[str], module: str) -> str:
    """The first pattern that fits the module's full name or its end, as PEFT's `get_pattern_key` picks it."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)


@contextlib.contextmanager
def uniform(adapter: Path) -> Iterator[Path]:
    """The adapter with one scale for all modules, which is all that vLLM knows: a copy beside it where they differ.

    Raises:
        InputError: see `read_deltas`.
    """
    config = read_config(adapter)
    if not config.get("rank_pattern") and not config.get("alpha_pattern"):
        yield adapter
        return
    with tempfile.TemporaryDirectory(dir=adapter.parent) as folder:
        _write_unscaled(adapter, config, Path(folder))
        yield Path(folder)


def _write_unscaled(adapter: Path, config: Mapping[str, Any], into: Path) -> None:
    """The same adapter with every module's scale multiplied into B."""
    from safetensors.torch import save_file

    tensors = {}
    for name, delta in read_deltas(adapter).items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = delta.a
        tensors[f"{PREFIX}{name}.lora_B.weight"] = delta.b * delta.scale
    rank = max(tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name)
    plain = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    (into / "adapter_config.json").write_text(json.dumps({**config, **plain}))
    save_file(tensors, into / "adapter_model.safetensors")
