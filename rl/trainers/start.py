"""Where training starts: a base model with a fresh adapter, or with one that was trained before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM
from trl import DPOConfig, GRPOConfig

from envs.errors import InputError
from rl.engines.adapter import read_config


def continued(model: str, adapter: Path, args: GRPOConfig | DPOConfig, lora: Mapping[str, Any]) -> PeftModel:
    """The base model with an earlier adapter, to be trained further. With `beta` that adapter is the reference.

    Args:
        lora: the config's section, which may repeat the adapter's settings but not change them.

    Raises:
        InputError: no adapter there, one of another model, or one with other settings than `lora`.
    """
    own = read_config(adapter)
    for name, value in lora.items():
        if own.get(name, value) != value and name != "target_modules":
            raise InputError(
                f"lora.{name}: {value!r}, but {adapter} was made with {own[name]!r}, which stays. Remove the key"
            )
    base = AutoModelForCausalLM.from_pretrained(model, **(args.model_init_kwargs or {}))
    args.model_init_kwargs = None  # they are used up
    try:
        return PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"adapter {adapter} does not fit model {model}: {str(error).splitlines()[0]}") from error
