"""The demo from end to end: it learns, and its records say how."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rl.records import Run

pytestmark = [pytest.mark.slow, pytest.mark.stack]
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1500)
def test_the_demo_learns_and_its_records_show_with_what(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "rl.cli", "demo", "--seed", "4", "--json", str(numbers), f"output_dir={tmp_path}"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(numbers.read_text())
    for decoding in ("greedy", "sampled"):
        assert found["trained"][decoding]["low"] > found["base"][decoding]["high"] - 0.05, found
    assert found["trained"]["sampled"]["mean"] > found["base"]["sampled"]["mean"] + 0.2, found
    assert set(found["seconds"]) == {"warm_start", "train", "total"}

    run = Run.read(tmp_path / "seed4")
    run.verify()
    assert {"vllm", "trl", "peft", "torch", "transformers"} <= set(run.versions["packages"])
    assert run.config["engine"]["kind"] == "vllm"
    assert (tmp_path / "seed4" / "adapter" / "adapter_model.safetensors").exists()
    episodes = list(run.episodes())
    assert {episode.step for episode in episodes} == set(range(run.config["trainer"]["max_steps"]))
    for episode in episodes:
        assert {turn.completion.version for turn in episode.played.episode.turns} == {episode.step}
    assert f"run: {tmp_path / 'seed4'}" in ran.stdout
