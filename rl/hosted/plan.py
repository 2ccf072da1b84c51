"""A job and its files, as a run of ours: the same Config that a YAML file says, with every "auto" decided.

Pure but for reading rows: the same job, rows and local settings make the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import InputError
from rewards.graders.spec import walk
from rl import config, trees
from rl.config import Config
from rl.hosted import auto, rows
from rl.hosted.body import Body, Reinforcement, ReinforcementHyperparameters, SupervisedMethod, settings
from rl.hosted.local import Local
from rl.hosted.refusal import Refused
from rl.hosted.rows import Rows

LEARNING_RATE = 1e-5
"""What learning_rate_multiplier multiplies, unless the local settings say `trainer.learning_rate`."""
SUPERVISED_RATE = 1e-4
"""The same for supervised jobs."""
DEVICE_BATCH = 8
"""Examples at once on the device, unless the local settings say `trainer.per_device_train_batch_size`."""
KEPT = 3
"""Checkpoints that a job lists: those of the evaluations with the highest valid_reward_mean."""
EFFORT = {"default": 1.0, "low": 0.5, "medium": 1.0, "high": 2.0}
"""reasoning_effort -> what `rollout.max_tokens` is multiplied by."""
TOOL_SECONDS = 3600.0
"""How long a rollout with tools may take: a single call may take ten minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a job comes to here."""

    config: Config
    hyperparameters: Mapping[str, Any]
    """As the job object gives them back: every "auto" decided."""
    steps: int
    said: tuple[str, ...] = ()
    """What a person should know: rows that earn nothing, requests without effect here. One line each."""


def plan(
    body: Body,
    *,
    train: Rows,
    valid: Rows,
    local: Local,
    output_dir: Path,
    overrides: Sequence[str] = (),
    processes: int = 1,
) -> Plan:
    """How a reinforcement job is trained here.

    Args:
        body: what was asked for.
        train, valid: its rows, read.
        local: which models there are, and how to run on this machine.
        output_dir: the run directory.
        overrides: `key=value` of the config, over everything else.
        processes: how many share the update.

    Raises:
        Refused: something in the job or its files can't be used.
        InputError: something in the local settings or the overrides can't.
    """
    job = body.reinforcement
    assert job is not None, "a supervised job has another plan"
    said = [*rows.check(job, train, valid), *_ignored(body)]
    asked = auto.reinforcement(job.hyperparameters, train=len(train), valid=len(valid))
    total = auto.steps(len(train), int(asked.batch_size), int(asked.n_epochs))
    base = local.base(body.model)
    tree: dict[str, Any] = {
        "model": base.model,
        "adapter": base.adapter,
        "env": {
            "use": "hosted",
            "settings": {"servers": {tool.name: tool.model_dump(exclude={"name"}) for tool in job.tools}},
            "options": {"files": {"train": str(train.path), "validation": str(valid.path)}},
            "evaluate": "validation",
        },
        "reward": _reward(job, local),
        "output_dir": output_dir,
        "seed": body.seed or 0,
        "deterministic": local.deterministic,
        "rollout": _rollout(job, local),
        "evaluate": {"tasks": None, "samples": asked.eval_samples, "greedy": False, "keep": KEPT},
        "trainer": _trainer(asked, local, total, processes),
    }
    for name in ("engine", "chat", "credit", "feed", "lora", "tiny"):
        tree[name] = getattr(local, name)
    for override in overrides:
        trees.apply(tree, override)
    found = config.parse(tree, where="the job")
    return Plan(config=found, hyperparameters=asked.model_dump(), steps=total, said=tuple(said))


def supervised(
    body: Body,
    *,
    train: Path,
    valid: Path | None,
    local: Local,
    output_dir: Path,
    overrides: Sequence[str] = (),
) -> Plan:
    """How a supervised job is trained here; its files are read for their replies.

    Raises:
        Refused: something in the job or its files can't be used.
        InputError: something in the local settings or the overrides can't.
    """
    assert isinstance(body.method, SupervisedMethod)
    replies = rows.examples(train, "training_file")
    files = {"train": str(train)}
    if valid is not None:
        rows.examples(valid, "validation_file")
        files["validation"] = str(valid)
    asked = auto.supervised(body.method.supervised.hyperparameters, train=replies)
    base = local.base(body.model)
    if base.adapter is not None:
        raise Refused(
            f"model: {body.model!r} was fine-tuned already; supervised jobs start from a base model here", param="model"
        )
    batch = int(asked.batch_size)
    total = auto.steps(replies, batch, int(asked.n_epochs))
    device = _largest_divisor(batch, local.trainer.get("per_device_train_batch_size", DEVICE_BATCH))
    rate = local.trainer.get("learning_rate", SUPERVISED_RATE) * float(asked.learning_rate_multiplier)
    trainer = {
        "learning_rate": rate,
        "max_steps": total,
        "per_device_train_batch_size": device,
        "gradient_accumulation_steps": batch // device,
        "save_steps": auto.eval_interval(total),
    }
    if valid is not None:
        trainer |= {"eval_strategy": "steps", "eval_steps": auto.eval_interval(total)}
    tree: dict[str, Any] = {
        "method": "supervised",
        "model": base.model,
        "env": {"use": "hosted", "options": {"files": files}, "evaluate": "validation" if valid else "train"},
        "output_dir": output_dir,
        "seed": body.seed or 0,
        "chat": local.chat,
        "lora": local.lora,
        "tiny": local.tiny,
        "trainer": trainer,
    }
    for override in overrides:
        trees.apply(tree, override)
    found = config.parse(tree, where="the job")
    return Plan(config=found, hyperparameters=asked.model_dump(), steps=total, said=tuple(_unsent(body)))


def _reward(job: Reinforcement, local: Local) -> dict[str, Any]:
    """The grader as a reward, with what it needs of this machine."""
    own = settings(job, local.settings).model_dump(mode="json", exclude_unset=True)
    found: dict[str, Any] = {"use": "grader", "grader": job.grader, "settings": own}
    kinds = {part.type for _, part in walk(job.graded)}
    if local.judge is not None and kinds & {"score_model", "label_model"}:
        found["judge"] = local.judge
    if "python" in kinds:
        found |= {"sandbox": local.sandbox} if local.sandbox is not None else {}
        found |= {"unsafe_python": local.unsafe_python} if local.unsafe_python is not None else {}
    return found


def _rollout(job: Reinforcement, local: Local) -> dict[str, Any]:
    """One turn, or as many as the job allows; thinking costs tokens."""
    found = dict(local.rollout)
    effort = EFFORT[job.hyperparameters.reasoning_effort]
    if effort != 1.0:
        tokens = found.get("max_tokens", config.RolloutConfig.model_fields["max_tokens"].default)
        found["max_tokens"] = max(1, round(effort * tokens))
    if not job.tools:
        return found | {"turns": 1}
    if job.max_episode_steps is not None:
        found["turns"] = job.max_episode_steps
    return {"seconds": TOOL_SECONDS, "retries": 0} | found


def _trainer(asked: ReinforcementHyperparameters, local: Local, total: int, processes: int) -> dict[str, Any]:
    """TRL's settings: one update a step, an evaluation and a checkpoint at every interval."""
    found = dict(local.trainer)
    size, batch = auto.group(float(asked.compute_multiplier)), int(asked.batch_size)
    if batch % processes:
        param = "method.reinforcement.hyperparameters.batch_size"
        raise Refused(f"{param}: {batch} prompts can't be shared by {processes} processes", param=param)
    episodes = size * batch // processes
    device = _largest_divisor(episodes, found.get("per_device_train_batch_size", size))
    interval = int(asked.eval_interval)
    found["learning_rate"] = found.get("learning_rate", LEARNING_RATE) * float(asked.learning_rate_multiplier)
    found |= {
        "max_steps": total,
        "num_generations": size,
        "per_device_train_batch_size": device,
        "gradient_accumulation_steps": episodes // device,
        "eval_strategy": "steps",
        "eval_steps": interval,
        "save_strategy": "steps",
        "save_steps": interval,
    }
    return found


def _largest_divisor(number: int, limit: Any) -> int:
    """The largest number up to a limit that divides another."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError(f"trainer.per_device_train_batch_size: expected a whole number of at least 1, not {limit!r}")
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)


def _ignored(body: Body) -> list[str]:
    """What was asked for and has no effect here."""
    job = body.reinforcement
    assert job is not None
    said = _unsent(body)
    if job.response_format is not None and job.response_format.type != "text":
        said.append(
            "response_format: outputs are not forced into it here; one that is not of it is a sample_parse_error and "
            "earns the error score"
        )
    return said


def _unsent(body: Body) -> list[str]:
    asked = [integration.type for integration in body.integrations or ()]
    return [
        f"integrations: nothing is sent to {name}; with `trainer: {{report_to: [{name}]}}` in the local settings the "
        "trainer reports there itself"
        for name in asked
    ]
