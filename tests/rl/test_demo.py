"""The demo from end to end: it learns, its records say how, and its episodes teach who will succeed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from rl.config import BASE, load
from rl.learned.making import Options, make
from rl.records import Run
from runs import ROOT
from scripts.learned import DEMO, sample

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(1500)]


@dataclass(frozen=True)
class Demo:
    """What `rft demo` left behind."""

    run: Path
    numbers: dict[str, Any]
    said: str

    @property
    def base(self) -> Path:
        """The policy before training."""
        return self.run / BASE


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    out = tmp_path_factory.mktemp("demo")
    options = ["--seed", "4", "--json", str(out / "numbers"), f"output_dir={out}"]
    command = [sys.executable, "-m", "rl.cli", "demo", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return Demo(run=out / "seed4", numbers=json.loads((out / "numbers").read_text()), said=ran.stdout)


def test_the_demo_learns_and_its_records_show_with_what(demo: Demo) -> None:
    found = demo.numbers
    for decoding in ("greedy", "sampled"):
        assert found["trained"][decoding]["low"] > found["base"][decoding]["high"] - 0.05, found
    assert found["trained"]["sampled"]["mean"] > found["base"]["sampled"]["mean"] + 0.2, found
    assert set(found["seconds"]) == {"warm_start", "train", "total"}

    run = Run.read(demo.run)
    run.verify()
    assert {"vllm", "trl", "peft", "torch", "transformers"} <= set(run.versions["packages"])
    assert run.config["engine"]["kind"] == "vllm"
    assert (demo.run / "adapter" / "adapter_model.safetensors").exists()
    episodes = list(run.episodes())
    assert {episode.step for episode in episodes} == set(range(run.config["trainer"]["max_steps"]))
    for episode in episodes:
        assert {turn.completion.version for turn in episode.played.episode.turns} == {episode.step}
    assert f"run: {demo.run}" in demo.said


@pytest.fixture(scope="module")
def episodes(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred tasks, eight samples each, of the demo's policy before training."""
    out = tmp_path_factory.mktemp("shown") / "episodes"
    config = load(DEMO, f"model={demo.base}", f"output_dir={out}", "seed=0")
    sample(config, 100)
    return config.output_dir


def test_choosing_by_an_outcome_model_beats_choosing_blindly(episodes: Path, tmp_path: Path) -> None:
    found = make([episodes], tmp_path / "model", Options(kind="outcome", steps=60), print)
    assert found.best_of is not None and (found.best_of.n, found.best_of.tasks) == (8, 30)
    assert found.best_of.difference.low > 0
    area = found.forecasts["episodes"].auroc
    assert area is not None and area.low > 0.5


def test_a_process_model_tells_on_the_way_who_will_succeed(episodes: Path, tmp_path: Path) -> None:
    found = make([episodes], tmp_path / "model", Options(kind="process", steps=60), print)
    for name in ("on the way", "at the end"):
        area, within = found.forecasts[name].auroc, found.forecasts[name].auroc_within
        assert area is not None and area.low > 0.5
        assert within is not None and within.low > 0.5, "not only which tasks are hard"
