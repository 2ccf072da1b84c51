"""What happened in a step by the names of hosted events, against numbers counted by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envs.types import Cost, Stop, Task
from made import played, turn
from rewards.graders import parse
from rewards.score import Score
from rl.collect import Group
from rl.evaluate import summarise
from rl.feed import Ticket
from rl.hosted import metrics
from rl.records import Run
from rl.rollout import Played

GRADER = parse(
    {
        "type": "multi",
        "name": "both",
        "graders": {
            "exact": {"type": "string_check", "input": "a", "reference": "b", "operation": "eq"},
            "style": {"type": "python", "source": "def grade(sample, item):\n    return 1"},
        },
        "calculate_output": "exact + style",
    }
)
LOGGED = {"step": 3, "loss": 0.1, "time/rollout": 2.0, "step_time": 5.0}


def scored(value: float, exact: float, style: float, *, tokens: int = 10, errors: tuple[str, ...] = ()) -> Played:
    made = played(cost=Cost(sampled_tokens=tokens, tool_calls=1), turns=(turn(None), turn(text="so")))
    parts = {"exact": exact, "style": style} | {f"grader_error.{flag}": 1.0 for flag in errors}
    return replace(made, score=Score(value=value, parts=parts))


def unscored(error: str) -> Played:
    return replace(played(cost=Cost(sampled_tokens=40)), score=Score.unscored(error))


TRAIN = [
    scored(2.0, 1.0, 1.0),
    scored(1.0, 0.0, 1.0, tokens=20, errors=("python_grader_runtime_error", "sample_parse_error")),
    unscored("both: python_grader_server_error: the pool is gone"),
    played(value=None, stop=Stop.ENV_LOST, cost=Cost(sampled_tokens=1000)),
]
VALID = [scored(2.0, 1.0, 1.0), scored(0.0, 0.0, 0.0, errors=("sample_parse_error",))]


def found(valid: list[Played] | None = VALID) -> dict[str, Any]:
    return metrics.data(3, 10, TRAIN, valid, LOGGED, GRADER)


def test_the_numbers_of_a_step_by_hand() -> None:
    event = found()
    assert (event["step"], event["total_steps"]) == (3, 10)
    assert event["scores"]["train_reward_mean"] == event["train_mean_reward"] == 1.5
    assert event["scores"]["valid_reward_mean"] == event["full_valid_mean_reward"] == 1.0
    assert event["scores"]["graders"] == [
        {"name": "exact", "type": "string_check", "train_reward_mean": 0.5, "valid_reward_mean": 0.5},
        {"name": "style", "type": "python", "train_reward_mean": 1.0, "valid_reward_mean": 0.5},
    ]
    assert event["completion_tokens_mean"] == pytest.approx(70 / 3), "the broken rollout is left out"
    assert event["reasoning_tokens_mean"] is None
    assert event["rollouts"] == {
        "train_count": 4,
        "train_broken": 1,
        "train_unscored": 1,
        "valid_count": 2,
        "valid_broken": 0,
        "valid_unscored": 0,
    }
    assert event["timing"]["step"] == {"sampling": 2.0, "training": 3.0, "full_iteration": 5.0}
    assert event["tools"]["train_tool_calls_mean"] == pytest.approx(2 / 3)
    assert event["tools"]["valid_tool_errors_count"] == 0


def test_errors_are_counted_by_kind() -> None:
    (errors,) = found()["errors"]["graders"]
    assert (errors["name"], errors["type"]) == ("both", "multi")
    assert errors["train_python_grader_runtime_error_count"] == 1
    assert errors["train_python_grader_server_error_count"] == 1
    assert errors["train_sample_parse_error_mean"] == pytest.approx(1 / 3)
    assert errors["valid_sample_parse_error_mean"] == found()["full_valid_mean_parse_error"] == 0.5
    assert errors["valid_other_error_count"] == 0


def test_a_step_without_an_evaluation_says_nothing_of_one() -> None:
    event = found(valid=None)
    assert event["scores"]["valid_reward_mean"] is None and event["rollouts"]["valid_count"] is None
    assert metrics.message(event) == "Step 3/10, train mean reward=1.50"
    assert (
        metrics.message(found())
        == "Step 3/10, train mean reward=1.50, full validation mean reward=1.00, full validation mean parse error=0.50"
    )


def test_the_results_file_has_a_row_a_step() -> None:
    text = metrics.results([found(), found(valid=None)])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["train_reward_mean"] for row in rows] == ["1.5", "1.5"]
    assert [row["valid_reward_mean"] for row in rows] == ["1.0", ""]
    assert tuple(rows[0]) == metrics.COLUMNS


def test_a_step_is_told_of_when_it_is_whole(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {"trainer": {"max_steps": 3, "eval_steps": 2}}) as run:

        def events(after: int = 0) -> list[int]:
            return [event["step"] for event in metrics.of_run(Run.read(run.path), GRADER, after=after)]

        for step in range(3):
            task = Task.ask(str(step))
            run.record(step, Group(ticket=Ticket(step, task), played=tuple(TRAIN[:2])))
            assert events() == list(range(1, step + 1)), "not before its metrics are written"
            run.metrics.append({"step": step + 1, "loss": 0.0})
            evaluates = step + 1 in (2, 3)
            assert events() == list(range(1, step + 1 + (not evaluates)))
            if evaluates:
                run.evaluated("eval/sampled", step + 1, summarise(VALID), VALID)
            assert events() == list(range(1, step + 2))
        assert events(after=2) == [3]
        last = list(metrics.of_run(Run.read(run.path), GRADER))[-1]
    assert (last["scores"]["train_reward_mean"], last["scores"]["valid_reward_mean"]) == (1.5, 1.0)


def test_a_supervised_step_is_its_losses(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {"trainer": {"max_steps": 3, "eval_steps": 2}}) as run:
        for step in (1, 2, 3):
            run.metrics.append({"step": step, "loss": 1.0 / step, "mean_token_accuracy": 0.5})
        run.metrics.append({"step": 2, "eval_loss": 0.4, "eval_mean_token_accuracy": 0.75})
        events = list(metrics.of_supervised(Run.read(run.path)))
        assert [event["step"] for event in events] == [1, 2], "the last is evaluated too, and was not yet"
        run.metrics.append({"step": 3, "eval_loss": 0.3})
        events += metrics.of_supervised(Run.read(run.path), after=2)
    table = list(csv.DictReader(io.StringIO(metrics.supervised_results(events))))
    assert [row["train_loss"] for row in table] == ["1.0", "0.5", "0.3333333333333333"]
    assert [row["valid_loss"] for row in table] == ["", "0.4", "0.3"]
    assert [row["valid_mean_token_accuracy"] for row in table] == ["", "0.75", ""]
