"""The account of an episode's calls: whose each note is, what counts once, and what is a repeat."""

import asyncio
import json

import pytest

from envs import Environment, Task, ToolCall, ToolError, tool
from envs.script import calling, script


class House(Environment):
    """Doors to open, in a thread or beside one another."""

    @tool
    def open(self, door: str, times: int = 1) -> str:
        """Open a door."""
        self.steps.note(progress=f"opened {door}", violation="too often" if times > 1 else None, door=door)
        return "ok"

    @tool
    async def knock(self, door: str, seconds: float) -> str:
        """Knock at a door, after a while."""
        await asyncio.sleep(seconds)
        self.steps.note(like=door)
        raise ToolError("nobody is in.")

    @tool
    def paint(self, share: float) -> str:
        """Paint the house, or some of it."""
        self.steps.note(progress=share)
        return "ok"

    @tool
    async def look(self) -> str:
        """Look, which goes unnoticed."""
        return "a house"


def account(*turns):
    """The account after turns of calls (name, arguments), with ids "turn.call"."""

    async def play():
        house = House(Task.ask("Open the doors."))
        for number, calls in enumerate(turns):
            made = [calling(f"{number}.{n}", call).tool_calls[0] for n, call in enumerate(calls)]
            await asyncio.gather(*map(house.call, made))
        return house.steps.account()

    return asyncio.run(play())


def test_a_note_says_whose_call_it_was_and_what_it_came_to():
    found = account([("open", {"door": "red"})], [("open", {"door": "blue", "times": 2})])
    assert found == {
        "violations": [{"call_id": "1.0", "tool": "open", "door": "blue", "reason": "too often"}],
        "steps": [
            {"call_id": "0.0", "tool": "open", "door": "red", "progress": True, "violation": False, "repeat": False},
            {"call_id": "1.0", "tool": "open", "door": "blue", "progress": True, "violation": True, "repeat": False},
        ],
    }
    assert json.loads(json.dumps(found)) == found


def test_calls_of_one_turn_note_under_their_own_ids_whoever_is_first():
    late, early, thread = ("knock", {"door": "a", "seconds": 0.05}), ("knock", {"door": "b", "seconds": 0}), "open"
    found = account([late, early, (thread, {"door": "c"})])
    assert {step["call_id"]: step["tool"] for step in found["steps"]} == {"0.0": "knock", "0.1": "knock", "0.2": "open"}
    assert found["steps"][-1]["call_id"] == "0.0"


def test_a_step_of_progress_counts_once_however_it_is_made_again():
    red = ("open", {"door": "red"})
    steps = account([red], [red], [("open", {"door": "red", "times": 1})], [("open", {"door": "red", "times": 2})])
    assert [step["progress"] for step in steps["steps"]] == [True, False, False, False]


def test_a_repeat_is_the_same_tool_with_the_same_arguments_defaults_filled_in():
    calls = [{"door": "red"}, {"times": 1, "door": "red"}, {"door": "red", "times": 2}, {"door": "blue"}]
    steps = account(*([("open", arguments)] for arguments in calls))["steps"]
    assert [step["repeat"] for step in steps] == [False, True, False, False]


def test_an_author_may_say_what_makes_a_call_a_repeat():
    steps = account([("knock", {"door": "a", "seconds": 0})], [("knock", {"door": "a", "seconds": 0.01})])["steps"]
    assert [step["repeat"] for step in steps] == [False, True]


def test_a_number_is_the_share_of_the_task_that_a_call_brought_in():
    steps = account(*([("paint", {"share": share})] for share in (0.5, 0.0, 0.5)))["steps"]
    assert [step["progress"] for step in steps] == [0.5, 0.0, 0.5]


def test_calls_that_are_not_carried_out_or_not_noted_leave_no_record():
    assert account([("open", {}), ("fly", {}), ("look", {})]) == {"violations": [], "steps": []}


def test_a_note_outside_a_call_is_a_mistake_of_the_author():
    with pytest.raises(LookupError, match="the call being carried out"):
        House(Task.ask("Open the doors.")).steps.note()


def test_a_script_has_a_call_a_turn_and_its_answer_last():
    messages = script([("open", {"door": "ré"}), ("look", {})], "Done.")
    assert [message.tool_calls for message in messages] == [
        (ToolCall(id="call-0", name="open", arguments='{"door": "r\\u00e9"}'),),
        (ToolCall(id="call-1", name="look", arguments="{}"),),
        (),
    ]
    assert [message.content for message in messages] == ["", "", "Done."]
    assert script([]) == []
