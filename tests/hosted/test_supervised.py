"""Supervised jobs: which replies are learned, what the job becomes, and a run of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envs.bridges.hosted import examples_of
from envs.errors import InputError
from rl.cli import OK, main
from rl.config import parse
from rl.hosted import bundle
from rl.hosted.refusal import Refused


def talk(*said: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)], **more}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rows = [talk(f"What is {i}?", f"It is {i}.") for i in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}}
    job = {"model": "tiny", "training_file": "f", "validation_file": "g", "seed": 5, "method": method}
    (tmp_path / "job.json").write_text(json.dumps(job))
    return tmp_path


def test_every_reply_is_learned_with_what_was_said_before_it() -> None:
    found = examples_of(talk("a", "b", "c", "d"), "row 1")
    assert [[m.content for m in example.prompt] for example in found] == [["a"], ["a", "b", "c"]]
    assert [example.reply.content for example in found] == ["b", "d"]


def test_a_reply_of_weight_0_is_only_read() -> None:
    row = talk("a", "b", "c", "d")
    row["messages"][1]["weight"] = 0
    assert [example.reply.content for example in examples_of(row, "row 1")] == ["d"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (talk("a"), "no assistant message to learn from"),
        ({"messages": [{"role": "assistant", "content": "b"}]}, "nobody has asked"),
        ({"prompt": "a"}, "an object with 'messages'"),
    ],
)
def test_a_row_without_anything_to_learn_is_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"row 9: .*{said}"):
        examples_of(row, "row 9")


def test_a_supervised_job_becomes_a_config(place: Path) -> None:
    plan = bundle.planned(bundle.load(place))
    assert plan.hyperparameters == {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.0}
    assert plan.steps == 10 and plan.config.method == "supervised" and plan.config.seed == 5
    assert plan.config.trainer == {
        "learning_rate": 1e-4,
        "max_steps": 10,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
    }


def test_a_file_that_can_not_be_used_is_refused_with_its_line(place: Path) -> None:
    (place / "valid.jsonl").write_text(json.dumps(talk("a")) + "\n")
    with pytest.raises(Refused, match=r"valid.jsonl, line 1: there is no assistant message") as error:
        bundle.planned(bundle.load(place))
    assert (error.value.param, error.value.code) == ("validation_file", "invalid_validation_file")


@pytest.mark.parametrize("extra", [{"reward": {"a": "exact"}}, {"engine": {"kind": "transformers"}}])
def test_what_a_supervised_run_would_ignore_is_refused(extra: dict[str, Any]) -> None:
    tree = {"method": "supervised", "model": "tiny", "env": {"use": "hosted"}, "output_dir": "x"}
    assert parse(tree).method == "supervised"
    with pytest.raises(InputError, match="would have no effect with method 'supervised'"):
        parse(tree | extra)


@pytest.mark.stack
def test_a_supervised_job_trains_evaluates_and_leaves_an_adapter(place: Path, random_base: Path) -> None:
    from rl.records import Run

    (place / "local.yaml").write_text(
        json.dumps({"models": {"tiny": str(random_base)}, "trainer": {"learning_rate": 1e-2}, "lora": {"r": 8}})
    )
    run = place / "run"
    assert main(["train", str(place / "job.json"), f"output_dir={run}"]) == OK
    lines = list(Run.read(run).metrics.read())
    losses = [line["loss"] for line in lines if "loss" in line]
    valid = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert len(losses) == len(valid) == 10 and valid[-1] < valid[0]
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert (run / "checkpoint-10" / "manifest.json").is_file()
    assert [entry["kind"] for entry in Run.read(run).ledger.read()] == ["created", "started", "trained"]
