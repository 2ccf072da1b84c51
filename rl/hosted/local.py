"""What a hosted job does not say and a machine must know: which models there are, and how to run on this hardware.

    models: {o4-mini-2025-04-16: Qwen/Qwen3-4B}
    judge: {base_url: "http://127.0.0.1:8000/v1", models: {o3-mini-2025-01-31: Qwen/Qwen3-32B}}
    rollout: {max_tokens: 2048}
    trainer: {learning_rate: 2e-5, per_device_train_batch_size: 16}

Everything but `models` and the four keys about graders is a section of `rl.config.Config`, less what the job itself
decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from envs.errors import InputError, reasons, unknown
from rl.hosted.refusal import Refused

DECIDED = {
    "max_steps": "n_epochs",
    "num_train_epochs": "n_epochs",
    "num_generations": "compute_multiplier",
    "gradient_accumulation_steps": "batch_size",
    "steps_per_generation": "batch_size",
    "generation_batch_size": "batch_size",
    "eval_strategy": "eval_interval",
    "eval_steps": "eval_interval",
    "save_strategy": "eval_interval",
    "save_steps": "eval_interval",
    "save_total_limit": "eval_interval",
}
"""Fields of `trainer` -> the hyperparameter of a job that decides them."""


class Base(BaseModel):
    """What a model's name stands for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """A directory, a name on the Hub, or "tiny"."""
    adapter: Path | None = None
    """A LoRA adapter to go on from: the name is of a model that was fine-tuned here."""


class Local(BaseModel):
    """See above. Without any, the embedded policy is the one model, and graders have nothing but themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, Base] = {"tiny": Base(model="tiny")}
    """Name in a job -> a directory, a name on the Hub or "tiny"; or {model, adapter}."""
    judge: dict[str, Any] | None = None
    """Where models that judge are; see `rewards.graders.JudgeConfig`."""
    settings: dict[str, Any] = {}
    """What hosted graders leave unsaid; see `rewards.graders.Settings`."""
    sandbox: dict[str, Any] | None = None
    """Of python graders; see `envs.sandbox.SandboxSettings`."""
    unsafe_python: str | None = None
    """Why python graders may run without a sandbox."""
    rollout: dict[str, Any] = {}
    engine: dict[str, Any] = {}
    chat: dict[str, Any] = {}
    credit: dict[str, Any] = {}
    feed: dict[str, Any] = {}
    lora: dict[str, Any] = {}
    trainer: dict[str, Any] = {}
    tiny: dict[str, Any] = {}
    deterministic: bool = False

    @field_validator("models", mode="before")
    @classmethod
    def _short(cls, models: Any) -> Any:
        if not isinstance(models, Mapping):
            return models
        return {name: {"model": model} if isinstance(model, str) else model for name, model in models.items()}

    @field_validator("trainer")
    @classmethod
    def _leaves_the_jobs_own_alone(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        for name, hyperparameter in DECIDED.items():
            if name in trainer:
                raise ValueError(f"{name} is decided by the job's {hyperparameter}; remove it")
        return trainer

    def base(self, name: str) -> Base:
        """What a job's model stands for.

        Raises:
            Refused: there is no such model here.
        """
        if name not in self.models:
            raise Refused(
                f"{unknown('model', name, self.models)}; `models` of the local settings says what a name stands for",
                param="model",
                code="model_not_found",
            )
        return self.models[name]


def read(path: Path) -> Local:
    """The local settings in a YAML file.

    Raises:
        InputError: it can't be read, or something in it can't be used.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't read the local settings: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: local settings are a mapping of keys to values; this is {type(tree).__name__}")
    for key in tree:
        if key not in Local.model_fields:
            raise InputError(f"{path}: {unknown('key', str(key), Local.model_fields)}")
    try:
        return Local.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{path}: {reasons(error)}") from error
