"""What the README says is run here, so that it stays true."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from envs import Message, ToolCall
from rl.config import load
from rl.rollout import Limits, Player
from rl.scene import environment, player

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

TESTED_ELSEWHERE = {
    "scripts/demo": "tests/rl/test_demo.py runs what it runs; tests/test_setup.py its installation",
    "scripts/test": "this is it",
    "rft train configs/desk_qwen3.yaml": "needs a GPU; tests/rl/test_config.py loads it",
}
NEEDS_A_DEMO_RUN = ("rft eval runs/demo/seed0",)
TRAINS = ("rft train configs/demo.yaml",)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_hello_world_is_played_and_scored_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hello.py").write_text(blocks("python")[0])
    (tmp_path / "hello.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    config = load("hello.yaml")
    tasks = environment(config).tasks("train")
    call = ToolCall(id="1", name="multiply", arguments='{"a": 10, "b": 10}')
    script = [Message(role="assistant", tool_calls=(call,)), Message(role="assistant", content="It is 100.")]
    from rl.policy import ScriptPolicy

    playing: Player = player(config)
    right = asyncio.run(playing.play(tasks[0], ScriptPolicy(script), id="a"))
    wrong = asyncio.run(playing.play(tasks[1], ScriptPolicy(script), id="b"))
    assert playing.limits == Limits(turns=16, tokens=None, seconds=600.0)
    assert (right.score.value, wrong.score.value) == (1.0, 0.0)
    assert [result.content for result in right.episode.turns[0].results] == ["100"]


def test_every_file_it_points_to_is_there() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
    for config in re.findall(r"configs/\w+\.yaml", README):
        assert (ROOT / config).exists(), config


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith(NEEDS_A_DEMO_RUN + TRAINS)])
def test_every_command_runs(command: str) -> None:
    if command in TESTED_ELSEWHERE:
        return
    assert command.startswith("rft "), f"{command!r} is not tested anywhere"
    ran = subprocess.run(
        [sys.executable, "-m", "rl.cli", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
@pytest.mark.stack
def test_the_training_commands_run_in_the_order_they_stand_in(random_base: Path, tmp_path: Path) -> None:
    """On a model that learned nothing, so that the warm start is not waited for."""
    for command in [c for c in commands() if c.startswith(TRAINS)]:
        words = [word.replace("runs/", f"{tmp_path}/") for word in command.split()[1:]]
        ran = subprocess.run(
            [sys.executable, "-m", "rl.cli", *words, f"model={random_base}"], cwd=ROOT, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
    ran = subprocess.run(
        [sys.executable, "-m", "rl.cli", "eval", str(tmp_path / "short"), "evaluate.tasks=8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "success" in ran.stdout
