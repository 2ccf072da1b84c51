"""The section `guard` of a config, from the file to the episode's record."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from envs import InputError, Message, Stop, Task, ToolCall
from envs.desk import Desk
from envs.types import Completion, Cost, Episode
from rl import scene
from rl.config import Config, parse
from rl.rollout import Played, Player
from rl.transcript import decode, encode

ASKS = {"rules": [{"tool": "refund", "when": "amount > 1000000"}], "approver": "ask"}


def config(guard: dict[str, Any], **env: Any) -> Config:
    tree = {"model": "none", "reward": {"calls": {"use": "valid_calls"}}, "output_dir": "x", "guard": guard}
    return parse({**tree, "env": {"use": "desk", "options": {"count": 5}, **env}})


def player(guard: dict[str, Any]) -> Player:
    return scene.player(config(guard))


def policy(*turns: list[tuple[str, dict[str, Any]]], tokens: int = 10, money: float = 0.0) -> Any:
    """Makes these calls, turn by turn, then answers; each turn costs so many sampled tokens and dollars."""

    async def say(episode: Episode, tools: Any) -> Completion:
        number = len(episode.turns)
        calls = turns[number] if number < len(turns) else []
        made = (ToolCall(id=f"{number}.{k}", name=n, arguments=json.dumps(a)) for k, (n, a) in enumerate(calls))
        message = Message(role="assistant", content="" if calls else "that is all", tool_calls=tuple(made))
        return Completion(message=message, cost=Cost(sampled_tokens=tokens, money=money))

    return say


def play(guard: dict[str, Any], *turns: list[tuple[str, dict[str, Any]]], item: Any = None, **cost: Any) -> Played:
    task = scene.tasks(config(guard), "test")[0]
    if item is not None:
        task = Task(id=task.id, prompt=task.prompt, item={**task.item, "guard": item}, files=task.files)
    return asyncio.run(player(guard).play(task, policy(*turns, **cost), id="e"))


def faults(played: Played) -> list[str | None]:
    """What became of the calls; that there is no order 1 is not the guard's business."""
    assert played.episode.stop is Stop.DONE
    return [
        result.fault if result.fault != "raised" else None for turn in played.episode.turns for result in turn.results
    ]


LOOK = ("lookup_order", {"order_id": "1"})


def test_scopes_and_budgets_of_calls_come_from_the_config() -> None:
    assert faults(play({}, [LOOK, LOOK])) == [None, None]
    assert faults(play({"deny": ["lookup_order"]}, [LOOK])) == ["denied"]
    assert faults(play({"allow": ["refund"]}, [LOOK])) == ["denied"]
    assert faults(play({"calls": 1}, [LOOK], [LOOK])) == [None, "denied"]
    assert faults(play({"calls_per_tool": {"lookup_order": 1}}, [LOOK, LOOK])) == [None, "denied"]


def test_no_call_is_carried_out_once_the_tokens_are_used_up() -> None:
    played = play({"tokens": 20}, [LOOK], [LOOK], tokens=10)
    assert faults(played) == [None, "denied"]
    assert "budget of 20 tokens" in played.episode.turns[1].results[0].content


def test_money_counts_turns_and_calls_and_is_part_of_the_cost() -> None:
    guard = {"money": 0.30, "prices": {"lookup_order": 0.1}}
    played = play(guard, [LOOK, LOOK, LOOK, LOOK])
    assert faults(played) == [None, None, None, "denied"], "three times 0.1 is 0.3"
    assert played.episode.cost.money == pytest.approx(0.3)
    assert [result.money for result in played.episode.turns[0].results] == [0.1, 0.1, 0.1, 0.0]
    played = play(guard, [LOOK], [LOOK], money=0.15)
    assert faults(played) == [None, "denied"]
    said = "lookup_order would pass the budget of $0.3, of which $0.4 are spent."
    assert said in played.episode.turns[1].results[0].content
    assert played.episode.cost.money == pytest.approx(3 * 0.15 + 0.1)


def test_long_results_are_cut_where_the_config_says() -> None:
    content = play({"result_chars": 5}, [LOOK]).episode.turns[0].results[0].content
    assert "\n[cut: the result has " in content and content.index("\n") == 5
    made = player({"result_chars": 200_000}).env(scene.tasks(config({}), "test")[0])
    assert made.guard.result_chars == 200_000, "more than the default can be asked for"


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ({"deny": ["lookup_order"]}, ["denied", "denied"]),
        ({"allow": ["refund"]}, ["denied", "denied"]),
        ({"calls": 1}, [None, "denied"]),
        ({"calls": 5}, [None, None]),
        ({"calls_per_tool": {"lookup_order": 0}}, ["denied", "denied"]),
        ({"tokens": 5}, ["denied", "denied"]),
        ({}, [None, None]),
        (None, [None, None]),
    ],
)
def test_a_task_may_narrow_what_the_config_allows(item: Any, wanted: list[str | None]) -> None:
    assert faults(play({"calls": 2}, [LOOK, LOOK], item=item)) == wanted


def test_a_task_can_not_widen_what_the_config_allows() -> None:
    wide = {"allow": ["lookup_order"], "calls": 100, "tokens": 10**9}
    assert faults(play({"deny": ["lookup_order"]}, [LOOK], item=wide)) == ["denied"]
    assert faults(play({"calls": 0}, [LOOK], item=wide)) == ["denied"]
    assert faults(play({"allow": ["refund"]}, [LOOK], item=wide)) == ["denied"]
    assert faults(play({"tokens": 1}, [LOOK], item=wide)) == ["denied"]


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ({"alow": []}, r"unknown key 'guard.alow'; did you mean 'allow'\?"),
        ({"approval": {"rules": [{"tol": "a"}], "approver": "deny"}}, r"unknown key .*tol'; did you mean 'tool'\?"),
        ({"approval": {"rule": [], "approver": "deny"}}, r"unknown key 'guard.approval.rule'; did you mean 'rules'\?"),
        ({"approval": {"rules": [], "approver": "deny"}}, r"guard.approval.rules: .*at least 1"),
        ({"calls": -1}, r"guard.calls is a number of calls, 0 or more, not -1"),
        ({"calls": "many"}, r"guard.calls: .*valid integer"),
        ({"tokens": -1}, r"guard.tokens is a number of tokens, 0 or more"),
        ({"money": -1, "prices": {"refund": 1}}, r"guard.money is an amount in US dollars"),
        ({"prices": {"refund": float("inf")}}, r"guard.prices.refund is an amount in US dollars"),
        ({"money": 1}, r"guard.money would have no effect: nothing has a price; give guard.prices"),
        ({"result_chars": -5}, r"guard.result_chars is a number of characters"),
        ({"allow": ["refund"], "deny": ["refund"]}, r"refund is both allowed and denied"),
        ({"approval": {**ASKS, "approver": "aks"}}, r"unknown approver 'aks'; did you mean 'ask'"),
        ({"approval": {**ASKS, "timeout": 3}}, r"timeout would have no effect with approver 'ask'"),
        ({"approval": {**ASKS, "rules": [{"tool": "refund", "when": "amount >"}]}}, r"'amount >' is no condition"),
    ],
)
def test_a_guard_that_makes_no_sense_is_refused_with_the_config(guard: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        config(guard)


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ({"deny": ["refnd"]}, "unknown tool 'refnd'; did you mean 'refund'"),
        ({"prices": {"refnd": 1.0}}, "unknown tool 'refnd'"),
        ({"approval": {"rules": [{"tool": "refnd"}], "approver": "deny"}}, "unknown tool 'refnd'"),
        ({"approval": {"rules": [{"tool": "refund", "when": "amout > 1"}], "approver": "deny"}}, "argument of refund"),
        ({"approval": ASKS}, "asks at the terminal, which only rft play can do; name deny, allow, a function"),
    ],
)
def test_a_guard_that_does_not_fit_the_environment_or_the_run_is_refused(guard: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        player(guard)


def test_somebody_can_be_asked_where_somebody_is() -> None:
    assert scene.player(config({"approval": ASKS}), attended=True)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"deny": ["refnd"]}, "task .*: item.guard: unknown tool 'refnd'"),
        ({"denny": ["refund"]}, "task .*: item.guard: denny: Extra inputs are not permitted"),
        ({"calls": -1}, "task .*: item.guard.calls is a number of calls"),
        ("none", "task .*: item.guard: "),
    ],
)
def test_a_tasks_guard_that_makes_no_sense_is_refused_when_it_is_read(row: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    (task,) = Desk.tasks("test", count=1)
    path.write_text(json.dumps({"prompt": "Well?", **task.item, "guard": row}) + "\n")
    with pytest.raises(InputError, match=said):
        scene.tasks(config({}, options={}, data={"test": str(path)}), "test")


def test_what_was_decided_is_in_the_record() -> None:
    asks = {"rules": [{"tool": "lookup_order", "when": "order_id != '2'"}], "approver": "deny"}
    played = play({"approval": asks}, [LOOK])
    assert faults(played) == ["denied"]
    again = decode(json.loads(json.dumps(encode(played))))
    (result,) = again.episode.turns[0].results
    (approval,) = result.approvals
    assert (approval.by, approval.granted, approval.reason) == ("deny", False, "nobody is here to approve it")
    assert result.call_id == again.episode.turns[0].completion.message.tool_calls[0].id
    assert approval.at.endswith("+00:00")
