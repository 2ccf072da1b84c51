"""The hello world: its tasks, its tools, and an expert that is right."""

import asyncio
import subprocess
import sys

import pytest

from envs import InputError
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


def test_tasks_are_the_same_in_every_process():
    code = "from envs.arithmetic import Arithmetic; print([t.id for t in Arithmetic.tasks('test', steps=2, count=9)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{[t.id for t in Arithmetic.tasks('test', steps=2, count=9)]}\n"


@pytest.mark.parametrize(
    ("split", "options", "said"),
    [("trian", {}, "no split 'trian'"), ("train", {"steps": 0}, "steps"), ("train", {"count": -1}, "count")],
)
def test_options_that_make_no_sense_are_refused(split, options, said):
    with pytest.raises(InputError, match=said):
        Arithmetic.tasks(split, **options)
