"""Ablations that are really run, and a process reward of weight 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(3000)]
pytest.importorskip("torch")

from rl import tiny  # noqa: E402
from rl.ablate.plan import read  # noqa: E402
from rl.ablate.results import result  # noqa: E402
from rl.records import Run  # noqa: E402
from runs import IN_PROCESS, ROOT, Process, config, places  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.random_model(tmp_path_factory.mktemp("ablate") / "base", seed=1)


def ablate(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "rl.cli", "ablate", str(file), *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def done(tree: dict[str, Any]) -> Process:
    """A run that was left to end."""
    run = Process(tree)
    assert run.ends() == 0, run.said
    return run


STEPS = {"vowels": {"use": "letters:vowels"}, "calls": {"use": "call_bonus", "weight": 0.2}}


def test_two_arms_and_two_seeds_are_run_once_and_go_on_where_they_stopped(base: Path, tmp_path: Path) -> None:
    short = {"trainer": {"max_steps": 2}, "evaluate": {"tasks": 3, "greedy": False}}
    tree = config(base, tmp_path / "unused", engine=IN_PROCESS, **short)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tree))
    plan: dict[str, Any] = {
        "base": "base.yaml",
        "arms": {"outcome": {}, "naive": {"set": {"reward": STEPS}}},
        "seeds": [0, 1],
        "holdout": {"vowels": {"use": "letters:vowels"}},
        "evaluate_every": 1,
        "output_dir": str(tmp_path / "out"),
    }
    file = tmp_path / "ablation.yaml"
    file.write_text(yaml.safe_dump(plan, sort_keys=False))

    first = ablate(file, "--seeds", "0")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "`naive`: " in first.stdout and "over 1 paired seeds; a pilot" in first.stdout
    cells = read(file).cells
    one, other = (Run.read(cell.path) for cell in cells[:2])
    fed = [sorted((r.position, r.played.episode.task.id) for r in run.episodes()) for run in (one, other)]
    assert fed[0] == fed[1], "the same tasks at the same places"
    assert [point.step for point in result(cells[0]).curve] == [0, 1, 2]
    adapter = (cells[0].path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns

    half = Process(cells[2].config.model_dump(mode="json"))
    half.until(lambda: bool(list(half.run.glob("checkpoint-1/manifest.json"))))
    half.process.kill()
    half.process.wait()
    half.gone(600)
    again = ablate(file)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 4 runs are done" in again.stdout
    assert "outcome, seed 1: resumed" in again.stdout and "naive, seed 1: begun" in again.stdout
    assert (cells[0].path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == adapter
    for cell in cells:
        run = Run.read(cell.path)
        run.verify()
        assert len(places(list(run.episodes()))) == 8
        assert [e["kind"] for e in run.ledger.read()][-1] == "trained"
        assert [seen["step"] for seen in run.watched.read()] == [1, 2]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "4 finished runs, seeds 0, 1" in page
    begun = [json.loads(line) for line in (tmp_path / "out" / "attempts.jsonl").read_text().splitlines()]
    assert [(e["arm"], e["seed"]) for e in begun if e["kind"] == "begun"] == [
        ("outcome", 0),
        ("naive", 0),
        ("outcome", 1),
        ("naive", 1),
    ]


def test_a_run_that_crashes_is_kept_out_and_the_others_go_on(base: Path, tmp_path: Path) -> None:
    short = {"trainer": {"max_steps": 1}, "evaluate": {"tasks": 2, "greedy": False}}
    tree = config(base, tmp_path / "unused", engine=IN_PROCESS, **short)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tree))
    broken = {"reward": {"vowels": {"use": "letters:raises"}}}
    plan = {
        "base": "base.yaml",
        "arms": {"broken": {"set": broken}, "outcome": {}},
        "reference": "outcome",
        "seeds": [0],
        "holdout": {"vowels": {"use": "letters:vowels"}},
        "evaluate_every": 1,
        "output_dir": str(tmp_path / "out"),
    }
    (tmp_path / "ablation.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    done = ablate(tmp_path / "ablation.yaml")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "left out: broken, seed 0: crashed (exit code 1: " in done.stdout
    assert "1 arms, 1 finished runs" in (tmp_path / "out" / "report.md").read_text()


@pytest.fixture(scope="module")
def half_skilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that makes calls at the desk, and most of them wrong: episodes of several turns."""
    recipe = tiny.Recipe(demonstrations=400, steps=80, orders=(1, 1))
    return tiny.make(tmp_path_factory.mktemp("ablate") / "desk", recipe).directory


def test_process_weight_0_is_the_outcome_only_run_bit_for_bit(half_skilled: Path, tmp_path: Path) -> None:
    outcome = {"brief": {"use": "letters:brief"}}
    steps = {"use": "letters:wordy"}
    tree = config(
        half_skilled,
        tmp_path / "outcome",
        env={"use": "desk", "options": {"orders": [1, 1]}},
        reward=outcome,
        deterministic=True,
        credit={"name": "return_to_go_loo"},
        rollout={"turns": 6, "max_tokens": 48},
        trainer={"max_steps": 5, "save_steps": 5, "num_generations": 4, "per_device_train_batch_size": 8},
    )
    changes: dict[str, dict[str, Any]] = {
        "outcome": {},
        "weight": {"reward": {**outcome, "steps": {**steps, "weight": 0.0}}},
        "process": {"reward": {**outcome, "steps": steps}, "credit": {**tree["credit"], "process": 0.0}},
        "full": {"reward": {**outcome, "steps": steps}},
    }
    runs = {name: done({**tree, **own, "output_dir": str(tmp_path / name)}) for name, own in changes.items()}
    assert runs["outcome"].adapter == runs["weight"].adapter == runs["process"].adapter
    assert runs["full"].adapter != runs["outcome"].adapter, "where it has weight, it does matter"
    turns = [len(r.played.episode.turns) for r in runs["weight"].written]
    assert max(turns) > 1, "there was something to pay by the turn"


def test_an_alarm_ends_a_run_with_the_adapter_of_the_last_good_checkpoint(base: Path, tmp_path: Path) -> None:
    tree = config(
        base,
        tmp_path / "run",
        engine=IN_PROCESS,
        reward={"farmed": {"use": "letters:farmed"}},
        holdout={"vowels": {"use": "letters:vowels"}},
        watch={"detectors": ["paid_failures"], "alarm": "roll_back"},
        evaluate={"tasks": 2, "greedy": False},
        trainer={
            "max_steps": 24,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_steps": 2,
        },
    )
    run = Process(tree)
    assert run.ends() == 1, run.said
    last = run.ledger[-1]
    assert (last["kind"], last["detector"], last["action"]) == ("alarmed", "paid_failures", "roll_back")
    assert last["step"] < 24
    assert "failed episodes collect more process reward" in " ".join(run.said.split())
    assert run.adapter == (run.run / f"checkpoint-{last['back_to']}" / "adapter_model.safetensors").read_bytes()
    assert run.adapter != (run.run / f"checkpoint-{last['step']}" / "adapter_model.safetensors").read_bytes()
