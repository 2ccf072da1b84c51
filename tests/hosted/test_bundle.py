"""A job as a folder of files, read as `rft train` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envs.errors import InputError
from rl.cli import BAD_INPUT, main
from rl.hosted import bundle

GRADER = {
    "type": "string_check",
    "name": "right",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}


def job(**reinforcement: Any) -> dict[str, Any]:
    return {
        "model": "o4-mini-2025-04-16",
        "training_file": "file-abc",
        "validation_file": "file-def",
        "method": {"type": "reinforcement", "reinforcement": reinforcement},
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    def rows(start: int, count: int) -> str:
        made = ({"messages": [{"role": "user", "content": f"{i} + 1?"}], "answer": str(i + 1)} for i in range(count))
        return "".join(json.dumps(row) + "\n" for i, row in enumerate(made) if i >= start)

    (tmp_path / "train.jsonl").write_text(rows(0, 20))
    (tmp_path / "valid.jsonl").write_text(rows(20, 25))
    (tmp_path / "grader.json").write_text(json.dumps(GRADER))
    (tmp_path / "job.json").write_text(json.dumps(job()))
    (tmp_path / "local.yaml").write_text("models: {o4-mini-2025-04-16: some/model}\nrollout: {max_tokens: 9}\n")
    return tmp_path


def test_a_bundle_is_a_config_like_any_other(place: Path) -> None:
    assert bundle.is_one(place) and bundle.is_one(place / "job.json")
    config = bundle.planned(bundle.load(place / "job.json"), "trainer.max_steps=3").config
    assert (config.model, config.rollout.max_tokens, config.trainer["max_steps"]) == ("some/model", 9, 3)
    assert config.env.options["files"] == {
        "train": str(place / "train.jsonl"),
        "validation": str(place / "valid.jsonl"),
    }
    assert config.reward["grader"] == GRADER
    assert config.output_dir == Path("runs") / place.name


def test_a_model_on_the_command_line_needs_no_name_in_the_local_settings(place: Path) -> None:
    (place / "local.yaml").unlink()
    loaded = bundle.load(place)
    with pytest.raises(InputError, match="unknown model 'o4-mini-2025-04-16'; there are: tiny; `models`"):
        bundle.planned(loaded)
    assert bundle.planned(loaded, "model=other/model").config.model == "other/model"


def test_the_grader_may_stand_in_the_job_but_not_twice_and_differently(place: Path) -> None:
    (place / "job.json").write_text(json.dumps(job(grader=GRADER)))
    assert bundle.load(place).body.reinforcement is not None
    (place / "grader.json").write_text(json.dumps(GRADER | {"operation": "ilike"}))
    with pytest.raises(InputError, match="differ; remove one"):
        bundle.load(place)


def test_files_that_the_job_names_come_first(place: Path) -> None:
    (place / "mine.jsonl").write_text((place / "train.jsonl").read_text())
    (place / "job.json").write_text(json.dumps(job() | {"training_file": "mine.jsonl"}))
    assert bundle.load(place).train == place / "mine.jsonl"
    (place / "valid.jsonl").unlink()
    with pytest.raises(InputError, match=r"validation_file: there is neither file-def nor valid.jsonl"):
        bundle.load(place)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("job.json", "{", "not JSON"),
        ("job.json", json.dumps(job() | {"suffix": ""}), "suffix"),
        ("local.yaml", "modles: {}", "did you mean 'models'"),
        ("local.yaml", "trainer: {max_steps: 3}", "max_steps is decided by the job's n_epochs"),
        ("local.yaml", "models: {o4-mini-2025-04-16: 3}", "models.o4-mini-2025-04-16"),
        ("train.jsonl", "nonsense", "train.jsonl, line 1: not JSON"),
    ],
)
def test_what_is_wrong_in_a_bundle_is_bad_input(
    place: Path, name: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / name).write_text(text)
    assert main(["train", str(place / "job.json")]) == BAD_INPUT
    assert said in capsys.readouterr().err


def test_a_config_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert not bundle.is_one(tmp_path) and not bundle.is_one(tmp_path / "config.json")
    assert not bundle.is_one(tmp_path / "gone.yaml")
