"""What happened in a step, by the names that hosted services have for it: the `data` of a metrics event, and the CSV.

The names are those of recorded events; docs/hosted.md says which numbers are the same and which are not known here.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from statistics import fmean
from typing import Any

from rewards.graders.errors import FLAGS
from rewards.graders.spec import Multi, Spec
from rl.records import Run
from rl.rollout import Played

ERRORS = (
    "other_error",
    "sample_parse_error",
    "invalid_variable_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
)
"""The errors that events count, of those that grading knows."""

COLUMNS = (
    "step",
    "train_reward_mean",
    "valid_reward_mean",
    "train_reasoning_tokens_mean",
    "valid_reasoning_tokens_mean",
    "train_completion_tokens_mean",
    "valid_completion_tokens_mean",
    "train_tool_calls_mean",
    "valid_tool_calls_mean",
)
"""Of the results file."""
SUPERVISED_COLUMNS = ("step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""And of a supervised job's."""


def of_run(run: Run, grader: Spec, *, after: int = 0) -> Iterator[dict[str, Any]]:
    """The data of every step's event that is whole, in their order.

    A step is whole when its metrics are written, and its evaluation where it has one.

    Args:
        run: of a reinforcement job, finished or going on.
        grader: the job's.
        after: the step to begin behind.
    """
    trainer = run.config["trainer"]
    total, interval = int(trainer["max_steps"]), int(trainer["eval_steps"])
    logged = {line["step"]: line for line in run.metrics.read() if "loss" in line}
    measured = {line["step"] for line in run.evaluations()}
    valid: dict[int, list[Played]] = {}
    for _, step, played in run.measured():
        if step > after:
            valid.setdefault(step, []).append(played)
    ranks = [Run(run.path, rank=rank) for rank in range(len(list(run.path.glob("episodes*.jsonl"))))]
    for step in count(after + 1):
        evaluates = step % interval == 0 or step == total
        if step not in logged or (evaluates and step not in measured):
            return
        groups = [group for rank in ranks for group in rank.recorded(step - 1).values()]
        train = [played for group in groups for played in group]
        yield data(step, total, train, valid.get(step), logged[step], grader)


def data(
    step: int,
    total: int,
    train: Sequence[Played],
    valid: Sequence[Played] | None,
    logged: Mapping[str, Any],
    grader: Spec,
) -> dict[str, Any]:
    """The data of one step's event.

    Args:
        step: from 1.
        total: how many there will be.
        train: the episodes it learned from; those without a score are left out of means, and counted.
        valid: those of its evaluation; None where it had none.
        logged: its line of `metrics.jsonl`.
        grader: the job's.
    """
    both = {"train": train, "valid": valid}
    means = {f"{name}_reward_mean": _mean(_values(played)) for name, played in both.items()}
    sampling, full = logged.get("time/rollout"), logged.get("step_time")
    tokens = {f"{name}_completion_tokens_mean": _mean(_tokens(played)) for name, played in both.items()}
    return {
        "step": step,
        "total_steps": total,
        "scores": means | {"graders": [_named(key, part) | _parts(key, both) for key, part in _graders(grader)]},
        "usage": {
            # What a model thought is part of what it sampled, and is not counted by itself.
            "samples": tokens | {"train_reasoning_tokens_mean": None, "valid_reasoning_tokens_mean": None},
            "graders": [],
        },
        "errors": {"graders": [_named(grader.name or grader.type, grader) | _errors(both)]},
        "timing": {
            "step": {
                "sampling": sampling,
                "training": full - sampling if full is not None and sampling is not None else None,
                "full_iteration": full,
            },
            "graders": [],
        },
        "tools": {f"{name}_{what}": value for name, played in both.items() for what, value in _tools(played).items()},
        "rollouts": {f"{name}_{what}": n for name, played in both.items() for what, n in _rollouts(played).items()},
        "train_mean_reward": means["train_reward_mean"],
        "full_valid_mean_reward": means["valid_reward_mean"],
        "completion_tokens_mean": tokens["train_completion_tokens_mean"],
        "reasoning_tokens_mean": None,
        "valid_reasoning_tokens_mean": None,
        "full_valid_mean_parse_error": _errors(both)["valid_sample_parse_error_mean"],
    }


def of_supervised(run: Run, *, after: int = 0) -> Iterator[dict[str, Any]]:
    """The same for a supervised job: a step's loss and accuracy, by token, and those on the validation rows.

    The data of the step's event, and a row of the results file with `SUPERVISED_COLUMNS`.
    """
    trainer = run.config["trainer"]
    total, interval = int(trainer["max_steps"]), trainer.get("eval_steps")
    lines = list(run.metrics.read())
    logged = {line["step"]: line for line in lines if "loss" in line}
    valid = {line["step"]: line for line in lines if "eval_loss" in line}
    for step in count(after + 1):
        evaluates = interval is not None and (step % int(interval) == 0 or step == total)
        if step not in logged or (evaluates and step not in valid):
            return
        measured = valid.get(step, {})
        yield {
            "step": step,
            "total_steps": total,
            "train_loss": logged[step]["loss"],
            "train_mean_token_accuracy": logged[step].get("mean_token_accuracy"),
            "valid_loss": measured.get("eval_loss"),
            "valid_mean_token_accuracy": measured.get("eval_mean_token_accuracy"),
        }


def message(found: Mapping[str, Any]) -> str:
    """What the event of a step says in words."""
    said = f"Step {found['step']}/{found['total_steps']}"
    shown = {
        "train mean reward": found["train_mean_reward"],
        "full validation mean reward": found["full_valid_mean_reward"],
        "full validation mean parse error": found["full_valid_mean_parse_error"],
    }
    return ", ".join([said, *(f"{name}={value:.2f}" for name, value in shown.items() if value is not None)])


def results(events: Iterable[Mapping[str, Any]]) -> str:
    """The results file: CSV with a row a step; what a step does not have is empty."""
    rows = [{**found, **found["scores"], **found["usage"]["samples"], **found["tools"]} for found in events]
    return _table(COLUMNS, rows)


def supervised_results(events: Iterable[Mapping[str, Any]]) -> str:
    """The same of a supervised job."""
    return _table(SUPERVISED_COLUMNS, events)


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: "" if row[name] is None else row[name] for name in columns})
    return text.getvalue()


def _graders(grader: Spec) -> list[tuple[str, Spec]]:
    """Those whose scores are in the parts of an episode's score, each under its key there."""
    if isinstance(grader, Multi):
        return list(grader.graders.items())
    return [(grader.name or grader.type, grader)]


def _named(key: str, grader: Spec) -> dict[str, Any]:
    return {"name": grader.name or key, "type": grader.type}


def _parts(key: str, both: Mapping[str, Sequence[Played] | None]) -> dict[str, float | None]:
    return {
        f"{name}_reward_mean": _mean([p.score.parts[key] for p in _scored(played) if key in p.score.parts])
        for name, played in both.items()
    }


def _errors(both: Mapping[str, Sequence[Played] | None]) -> dict[str, float | None]:
    """How many episodes had each error, and as a share of those that were played to their end."""
    found: dict[str, float | None] = {}
    for name, played in both.items():
        whole = [p for p in played or () if not p.episode.broken]
        for flag in ERRORS:
            number = sum(flag in flags(p) for p in whole)
            found[f"{name}_{flag}_count"] = number if played is not None else None
            found[f"{name}_{flag}_mean"] = number / len(whole) if whole else None
    return found


def flags(played: Played) -> set[str]:
    """The errors of grading an episode: those it scored with, or those that left it without a score."""
    said = played.score.error or ""
    noted = {name.removeprefix("grader_error.") for name in played.score.parts}
    return {flag for flag in FLAGS if flag in noted or f"{flag}: " in said}


def _tools(played: Sequence[Played] | None) -> dict[str, float | None]:
    whole = [p for p in played or () if not p.episode.broken]
    results = [result for p in whole for turn in p.episode.turns for result in turn.results]
    return {
        "tool_calls_mean": _mean([p.episode.cost.tool_calls for p in whole]) if whole else None,
        "tool_latency_mean": _mean([result.seconds for result in results]),
        "tool_errors_count": sum(result.fault is not None for result in results) if played is not None else None,
    }


def _rollouts(played: Sequence[Played] | None) -> dict[str, int | None]:
    if played is None:
        return {"count": None, "broken": None, "unscored": None}
    broken = sum(p.episode.broken for p in played)
    return {"count": len(played), "broken": broken, "unscored": len(played) - broken - len(_scored(played))}


def _scored(played: Sequence[Played] | None) -> list[Played]:
    return [p for p in played or () if p.score.error is None]


def _values(played: Sequence[Played] | None) -> list[float]:
    return [p.score.value for p in _scored(played)]


def _tokens(played: Sequence[Played] | None) -> list[float]:
    return [p.episode.cost.sampled_tokens for p in played or () if not p.episode.broken]


def _mean(numbers: Sequence[float]) -> float | None:
    mean = fmean(numbers) if numbers else None
    return mean if mean is not None and math.isfinite(mean) else None
