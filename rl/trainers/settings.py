"""A run's `trainer` and `lora` sections, as TRL's and PEFT's own objects, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

import torch
from peft import LoraConfig
from pydantic import TypeAdapter, ValidationError
from transformers import AutoModelForCausalLM, PretrainedConfig
from trl import GRPOConfig

from envs.errors import InputError, reasons
from rl.config import Config, nearest
from rl.engines.adapter import refuse_unsupported

ELSEWHERE = {
    "output_dir": "output_dir",
    "seed": "seed",
    "data_seed": "seed",
    "full_determinism": "deterministic",
    "temperature": "rollout.temperature",
    "top_p": "rollout.top_p",
    "top_k": "rollout.top_k",
    "max_tool_calling_iterations": "rollout.turns",
    "chat_template_path": "chat.template",
    "chat_template_kwargs": "chat.kwargs",
    "scale_rewards": "credit",
    "multi_objective_aggregation": "credit",
    "reward_weights": "the weights under reward",
    "resume_from_checkpoint": "rft train --resume",
}
"""GRPOConfig fields that this house reads from another section, where every consumer sees them."""

IGNORED = {
    "use_vllm": "the engine is LocalRFT's: see the section engine",
    "use_transformers_paged": "the engine is LocalRFT's: see engine.kind",
    "use_transformers_continuous_batching": "the engine is LocalRFT's: see engine.kind",
    "generation_kwargs": "sampling is set under rollout",
    "min_p": "a truncated distribution biases the importance ratio",
    "repetition_penalty": "a changed distribution biases the importance ratio",
    "mask_truncated_completions": "it looks at an episode's last token, which may be a tool's; gate the reward instead",
    "log_completions": "every episode is in the run's records",
    "shuffle_dataset": "tasks are dealt by LocalRFT's feed, seeded",
    "num_generations_eval": "see evaluate.samples",
    "remove_unused_columns": "the rows have no columns",
    "router_aux_loss_coef": "the load-balancing loss of mixture-of-experts models is not computed",
}
"""GRPOConfig fields that would have no effect here, and why. Setting one is an error."""

DEFAULTS: dict[str, Any] = {
    "loss_type": "dapo",
    "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_max": 2.0,
    "logging_steps": 1,
    "weight_decay": 0.0,
    "disable_tqdm": True,
}
"""Where a value that was run differs from TRL's default."""

EVALUATED = tuple(f"{how}{name}" for how in ("", "greedy_") for name in ("success", "reward", "turns", "holdout"))
"""What `Training.evaluate` makes, as `metric_for_best_model` may name it."""

NOTHING: Mapping[str, str] = MappingProxyType({})

LORA_DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def grpo_config(config: Config, output_dir: Path) -> GRPOConfig:
    """TRL's settings for a run.

    Raises:
        InputError: a field that is unknown, set elsewhere, without effect, or refused by TRL.
    """
    given = config.trainer
    for name in given.keys() & ELSEWHERE.keys():
        raise InputError(f"trainer.{name}: set it as {ELSEWHERE[name]!r} instead")
    engine = [n for n in given if n.startswith("vllm_") and not n.startswith("vllm_importance_sampling_")]
    others = dict.fromkeys(engine, "the engine is LocalRFT's: its arguments go under engine, by vLLM's names")
    check_fields(GRPOConfig, given, "trainer", others | IGNORED)
    if given.get("vllm_importance_sampling_mode", "token_truncate") != "token_truncate":
        raise InputError("trainer.vllm_importance_sampling_mode: only 'token_truncate' holds up on long episodes")
    fields = DEFAULTS | _device_defaults() | given
    fields |= {
        "output_dir": str(output_dir),
        "seed": config.seed,
        "full_determinism": config.deterministic,
        "num_generations_eval": 1,
        "temperature": config.rollout.temperature,
        "scale_rewards": "none",
        "remove_unused_columns": False,
        "router_aux_loss_coef": 0.0,
        "shuffle_dataset": False,
    }
    if config.rollout.temperature == 0:
        raise InputError("rollout.temperature: 0 is greedy, and a group of equal episodes teaches nothing; use 1.0")
    try:
        args = GRPOConfig(**fields)
    except (ValueError, TypeError) as error:
        raise InputError(f"trainer: {error}") from error
    _check_groups(args)
    _check_best(args)
    if config.evaluate.keep is not None:
        _check_keep(args)
    return args


def _device_defaults() -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    dtype = "bfloat16" if on_gpu else "float32"
    return {"bf16": on_gpu, "use_cpu": not on_gpu, "model_init_kwargs": {"dtype": dtype}}


def _check_groups(args: GRPOConfig) -> None:
    rows = args.per_device_train_batch_size * args.steps_per_generation
    if rows % args.num_generations:
        raise InputError(
            f"trainer: a group must stay on one rank, but num_generations {args.num_generations} does not divide "
            f"per_device_train_batch_size x steps_per_generation = {args.per_device_train_batch_size} x "
            f"{args.steps_per_generation} = {rows}"
        )
    updates = window(args)
    if updates > 1 and args.save_strategy != "no" and (args.save_strategy != "steps" or args.save_steps % updates):
        raise InputError(
            f"trainer.save_steps: {args.save_steps} is not a multiple of the {updates} updates that one generation "
            "serves; a resume in between would not be exact"
        )


def window(args: GRPOConfig) -> int:
    """After how many updates a generation is used up: only then a resume would be exact."""
    uses = args.steps_per_generation * args.num_iterations
    return int(uses // math.gcd(uses, args.gradient_accumulation_steps))


def _check_best(args: GRPOConfig) -> None:
    if not (args.load_best_model_at_end or args.save_strategy == "best"):
        return
    name = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if name not in EVALUATED:
        raise InputError(f"trainer.metric_for_best_model: an evaluation makes no {name!r}{nearest(name, EVALUATED)}")


def _check_keep(args: GRPOConfig) -> None:
    steps = args.eval_strategy == args.save_strategy == "steps"
    if not steps or args.eval_steps != args.save_steps:
        raise InputError(
            "evaluate.keep: checkpoints are kept by what their evaluations come to, so each needs one; set "
            "trainer.eval_strategy and trainer.save_strategy to steps, and eval_steps and save_steps to one number"
        )
    if args.save_total_limit is not None:
        raise InputError("evaluate.keep and trainer.save_total_limit both say which checkpoints are kept; remove one")


def lora_config(fields: Mapping[str, Any]) -> LoraConfig:
    """PEFT's settings for a run; what the engine can't serve is refused when it is opened.

    Raises:
        InputError: a field that LoraConfig does not have, or refuses.
    """
    check_fields(LoraConfig, fields, "lora")
    try:
        return LoraConfig(task_type="CAUSAL_LM", **(LORA_DEFAULTS | dict(fields)))
    except (ValueError, TypeError) as error:
        raise InputError(f"lora: {error}") from error


def check_fields(kind: type[Any], given: Mapping[str, Any], where: str, ignored: Mapping[str, str] = NOTHING) -> None:
    """Neither TRL nor PEFT looks at the types of what it is given, until something breaks on them.

    Args:
        kind: a dataclass of theirs.
        given: values for its fields.
        ignored: fields that would have no effect, and why.

    Raises:
        InputError: a field that does not exist, that would have no effect, or with a value of another type.
    """
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    for name in given:
        if name in ignored:
            raise InputError(f"{where}.{name} would have no effect: {ignored[name]}")
        if name not in names:
            raise InputError(f"{where}: unknown key {name!r}{nearest(name, names)}")
    hints = get_type_hints(kind)
    for name, value in given.items():
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            raise InputError(f"{where}.{name}: {reasons(error)}; it is {value!r}") from error


def check_targets(model: PretrainedConfig, lora: LoraConfig) -> None:
    """Prove, without the weights, that each target module is the name of some layer.

    PEFT itself is content if one of several names is found.

    Raises:
        InputError: a target that matches nothing, or an adapter that no engine can serve.
    """
    refuse_unsupported(vars(lora), "lora")
    targets = lora.target_modules
    if targets is None or targets == "all-linear":
        return
    build: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        layers = dict(build(model).named_modules())
    for target in [targets] if isinstance(targets, str) else sorted(targets):
        if isinstance(targets, str):
            found = any(re.fullmatch(target, name) for name in layers)
        else:
            found = any(name == target or name.endswith(f".{target}") for name in layers)
        if not found:
            linear = {name.rpartition(".")[2] for name, layer in layers.items() if isinstance(layer, torch.nn.Linear)}
            hint = nearest(target, sorted(linear - {"lm_head"}))
            raise InputError(f"lora.target_modules: {target!r} matches no layer of the model{hint}")
