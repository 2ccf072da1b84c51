"""What a job may be asked for, and what it is told where it can't be."""

from __future__ import annotations

from typing import Any

import pytest

from rl.hosted.body import ReinforcementHyperparameters, read
from rl.hosted.refusal import Refused

GRADER = {
    "type": "string_check",
    "name": "right",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}


def job(hyperparameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    reinforcement = {"grader": GRADER, "hyperparameters": hyperparameters or {}, **more}
    return {
        "model": "tiny",
        "training_file": "file-1",
        "validation_file": "file-2",
        "method": {"type": "reinforcement", "reinforcement": reinforcement},
    }


def refused(tree: Any) -> Refused:
    with pytest.raises(Refused) as error:
        read(tree)
    return error.value


def test_a_job_of_the_official_client_is_read() -> None:
    """Every field that its types know, and the three that only the service knows."""
    full = job(
        {
            "batch_size": 4,
            "n_epochs": "auto",
            "learning_rate_multiplier": 2,
            "compute_multiplier": 1.5,
            "eval_interval": 3,
            "eval_samples": 5,
            "reasoning_effort": "medium",
        },
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
        },
        tools=[{"name": "search", "server_url": "https://tools.example/search", "headers": {"Authorization": "x"}}],
        max_episode_steps=10,
    ) | {
        "suffix": "mine",
        "seed": 7,
        "metadata": {"team": "a"},
        "integrations": [{"type": "wandb", "wandb": {"project": "p"}}],
    }
    body = read(full)
    assert body.reinforcement is not None
    assert body.reinforcement.hyperparameters == ReinforcementHyperparameters(
        batch_size=4,
        learning_rate_multiplier=2.0,
        compute_multiplier=1.5,
        eval_interval=3,
        eval_samples=5,
        reasoning_effort="medium",
    )
    assert body.reinforcement.tools[0].headers == {"Authorization": "x"}
    assert body.reinforcement.graded.name == "right"
    assert (body.suffix, body.seed, body.metadata) == ("mine", 7, {"team": "a"})


@pytest.mark.parametrize("method", [{}, {"method": None, "hyperparameters": {"n_epochs": 2}}])
def test_a_job_without_a_method_is_supervised(method: dict[str, Any]) -> None:
    body = read({"model": "tiny", "training_file": "file-1"} | method)
    assert body.method.type == "supervised" and body.reinforcement is None


PREFIX = "method.reinforcement.hyperparameters"


@pytest.mark.parametrize(
    ("tree", "param", "code", "said"),
    [
        ([], None, "invalid_type", "a job is a JSON object"),
        ({}, "model", "missing_required_parameter", "'model'"),
        (job() | {"modle": "x"}, "modle", "unknown_parameter", "did you mean 'model'"),
        (job() | {"validation_file": None}, "validation_file", "missing_required_parameter", "needs a validation_file"),
        (job() | {"suffix": "x" * 65}, "suffix", "string_above_max_length", "64"),
        (job() | {"seed": -1}, "seed", "integer_below_min_value", "greater than or equal to 0"),
        (job() | {"metadata": {str(i): "" for i in range(17)}}, "metadata", "invalid_value", "16"),
        (job() | {"metadata": {"a": "b" * 513}}, "metadata.a", "string_above_max_length", "512"),
        (job({"batch_size": 257}), f"{PREFIX}.batch_size", "integer_above_max_value", "256 or 'auto', not 257"),
        (job({"batch_size": 0}), f"{PREFIX}.batch_size", "integer_below_min_value", "not 0"),
        (job({"batch_size": "big"}), f"{PREFIX}.batch_size", "invalid_type", "integer or 'auto', not 'big'"),
        (job({"batch_size": True}), f"{PREFIX}.batch_size", "invalid_type", "not True"),
        (job({"n_epochs": 51}), f"{PREFIX}.n_epochs", "integer_above_max_value", "50"),
        (job({"compute_multiplier": 1e-5}), f"{PREFIX}.compute_multiplier", "decimal_below_min_value", "0.00001"),
        (job({"learning_rate_multiplier": 0.0}), f"{PREFIX}.learning_rate_multiplier", "decimal_below_min_value", "0"),
        (job({"learning_rate_multiplier": float("nan")}), f"{PREFIX}.learning_rate_multiplier", "invalid_value", "nan"),
        (job({"reasoning_effort": "huge"}), f"{PREFIX}.reasoning_effort", "invalid_value", "'high', not 'huge'"),
        (job({"batchsize": 4}), f"{PREFIX}.batchsize", "unknown_parameter", "did you mean 'batch_size'"),
        (job() | {"method": {"type": "dpo", "dpo": {}}}, "method.type", "unsupported_value", "preferences"),
        (job() | {"method": {"type": "rl"}}, "method", "unsupported_value", "'reinforcement', 'supervised'"),
        (
            job() | {"method": {"type": "reinforcement"}},
            "method.reinforcement",
            "missing_required_parameter",
            "missing required parameter",
        ),
        (job(max_episode_steps=3), "method.reinforcement", "invalid_value", "without tools a rollout is one turn"),
        (
            job(tools=[{"name": "a", "server_url": "http://x"}] * 2),
            "method.reinforcement.tools",
            "invalid_value",
            "'a' is there twice",
        ),
        (
            job(tools=[{"name": "a", "server_url": "ftp://tools.example"}]),
            "method.reinforcement.tools.0.server_url",
            "invalid_value",
            "pattern",
        ),
        (
            job(response_format={"type": "json_schema"}),
            "method.reinforcement.response_format",
            "invalid_value",
            "json_schema",
        ),
        (
            job(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 5}}}),
            "method.reinforcement.response_format",
            "invalid_value",
            "not a JSON schema",
        ),
        (job(grader=GRADER | {"operation": "is"}), "method.reinforcement.grader", "invalid_grader", "'ilike'"),
        (
            job(
                grader={
                    "type": "text_similarity",
                    "name": "c",
                    "input": "a",
                    "reference": "b",
                    "evaluation_metric": "cosine",
                }
            ),
            "method.reinforcement.grader.evaluation_metric",
            "invalid_grader",
            "cosine is not for reinforcement",
        ),
    ],
)
def test_what_can_not_be_done_is_refused_by_field_and_code(tree: Any, param: str, code: str, said: str) -> None:
    error = refused(tree).error()
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert said in error["message"]
