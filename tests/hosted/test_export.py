"""Projects brought in and written out again: what comes back, what every target makes of a row, what is lost."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from envs.errors import InputError
from rl import config
from rl.cli import BAD_INPUT, OK, main
from rl.hosted import bundle
from rl.hosted.bring import bring
from rl.hosted.export import TARGETS, export, of_bundle

GRADER = {
    "type": "multi",
    "name": "both",
    "graders": {
        "exact": {
            "type": "string_check",
            "name": "exact",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.answer }}",
            "operation": "eq",
        },
        "asked": {
            "type": "python",
            "name": "asked",
            "source": "def grade(sample, item):\n    return float(item['messages'][-1]['content'].endswith('?'))",
        },
    },
    "calculate_output": "(exact + asked) / 2",
    "pass_threshold": 0.5,
}
JOB = {
    "model": "o4-mini-2025-04-16",
    "training_file": "file-1",
    "validation_file": "file-2",
    "suffix": "mine",
    "seed": 3,
    "method": {
        "type": "reinforcement",
        "reinforcement": {
            "grader": GRADER,
            "hyperparameters": {"n_epochs": 2, "batch_size": "auto", "reasoning_effort": "medium"},
        },
    },
}


def row(i: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": f"What is {i} + 1?"}]},
        ],
        "answer": str(i + 1),
        "level": {"of": [i, None, 0.5]},
        "note": "json: é",
    }


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(r, ensure_ascii=i % 2 == 0) + ("\n" if i % 2 else " \n") for i, r in enumerate(rows))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A bundle as somebody has it, with odd white space."""
    made = tmp_path / "mine"
    made.mkdir()
    (made / "train.jsonl").write_text(lines([row(i) for i in range(12)]))
    (made / "valid.jsonl").write_text(lines([row(i) for i in range(90, 95)]))
    (made / "job.json").write_text(json.dumps(JOB))
    return made


def brought(place: Path, out: Path, **more: Any) -> Path:
    bring(out, train=place / "train.jsonl", valid=place / "valid.jsonl", job=place / "job.json", **more)
    return out


def of(folder: Path) -> dict[str, Any]:
    """A bundle as it reads, without the names of its files."""
    tree = dict(bundle.load(folder).tree)
    return {name: value for name, value in tree.items() if not name.endswith("_file")}


def test_what_is_brought_in_and_written_out_again_is_the_same(place: Path, tmp_path: Path) -> None:
    project = brought(place, tmp_path / "project", model="some/model")
    for step, target in enumerate(("openai", "azure", "openai")):
        out = tmp_path / f"out{step}"
        export(of_bundle(bundle.load(project)), target, out)
        for name in ("train.jsonl", "valid.jsonl"):
            assert (out / name).read_bytes() == (place / name).read_bytes()
        assert json.loads((out / "grader.json").read_text()) == GRADER
        assert of(out) == of(place)
        project = out


def test_a_project_trains_by_its_yaml_as_by_its_job(place: Path, tmp_path: Path) -> None:
    project = brought(place, tmp_path / "project", model="some/model", overrides=["rollout.max_tokens=77"])
    by_yaml = config.load(project / "config.yaml")
    by_job = bundle.planned(bundle.load(project), "rollout.max_tokens=77").config
    assert by_yaml == by_job
    assert (by_yaml.model, by_yaml.seed, by_yaml.rollout.max_tokens) == ("some/model", 3, 77)


def test_a_job_object_is_brought_in_like_the_body_that_made_it(place: Path, tmp_path: Path) -> None:
    extra = {"object": "fine_tuning.job", "id": "ftjob-1", "status": "succeeded", "result_files": [], "metadata": None}
    (place / "job.json").write_text(json.dumps(JOB | extra))
    assert of(brought(place, tmp_path / "project", model="tiny")) == {
        name: value for name, value in JOB.items() if not name.endswith("_file")
    }


def test_without_a_job_everything_is_auto(place: Path, tmp_path: Path) -> None:
    (tmp_path / "grader.json").write_text(json.dumps(GRADER))
    files = {name: place / f"{name}.jsonl" for name in ("train", "valid")}
    plan = bring(tmp_path / "project", grader=tmp_path / "grader.json", **files)
    assert plan.hyperparameters["n_epochs"] == 10 and plan.config.model == "tiny"


def test_what_can_not_be_brought_in_leaves_nothing(place: Path, tmp_path: Path) -> None:
    (place / "valid.jsonl").write_text("nonsense\n")
    with pytest.raises(InputError, match=r"valid.jsonl, line 1"):
        brought(place, tmp_path / "project", model="tiny")
    assert list((tmp_path / "project").iterdir()) == []
    with pytest.raises(InputError, match="not an empty folder"):
        brought(place, place)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a file of an export as it would be imported there: its folder first in the path."""

    def run(folder: Path, name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop("scoring", None)
        made = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert made is not None and made.loader is not None
        module = importlib.util.module_from_spec(made)
        made.loader.exec_module(module)
        return module

    yield run
    sys.modules.pop("scoring", None)


def exported(place: Path, target: str, out: Path) -> tuple[Path, list[str]]:
    lost = export(of_bundle(bundle.load(place)), target, out)
    return out, lost


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


SAID = [("2", 1.0), ("3", 0.5)]
"""Answers to the second row's "What is 1 + 1?", and what the grader gives them."""


def test_nova_rows_have_a_reference_and_the_lambda_scores_them_as_the_grader_does(
    place: Path, tmp_path: Path, load: Any
) -> None:
    out, lost = exported(place, "nova", tmp_path / "out")
    packed = rows_of(out / "train.jsonl")[1]
    assert packed["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
    ]
    assert packed["reference_answer"] == {name: row(1)[name] for name in ("answer", "level", "note")}
    assert len({r["id"] for r in rows_of(out / "train.jsonl")}) == 12
    handler = load(out, "lambda_function").lambda_handler
    for said, worth in SAID:
        answered = {**packed, "messages": [*packed["messages"], {"role": "assistant", "content": said}]}
        nested = {"id": "7", "messages": answered["messages"], "metadata": {"answer": "2"}}
        found = handler([answered, nested], None)
        assert [r["aggregate_reward_score"] for r in found] == [worth, worth]
        assert [r["id"] for r in found] == [packed["id"], "7"]
        assert all(m["type"] in ("Reward", "Metric") for r in found for m in r["metrics_list"])
    assert any("reasoning_effort" in line for line in lost)


def test_trl_is_given_rows_and_a_reward_that_scores_as_the_grader_does(place: Path, tmp_path: Path, load: Any) -> None:
    out, _ = exported(place, "trl", tmp_path / "out")
    packed = rows_of(out / "train.jsonl")[1]
    assert packed["prompt"][0]["role"] == "system" and json.loads(packed["item"]) == row(1)
    source = (out / "train.py").read_text()
    assert "max_steps=6" in source and "num_generations=8" in source
    reward = load(out, "train").reward
    completions = [[{"role": "assistant", "content": said}] for said, _ in SAID]
    item = json.loads(packed["item"])
    item["messages"][-1]["content"] = "What is 1 + 1?"
    assert reward(completions=completions, item=[json.dumps(item)] * 2, prompts=[]) == [worth for _, worth in SAID]


def test_verifiers_and_eval_protocol_score_an_answer_as_the_grader_does(place: Path, tmp_path: Path, load: Any) -> None:
    out, _ = exported(place, "verifiers", tmp_path / "vf")
    packed = rows_of(out / "mine" / "train.jsonl")[1]
    item = {**packed["item"], "messages": packed["asked"]}
    item["messages"][-1]["content"] = "What is 1 + 1?"
    for folder in (out / "mine", exported(place, "eval-protocol", tmp_path / "ep")[0]):
        scoring = load(folder, "scoring")
        pairs = [(item, {"role": "assistant", "content": said}) for said, _ in SAID]
        assert scoring.scores(pairs) == [worth for _, worth in SAID]
    row_of_ep = rows_of(tmp_path / "ep" / "valid.jsonl")[0]
    assert row_of_ep["ground_truth"] == {name: row(90)[name] for name in ("answer", "level", "note")}
    for file in ("vf/mine/taskset.py", "vf/mine/__init__.py", "ep/test_reward.py"):
        compile((tmp_path / file).read_text(), file, "exec")


def test_gemini_rows_are_contents_and_references_and_its_scorer_reads_them_back(
    place: Path, tmp_path: Path, load: Any
) -> None:
    out, lost = exported(place, "gemini", tmp_path / "out")
    packed = rows_of(out / "train.jsonl")[1]
    assert packed["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert packed["contents"] == [{"role": "user", "parts": [{"text": "What is 1 + 1?"}]}]
    assert all(isinstance(value, str) for value in packed["references"].values())
    main_of = load(out, "main")
    read = {name: main_of.read(text) for name, text in packed["references"].items()}
    assert read == {name: row(1)[name] for name in ("answer", "level", "note")}
    spec = json.loads((out / "tuning_job.json").read_text())["reinforcementTuningSpec"]
    assert spec["hyperParameters"]["epochCount"] == 2 and spec["hyperParameters"]["samplesPerPrompt"] == 8
    assert any("Cloud Run" in line for line in lost)


def test_what_a_target_can_not_express_is_said(place: Path, tmp_path: Path) -> None:
    (place / "local.yaml").write_text("settings: {clamp: [0, 1]}\n")
    tree = json.loads(json.dumps(JOB))
    tree["method"]["reinforcement"]["grader"]["graders"]["asked"]["source"] = (
        "def grade(sample, item):\n    return len(sample['trajectory']['turns'])"
    )
    (place / "job.json").write_text(json.dumps(tree))
    for target, found in {
        "openai": ["trajectory", "settings (clamp)"],
        "azure": ["trajectory", "valid.jsonl has 5 rows; Azure asks for 10"],
        "nova": ["scores 0"],
        "eval-protocol": ["hyperparameters"],
        "verifiers": ["hyperparameters"],
        "trl": ["the newest are kept"],
        "gemini": ["Cloud Run"],
    }.items():
        _, lost = exported(place, target, tmp_path / target)
        for word in found:
            assert any(word in line for line in lost), (target, word, lost)


def test_the_command_line_brings_in_and_writes_out(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, out = tmp_path / "project", tmp_path / "out"
    files = ["--train", str(place / "train.jsonl"), "--valid", str(place / "valid.jsonl")]
    assert main(["import", *files, "--job", str(place / "job.json"), "--model", "tiny", "--out", str(project)]) == OK
    assert f"rft train {project / 'config.yaml'}" in capsys.readouterr().out
    assert main(["export", str(project), "--to", "trl", "--out", str(out), "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["lost"]
    assert main(["export", str(project), "--to", "trl", "--out", str(out)]) == BAD_INPUT
    assert set(TARGETS) == {"openai", "azure", "nova", "eval-protocol", "verifiers", "trl", "gemini"}
