"""An MCP server named in a config, from the file to the score."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from envs import Message, Stop, ToolCall
from rl import scene
from rl.cli import main
from rl.config import Config, load
from rl.policy import ScriptPolicy

PLAIN = {"command": sys.executable, "args": [str(Path(__file__).parents[1] / "mcp_plain.py")], "timeout": 200}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes a config of an MCP server, with changes to its `env`, and says where."""
    rows = [{"prompt": f"Count to {n}.", "answer": str(n)} for n in (1, 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(**env: Any) -> Path:
        tree = {
            "model": "none",
            "env": {"use": "mcp", "server": PLAIN, "data": {"test": str(tmp_path / "rows.jsonl")}, **env},
            "reward": {"count": {"use": "exact", "field": "answer"}},
            "output_dir": str(tmp_path / "run"),
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


def config(path: Path) -> Config:
    return load(path)


def calling(*names: str) -> Message:
    calls = tuple(ToolCall(id=f"c{k}", name=name, arguments="{}") for k, name in enumerate(names))
    return Message(role="assistant", tool_calls=calls)


def test_rows_are_played_with_the_servers_tools_and_scored(written: Any) -> None:
    plain = config(written())
    tasks = scene.tasks(plain, "test")
    script = [calling("count"), calling("count"), Message(role="assistant", content="2")]
    player = scene.player(plain)
    played = asyncio.run(player.play_all([(task, task.id) for task in tasks], ScriptPolicy(script)))
    assert [p.score.value for p in played] == [0.0, 1.0]
    assert [t.results[0].content for t in played[0].episode.turns[:2]] == ["1", "2"]
    assert played[0].episode.env == "mcp"


def test_the_server_is_asked_for_its_tools_once(written: Any) -> None:
    assert scene.environment(config(written())) is scene.environment(config(written()))


def test_an_episode_whose_server_dies_is_played_again_then_left_out(written: Any) -> None:
    plain = config(written())
    player = scene.player(plain)
    task, _ = scene.tasks(plain, "test")
    played = asyncio.run(player.play(task, ScriptPolicy(lambda episode: calling("dies")), id="e"))
    assert played.episode.stop is Stop.ENV_LOST and player.retried == plain.rollout.retries
    assert played.score.error is not None and "out of cheese" in played.score.error


def test_play_shows_it(written: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["play", str(written()), "--policy", "human"]) == 3, "nobody is here to type"
    assert "echo: Say it again." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"server": None}, "env.server belongs to env.use 'mcp', and that one needs it"),
        ({"use": "desk"}, "env.server belongs to env.use 'mcp'"),
        ({"server": {**PLAIN, "arg": []}}, r"unknown key 'env.server.arg'; did you mean 'args'\?"),
        ({"server": {**PLAIN, "timeout": 0}}, r"env.server.timeout: .*greater than 0"),
        ({"server": {**PLAIN, "url": "http://x"}}, "a command to start or a url to connect to: name one of them"),
        ({"server": {}}, "name one of them"),
        ({"server": {"command": "/no/such/program"}}, "MCP server /no/such/program: "),
        ({"data": {}}, "environment 'mcp' brings no tasks of its own: name a file under env.data"),
    ],
)
def test_a_server_that_can_not_be_meant_is_refused(
    written: Any, env: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", str(written(**env)), "--policy", "random"]) == 2
    assert re.search(said, capsys.readouterr().err)
