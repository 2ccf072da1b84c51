"""One episode on the screen."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from envs import Environment, InputError, Message, Stop, Task, ToolCall, tool
from rl import scene, stage
from rl.cli import main
from rl.config import Config, EnvConfig, load
from rl.guarding import ApprovalConfig, GuardConfig, RuleConfig
from rl.rollout import Played
from served import Server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> Config:
    return load(ROOT / "configs" / "demo.yaml", "model=none")


def play(config: Config, policy: str, index: int = 0, **options: Any) -> tuple[Played, str]:
    console = Console(file=io.StringIO(), width=300, color_system=None)
    played = stage.play(config, console, policy=policy, index=index, **options)
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
    assert shown.count("assistant, turn ") == len(played.episode.turns), "each message is shown once"


def test_what_each_turn_called_and_earned_is_told_at_the_end(config: Config) -> None:
    stepwise = config.model_copy(update={"reward": {"success": {"use": "state_equal"}, "way": {"use": "progress"}}})
    played, shown = play(stepwise, "expert", 3)
    lines = [line.split() for line in shown.splitlines() if line.startswith("  turn ")]
    assert len(lines) == len(played.episode.turns)
    assert played.score.turns is not None
    for line, turn, reward in zip(lines, played.episode.turns, played.score.turns, strict=True):
        assert line[2] == ("not" if reward is None else f"{reward:+.3g}")
        assert line[-1] == (turn.results[-1].name if turn.results else "answer")


def test_a_random_agent_plays_the_same_each_time(config: Config) -> None:
    first, shown = play(config, "random")
    again, _ = play(config, "random")
    assert [t.completion.message for t in first.episode.turns] == [t.completion.message for t in again.episode.turns]
    assert first.episode.stop in (Stop.DONE, Stop.MAX_TURNS) and "reward " in shown
    other, _ = play(config.model_copy(update={"seed": 1}), "random")
    assert [t.completion.message for t in other.episode.turns] != [t.completion.message for t in first.episode.turns]


EVIL = "\x1b[2J\x1b]0;owned\x07\x9b1A\rgone\x08\u202eback [bold]not bold[/bold] \ud800"


class Evil(Environment):
    """Says what would take a terminal over, in every place where something is shown."""

    @classmethod
    def tasks(cls, split: str) -> list[Task]:
        return [Task(id="t", prompt=(Message(role="system", content=EVIL), Message(role="user", content="Well?")))]

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        calls = tuple(ToolCall(id=EVIL, name=name, arguments=EVIL) for name in ("speak", EVIL))
        return [Message(role="assistant", content=EVIL, tool_calls=calls), Message(role="assistant", content=EVIL)]

    @tool
    def speak(self) -> str:
        """\x1b[31mred"""
        return EVIL


def test_nothing_that_is_shown_reaches_the_terminal_as_a_command(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envs.ENVS", {"evil": Evil})
    evil = config.model_copy(
        update={
            "env": EnvConfig(use="evil"),
            "reward": {"one": {"use": "contains", "field": "x"}},
            "guard": GuardConfig(),
        }
    )
    _, shown = play(evil, "expert")
    assert "[bold]not bold[/bold]" in shown and "\\x1b[2J\\x1b]0;owned\\x07\\x9b1A\\x0dgone\\x08\\u202eback" in shown
    typed(monkeypatch, "bye")
    _, typing = play(evil, "human")
    for text in (shown, typing):
        assert not set(text) & {chr(c) for c in (*range(10), *range(11, 32), *range(0x7F, 0xA0), 0x202E, 0xD800)}


def test_a_long_text_is_shown_in_part_and_says_so(config: Config) -> None:
    console = Console(file=io.StringIO(), width=300, color_system=None)
    stage.show_text(console, "tool", "tool", "x" * (stage.SHOWN_CHARS + 7))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert shown.count("x") == stage.SHOWN_CHARS and "[7 more characters]" in shown


def test_a_call_that_needs_a_yes_is_asked_about_and_the_answer_shown(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = ApprovalConfig(rules=(RuleConfig(tool="lookup_order"),), approver="ask")
    guarded = config.model_copy(update={"guard": GuardConfig(approval=asks, prices={"lookup_order": 0.25})})
    typed(monkeypatch, 'lookup_order {"order_id": "1"}', "yes", 'lookup_order {"order_id": "1"}', "not twice", "bye")
    played, shown = play(guarded, "human")
    first, second = (turn.results[0] for turn in played.episode.turns[:2])
    assert "no such order" in first.content and second.fault == "denied"
    assert "approved by ask" in shown and "not approved by ask" in shown and "not given: not twice" in shown
    assert "$0.25" in shown and played.episode.cost.money == 0.25


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


def test_a_chat_endpoint_plays_under_the_name_it_has_there(config: Config) -> None:
    server = Server()
    message = {"role": "assistant", "content": "I can't help."}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    server.answer = lambda request: (200, body)
    try:
        played, _ = play(config, "chat", url=server.url, model="qwen-7b", greedy=True)
    finally:
        server.close()
    assert played.episode.answer == "I can't help."
    assert (server.heard[0]["model"], server.heard[0]["temperature"]) == ("qwen-7b", 0.0)
    assert [t["function"]["name"] for t in server.heard[0]["tools"]] == list(scene.environment(config).tools())


@pytest.mark.parametrize("option", [{"url": "http://x"}, {"model": "m"}])
def test_an_option_of_another_policy_is_refused(config: Config, option: dict[str, str]) -> None:
    with pytest.raises(InputError, match="would have no effect with --policy expert"):
        play(config, "expert", **option)


@pytest.mark.parametrize("index", [-1, 200])
def test_a_task_that_is_not_there_is_named(config: Config, index: int) -> None:
    with pytest.raises(InputError, match=rf"--task {index}: there are 200 held-out tasks"):
        play(config, "expert", index)


def test_a_chat_needs_its_url(config: Config) -> None:
    with pytest.raises(InputError, match="--policy chat needs --url"):
        play(config, "chat")
