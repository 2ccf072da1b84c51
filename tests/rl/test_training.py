"""What a training run evaluates, shows and starts from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1200)]
pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from envs.errors import InputError  # noqa: E402
from rl import tiny  # noqa: E402
from rl.config import parse  # noqa: E402
from rl.records import Run  # noqa: E402
from rl.trainers.settings import grpo_config  # noqa: E402
from runs import IN_PROCESS, Process, config  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.random_model(tmp_path_factory.mktemp("training") / "base", seed=1)


def test_it_evaluates_keeps_the_best_and_reports_to_wandb_and_tensorboard(base: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = {
        "report_to": ["wandb", "tensorboard"],
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "reward",
    }
    run = Process(config(base, tmp_path / "run", engine=IN_PROCESS, trainer=trainer))
    assert run.ends() == 0, run.said
    lines = list(Run.read(run.run).metrics.read())
    scores = {line["step"]: line["eval_reward"] for line in lines if "eval_reward" in line}
    assert sorted(scores) == [1, 2, 3]
    recorded = Run.read(run.run).evaluations()
    assert [(e["label"], e["step"]) for e in recorded] == [
        (f"eval/{h}", s) for s in (1, 2, 3) for h in ("sampled", "greedy")
    ]
    assert {e["step"]: e["score"] for e in recorded if e["label"] == "eval/sampled"} == scores
    best = max(scores, key=lambda step: scores[step])
    assert {path.name for path in run.run.glob("checkpoint-*")} == {f"checkpoint-{best}", "checkpoint-3"}
    assert run.adapter == (run.run / f"checkpoint-{best}" / "adapter_model.safetensors").read_bytes()

    (events,) = (run.run / "runs").rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events))
    board.Reload()
    for name in ("reward", "success", "turns", "rollout/tokens_per_second", "time/rollout"):
        shown = [event.value for event in board.Scalars(f"train/{name}")]
        assert shown == pytest.approx([line[name] for line in run.metrics]) and all(map(math.isfinite, shown))
    assert [event.value for event in board.Scalars("eval/reward")] == pytest.approx(list(scores.values()))

    assert list((run.run / "wandb").glob("offline-run-*/*.wandb"))
    tables = [json.loads(path.read_text()) for path in (run.run / "wandb").rglob("episodes_*.table.json")]
    assert sorted(table["data"][0][0] for table in tables) == [1, 2, 3]
    assert tables[0]["columns"] == ["step", "task", "transcript", "reward", "stop"]
    assert "write the letters of" in tables[0]["data"][0][2]


def test_training_starts_from_an_adapter_and_the_engine_has_it_from_the_first_episode(
    base: Path, tmp_path: Path
) -> None:
    first = Process(config(base, tmp_path / "first", engine=IN_PROCESS, trainer={"max_steps": 1}))
    assert first.ends() == 0, first.said
    start = tmp_path / "first" / "adapter"
    tree = config(
        base,
        tmp_path / "run",
        engine=IN_PROCESS,
        adapter=str(start),
        trainer={"max_steps": 2, "beta": 0.05, "learning_rate": 0.0},
    )
    run = Process(tree)
    assert run.ends() == 0, run.said
    before, after = (load_file(path / "adapter_model.safetensors") for path in (start, run.run / "adapter"))
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert max(tensor.abs().max() for name, tensor in before.items() if "lora_B" in name) > 1e-3
    versions = {r.step: r.played.episode.turns[0].completion.version for r in run.written}
    assert versions == {0: 1, 1: 2}
    # The engine's logprobs are those of the start, and so is the reference that `beta` holds on to.
    assert all(line["sampling/logp_gap/max"] < 1e-3 and abs(line["kl"]) < 1e-6 for line in run.metrics)
    other = Process({**tree, "output_dir": str(tmp_path / "other"), "lora": {"r": 8}})
    assert other.ends() == 2
    assert "lora.r: 8, but" in other.said


def test_a_best_that_no_evaluation_measures_is_refused(tmp_path: Path) -> None:
    trainer = {"eval_strategy": "steps", "save_steps": 1, "eval_steps": 1, "load_best_model_at_end": True}
    for metric in (None, "eval_sucess"):
        tree = config(tmp_path, tmp_path, trainer=trainer | {"metric_for_best_model": metric})
        with pytest.raises(InputError, match="metric_for_best_model: an evaluation makes no"):
            grpo_config(parse(tree), tmp_path)
