"""One episode on the screen."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from envs.errors import InputError
from envs.types import Stop
from rl import stage
from rl.cli import main
from rl.config import Config, load
from rl.rollout import Played

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> Config:
    return load(ROOT / "configs" / "demo.yaml", "model=none")


def play(config: Config, policy: str, index: int = 0, url: str | None = None) -> tuple[Played, str]:
    console = Console(file=io.StringIO(), width=300, color_system=None)
    played = stage.play(config, console, policy=policy, index=index, url=url, greedy=False)
    assert isinstance(console.file, io.StringIO)
    return played, console.file.getvalue()


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_the_expert_is_shown_from_the_question_to_the_reward(config: Config) -> None:
    played, shown = play(config, "expert", 3)
    assert played.episode.stop is Stop.DONE and played.score.value == 1.0
    assert "ended: done" in shown and "reward 1" in shown
    for message in played.episode.messages:
        assert all(line in shown for line in message.content.splitlines())
        assert all(call.name in shown for call in message.tool_calls)
    assert shown.count("assistant ─") == len(played.episode.turns), "each message is shown once"


def test_a_person_plays_by_typing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, ' lookup_order {"order_id": "1"} ', "lookup_order", "I give up.")
    played, shown = play(config, "human")
    first, second, last = played.episode.turns
    assert json.loads(first.completion.message.tool_calls[0].arguments) == {"order_id": "1"}
    assert "no such order" in first.results[0].content
    assert second.results[0].fault == "bad_arguments"
    assert last.completion.message.content == played.episode.answer == "I give up."
    assert played.score.value == 0 and "reward 0" in shown
    assert "lookup_order: Look up an order" in shown, "the tools are listed"


def test_a_person_who_leaves_ends_the_episode(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch)
    played, shown = play(config, "human")
    assert played.episode.stop is Stop.FAULT
    assert "you left" in shown and "not scored" in shown


def test_a_server_that_is_down_is_not_an_answer(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    fast = config.model_copy(update={"rollout": config.rollout.model_copy(update={"retries": 0})})
    played, shown = play(fast, "chat", url="http://127.0.0.1:9/v1")
    assert played.episode.stop is Stop.FAULT and "127.0.0.1:9" in shown
    arguments = ["play", str(ROOT / "configs" / "demo.yaml"), "--policy", "chat", "--url", "http://127.0.0.1:9/v1"]
    assert main([*arguments, "rollout.retries=0"]) == 3


@pytest.mark.parametrize("index", [-1, 200])
def test_a_task_that_is_not_there_is_named(config: Config, index: int) -> None:
    with pytest.raises(InputError, match=rf"--task {index}: there are 200 held-out tasks"):
        play(config, "expert", index)


def test_a_chat_needs_its_url(config: Config) -> None:
    with pytest.raises(InputError, match="--policy chat needs --url"):
        play(config, "chat")
