"""A grader of the hosted format as the reward of a config: episodes are played, and it scores them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from envs import InputError, Message
from envs.tasks import load as load_tasks
from rl.config import load
from rl.policy import ScriptPolicy
from rl.scene import player

TEXT = "{{ sample.output_text }}"
GRADER = {
    "type": "multi",
    "name": "answer",
    "graders": {
        "exact": {"type": "string_check", "input": TEXT, "reference": "{{ item.answer }}", "operation": "eq"},
        "turns": {
            "type": "python",
            "source": "def grade(sample, item):\n    return len(sample['trajectory']['turns'])",
        },
    },
    "calculate_output": "exact / turns",
}
CONFIG = """
model: none
env: {use: arithmetic, data: {train: rows.jsonl}}
reward:
  answer: {use: grader, file: grader.json, unsafe_python: "written in this test"}
output_dir: out
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grader.json").write_text(json.dumps(GRADER))
    row = {"messages": [{"role": "user", "content": "What is 2 + 2?"}], "answer": "4"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def test_rows_and_grader_of_a_hosted_job_are_played_and_scored(place: Path) -> None:
    playing = player(load(place / "config.yaml"))
    (task,) = load_tasks(place / "rows.jsonl")

    async def both() -> list[float]:
        scores = []
        for said in ("4", "5"):
            policy = ScriptPolicy([Message(role="assistant", content=said)])
            played = await playing.play(task, policy, id=said)
            assert played.score.error is None, played.score
            assert list(played.score.graders) == ["answer"]
            scores.append(played.score.value)
        return scores

    assert asyncio.run(both()) == [1.0, 0.0]


def test_a_grader_that_can_not_be_is_refused_before_anything_is_played(place: Path) -> None:
    (place / "grader.json").write_text(json.dumps(GRADER | {"calculate_output": "exct / turns"}))
    with pytest.raises(
        InputError, match=r"grader\.json: calculate_output: unknown grader 'exct'; did you mean 'exact'"
    ):
        player(load(place / "config.yaml"))
