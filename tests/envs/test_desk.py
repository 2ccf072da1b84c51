import asyncio
import json
import random
from typing import Any

import pytest

from envs.desk import ANSWER, COUNTS, Desk, Noise, demonstration, due_calls, split_of
from envs.errors import InputError
from envs.script import calling
from envs.types import Message, Task, ToolCall, ToolResult


def play(task: Task, messages: list[Message]) -> tuple[dict[str, Any], list[ToolResult]]:
    """The state after the messages, and everything the tools answered."""

    async def run() -> tuple[dict[str, Any], list[ToolResult]]:
        desk = Desk(task)
        results = [result for message in messages for result in await desk.step(message)]
        return dict(desk.state()), results

    return asyncio.run(run())


def solved(state: dict[str, Any]) -> bool:
    return state["database"] == state["goal"] and not state["violations"]


def one(**want: Any) -> Task:
    """The first one-order task whose request has these entries."""
    for task in Desk.tasks("train", orders=(1, 1)):
        if want.items() <= task.item["requests"][0].items():
            return task
    raise AssertionError(f"no task with {want}")


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("difficulty", ["easy", "standard", "hard"])
def test_the_expert_solves_every_task(split: str, difficulty: Any) -> None:
    for task in Desk.tasks(split, orders=(1, 4), difficulty=difficulty, count=60):
        state, results = play(task, Desk.expert(task))
        assert solved(state), task
        assert all(result.fault is None for result in results)
        assert all(step["progress"] and not step["repeat"] for step in state["steps"])
        assert Desk.expert(task)[-1] == Message(role="assistant", content=ANSWER)


def test_doing_nothing_solves_nothing() -> None:
    assert not any(solved(play(task, [])[0]) for task in Desk.tasks("train", count=200))


def test_no_order_is_in_two_splits() -> None:
    orders = {
        split: {order for task in Desk.tasks(split, orders=(1, 3), count=400) for order in task.item["database"]}
        for split in COUNTS
    }
    for split, numbers in orders.items():
        assert {split_of(number) for number in numbers} == {split}
        assert len(numbers) > 100
        # every digit occurs in every place, or copying could not be learnt in one split and used in another
        assert {(place, digit) for number in numbers for place, digit in enumerate(number)} == {
            (place, digit) for place in range(4) for digit in "0123456789" if (place, digit) != (0, "0")
        }


def test_task_ids_are_unique() -> None:
    ids = [task.id for task in Desk.tasks("train")]
    assert len(set(ids)) == len(ids) == 1000


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="no split 'dev'"):
        Desk.tasks("dev")
    for orders in ((0, 1), (3, 2), (1,), (1, 99)):
        with pytest.raises(InputError, match="orders must be"):
            Desk.tasks("train", orders=orders)
    with pytest.raises(InputError, match="difficulty"):
        Desk.tasks("train", difficulty="brutal")  # type: ignore[arg-type]


def test_the_prompt_names_the_orders_and_nothing_that_is_to_be_found_out() -> None:
    for task in Desk.tasks("train", orders=(3, 3), count=50):
        text = " ".join(message.content for message in task.prompt)
        for request in task.item["requests"]:
            assert request["order"] in text
            assert (request["zip"] in text) == (request["action"] == "address")
        assert "policy" not in task.prompt[1].content


def test_a_request_the_policy_forbids_is_due_for_escalation() -> None:
    for difficulty, share in (("easy", 0.0), ("standard", 0.5), ("hard", 0.5)):
        tasks = Desk.tasks("train", orders=(1, 1), difficulty=difficulty)  # type: ignore[arg-type]
        escalated = sum(task.item["requests"][0]["due"] == "escalate" for task in tasks) / len(tasks)
        assert escalated == pytest.approx(share, abs=0.06)


def test_hard_policies_are_to_be_compared_with_the_total() -> None:
    for task in Desk.tasks("train", orders=(1, 1), difficulty="hard", count=200):
        request = task.item["requests"][0]
        if request["action"] == "refund":
            _, results = play(task, Desk.expert(task))
            allowed = int(json.loads(results[1].content)["allowed"].removeprefix("up to "))
            total = json.loads(results[0].content)["total"]
            assert (request["due"] == "refund") == (total <= allowed)


@pytest.mark.parametrize(
    ("want", "change", "reason"),
    [
        ({"action": "cancel", "due": "escalate"}, "cancel", "policy forbids it"),
        ({"action": "cancel", "due": "cancel"}, "escalate", "not what was due"),
        ({"action": "refund", "due": "refund"}, "cancel", "not what was due"),
        ({"action": "refund", "due": "refund"}, "refund", "wrong value"),
    ],
)
def test_a_change_that_is_not_due_is_a_violation(want: dict[str, Any], change: str, reason: str) -> None:
    task = one(**want)
    request = task.item["requests"][0]
    look_up, check, _ = due_calls(task, request)
    arguments = {"order_id": request["order"]} | ({"amount": 1} if change == "refund" else {})
    messages = [calling("a", look_up), calling("b", check), calling("c", (change, arguments))]
    state, _ = play(task, messages)
    assert [(v["call_id"], v["reason"]) for v in state["violations"]] == [("c", reason)]
    assert state["steps"][-1]["violation"]
    assert not solved(state)


def test_the_right_change_without_a_check_is_a_violation() -> None:
    task = one(due="cancel")
    look_up, _, due = due_calls(task, task.item["requests"][0])
    state, _ = play(task, [calling("a", look_up), calling("b", due)])
    assert state["database"] == state["goal"]
    assert [violation["reason"] for violation in state["violations"]] == ["policy not checked"]


def test_checking_another_action_is_no_check() -> None:
    task = one(due="cancel")
    look_up, (name, arguments), due = due_calls(task, task.item["requests"][0])
    messages = [
        calling("a", look_up),
        calling("b", (name, arguments | {"action": "refund"})),
        calling("c", due),
    ]
    assert [violation["reason"] for violation in play(task, messages)[0]["violations"]] == ["policy not checked"]


def test_a_second_refund_pays_twice() -> None:
    task = one(due="refund")
    messages = Desk.expert(task)
    state, _ = play(task, [*messages[:3], messages[2]])
    (order,) = state["database"].values()
    assert order["refunded"] == 2 * order["total"]
    assert [violation["reason"] for violation in state["violations"]] == ["settled before"]
    assert [step["repeat"] for step in state["steps"]] == [False, False, False, True]


def test_repeats_are_marked_and_make_no_progress() -> None:
    task = one(due="cancel")
    look_up, check, due = (calling(str(n), call) for n, call in enumerate(due_calls(task, task.item["requests"][0])))
    state, _ = play(task, [look_up, look_up, check, check, due])
    assert [(step["progress"], step["repeat"]) for step in state["steps"]] == [
        (True, False),
        (False, True),
        (True, False),
        (False, True),
        (True, False),
    ]
    assert solved(state)


def test_numbers_that_do_not_exist_are_told_to_the_model() -> None:
    task = one(due="cancel")
    wrong = [("lookup_order", {"order_id": "0000"}), ("check_policy", {"policy": "00", "action": "refund"})]
    state, results = play(task, [calling(str(n), call) for n, call in enumerate(wrong)])
    assert [(result.fault, result.content) for result in results] == [
        ("raised", "Error: no such order."),
        ("raised", "Error: no such policy."),
    ]
    assert [(step["call_id"], step["progress"], step["violation"]) for step in state["steps"]] == [
        ("0", False, False),
        ("1", False, False),
    ]


def test_calls_of_one_turn_run_in_order_and_keep_their_ids() -> None:
    for task in Desk.tasks("train", orders=(3, 3), count=20):
        stages = zip(*(due_calls(task, request) for request in task.item["requests"]), strict=True)
        messages = []
        for stage, calls in enumerate(stages):
            made = [calling(f"{stage}.{n}", call).tool_calls[0] for n, call in enumerate(calls)]
            messages.append(Message(role="assistant", tool_calls=tuple(made)))
        state, results = play(task, messages)
        assert solved(state)
        ids = [f"{stage}.{n}" for stage in range(3) for n in range(3)]
        assert [step["call_id"] for step in state["steps"]] == ids
        assert [result.call_id for result in results] == ids


def test_one_task_can_be_played_many_times() -> None:
    task = one(due="refund")
    assert all(solved(play(task, Desk.expert(task))[0]) for _ in range(3))


def test_calls_that_cannot_be_executed_leave_no_step() -> None:
    task = one(due="refund")
    call = ToolCall(id="x", name="lookup_order", arguments="{")
    state, (result,) = play(task, [Message(role="assistant", tool_calls=(call,))])
    assert result.fault == "bad_arguments"
    assert state["steps"] == []


def test_demonstrations_without_noise_are_the_experts() -> None:
    quiet = Noise(skip=0, defy=0, stop=0, slip=0, repeat=0)
    for task in Desk.tasks("demonstrations", orders=(1, 3), count=50):
        assert demonstration(task, random.Random(0), quiet) == Desk.expert(task)


def test_about_four_demonstrations_in_ten_succeed() -> None:
    rng = random.Random(0)
    tasks = Desk.tasks("demonstrations", count=600)
    rate = sum(solved(play(task, demonstration(task, rng))[0]) for task in tasks) / len(tasks)
    assert 0.35 < rate < 0.47


def test_the_state_is_json() -> None:
    state, _ = play(*(lambda task: (task, Desk.expert(task)))(one(due="refund")))
    assert json.loads(json.dumps(state)) == state


def test_a_row_that_is_no_task_of_the_desk_is_refused() -> None:
    with pytest.raises(InputError, match=r"item\.policies is missing; the desk needs database, policies"):
        Desk(Task.ask("Well?", database={}))
