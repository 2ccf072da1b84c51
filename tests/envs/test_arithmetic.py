"""The hello world: its tasks, its tools, and an expert that is right."""

import asyncio
import json

import pytest

from envs import InputError, Message, Task, ToolCall
from envs.arithmetic import Arithmetic

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_expert_gets_every_answer_from_the_tools(steps):
    async def play(task):
        env = Arithmetic(task)
        *calls, last = Arithmetic.expert(task)
        results = [result for message in calls for result in await env.step(message)]
        return results, last

    for split in SPLITS:
        for task in Arithmetic.tasks(split, steps=steps, count=20):
            results, last = asyncio.run(play(task))
            assert len(results) == steps
            assert {result.fault for result in results} == {None}
            assert last.tool_calls == ()
            assert last.content == results[-1].content == task.item["answer"]
            question = task.prompt[-1].content.removeprefix("What is ").removesuffix("?")
            assert str(eval(question)) == task.item["answer"]


def test_splits_are_disjoint_and_tasks_differ():
    for steps in (1, 3):
        ids = [task.id for split in SPLITS for task in Arithmetic.tasks(split, steps=steps)]
        assert len(ids) == len(set(ids)) == 1400


def test_fewer_tasks_are_the_first_of_more():
    assert Arithmetic.tasks("test", count=5) == Arithmetic.tasks("test", count=50)[:5]
    assert Arithmetic.tasks("test", count=0) == []


@pytest.mark.parametrize(
    ("split", "options", "said"),
    [("trian", {}, "no split 'trian'"), ("train", {"steps": 0}, "steps"), ("train", {"count": -1}, "count")],
)
def test_options_that_make_no_sense_are_refused(split, options, said):
    with pytest.raises(InputError, match=said):
        Arithmetic.tasks(split, **options)


def played(task, *calls):
    """The notes after calls (name, a, b), one a turn."""

    async def play():
        env = Arithmetic(task)
        for number, (name, a, b) in enumerate(calls):
            call = ToolCall(id=str(number), name=name, arguments=json.dumps({"b": b, "a": a}))
            await env.step(Message(role="assistant", tool_calls=(call,)))
        return env.state()["steps"]

    return asyncio.run(play())


def test_each_call_that_the_question_needed_next_is_noted_as_progress():
    for task in Arithmetic.tasks("test", steps=3, count=10):
        steps = played(task, *task.item["calls"])
        assert [(step["call_id"], step["progress"], step["repeat"]) for step in steps] == [
            (str(number), True, False) for number in range(3)
        ]


def test_a_call_that_is_wrong_early_made_twice_or_refused_is_no_progress():
    task = next(t for t in Arithmetic.tasks("test", steps=2, count=50) if t.item["calls"][0] != t.item["calls"][1])
    first, second = task.item["calls"]
    wrong = (first[0], first[1] + 1, first[2])
    steps = played(task, second, wrong, first, first, ("divide", 1, 2), (first[0], "x", 1), second)
    assert [step["progress"] for step in steps] == [False, False, True, False, True]
    assert [step["repeat"] for step in steps] == [False, False, False, True, True]


def test_a_question_of_somebody_elses_has_notes_and_no_progress():
    assert [step["progress"] for step in played(Task.ask("What is 1 + 1?"), ("add", 1, 1))] == [False]
