"""Which adapters can be handed to an engine, and with what scale; no torch needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envs.errors import InputError
from rl.engines.adapter import read_config, refuse_unsupported, scale_of


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"target_modules": ["model.embed_tokens"]}, "embed_tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
    ],
)
def test_what_is_more_than_a_low_rank_sum_is_refused_by_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        refuse_unsupported(config, "lora")


def test_plain_adapters_pass() -> None:
    refuse_unsupported(
        {"r": 8, "target_modules": "all-linear", "bias": "none", "init_lora_weights": "gaussian"}, "lora"
    )


def test_a_refusal_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "use_dora": True}))
    with pytest.raises(InputError, match=str(tmp_path)):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("config", "module", "rank", "scale"),
    [
        ({"lora_alpha": 32}, "layers.0.q_proj", 16, 2.0),
        ({"lora_alpha": 32, "use_rslora": True}, "layers.0.q_proj", 16, 8.0),
        ({"lora_alpha": 32, "alpha_pattern": {"q_proj": 8}}, "layers.0.q_proj", 16, 0.5),
        ({"lora_alpha": 32, "alpha_pattern": {"q_proj": 8}}, "layers.0.k_proj", 16, 2.0),
        ({"lora_alpha": 32, "alpha_pattern": {r"layers\.1\.q_proj": 8}}, "layers.0.q_proj", 16, 2.0),
        ({"lora_alpha": 32, "alpha_pattern": {"proj": 8}}, "layers.0.q_proj", 16, 2.0),
    ],
)
def test_scale_is_alpha_over_rank_by_module(config: dict[str, Any], module: str, rank: int, scale: float) -> None:
    assert scale_of(config, module, rank=rank) == scale
