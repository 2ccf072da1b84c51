"""Word problems: one answer each, a calculator that only calculates, and files in the format of GSM8K."""

import asyncio
import json
import os
import random
import re
import statistics
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import random_agent, scripted
from envs import InputError, Message, Stop, Task, ToolError
from envs.formula import as_number, evaluate
from envs.math import Math
from envs.script import calling
from envs.tasks import check_disjoint
from rewards import build
from rl.rollout import Limits, run_episode

SPLITS = ("train", "validation", "test")
REWARD = build(
    {
        "answer": {"use": "numeric", "field": "answer", "require": ["done"]},
        "steps": {"use": "progress", "weight": 0.05},
        "repeats": {"use": "no_repeats", "weight": 0.1},
        "form": {"use": "valid_calls", "weight": 0.1},
    }
)


@cache
def made(split):
    """The tasks of a split, made once for all tests."""
    return Math.tasks(split)


def played(task, policy, turns=20):
    """The episode and its score."""

    async def run():
        episode = await run_episode(Math(task), policy, Limits(turns=turns), id="1")
        return episode, await REWARD(episode)

    return asyncio.run(run())


def did(task, expressions, said=""):
    """As `played`: calculations, one a turn, then an answer."""
    calls = [calling(str(n), ("calculate", {"expression": e})) for n, e in enumerate(expressions)]
    return played(task, scripted([*calls, Message(role="assistant", content=said)]), turns=len(calls) + 1)


def results(episode):
    return [result for turn in episode.turns for result in turn.results]


@pytest.mark.parametrize("split", SPLITS)
def test_the_expert_is_paid_in_full_and_answers_what_it_calculated(split):
    for task in made(split)[:40]:
        episode, score = played(task, scripted(Math.expert(task)))
        assert episode.stop is Stop.DONE
        assert score.parts == {"answer": 1.0, "steps": len(task.item["calls"]), "repeats": 0.0, "form": 0.0}
        assert results(episode)[-1].content == task.item["answer"] == episode.answer


def retold(text):
    """The answer, worked out from the words alone."""
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    total = 0
    for sentence in re.split(r"(?<=[.?]) ", text):
        a, b = ([int(n) for n in re.findall(r"\d+", sentence)] + [0, 0])[:2]
        for words, work in {
            "boxes with": lambda t, a, b: a * b,
            "and finds": lambda t, a, b: a + b,
            "times as many": lambda t, a, b: a + a * b,
            "to a neighbour": lambda t, a, b: t - a,
            "get lost": lambda t, a, b: t - a - b,
            "gets": lambda t, a, b: t + a,
            "Half of": lambda t, a, b: t // 2,
            "percent": lambda t, a, b: t * (1 - Fraction(a, 100)),
            "every day": lambda t, a, b: t + a * b,
            "a friend adds": lambda t, a, b: t + a,
            "sells for": lambda t, a, b: t * a,
            "full bags": lambda t, a, b: 0,
            "remain": lambda t, a, b: 0,
        }.items():
            if words in sentence:
                if words not in ("full bags", "remain"):
                    total = work(total, a, b)
                break
    if "full bags" in text:
        total //= numbers[-1]
    return total % numbers[-1] if "remain" in text else total


def test_answers_follow_from_the_words_of_the_story():
    for task in Math.tasks("train", steps=(0, 4), count=400):
        assert str(retold(task.prompt[-1].content)) == task.item["answer"], task.prompt[-1].content
        for expression in task.item["calls"]:
            assert evaluate(expression)[0] == eval(expression)


def test_wrong_answers_that_lie_near_score_nothing():
    for task in made("test")[:15]:
        right = int(task.item["answer"])
        before = [str(as_number(evaluate(e)[0])) for e in task.item["calls"]]
        near = {str(right + 1), str(right - 1), str(-right - 1), f"{right}.5", before[0], "none", ""} - {str(right)}
        for wrong in near:
            _, score = did(task, task.item["calls"], wrong)
            assert score.parts["answer"] == 0.0
            assert score.total < 1.0


def test_splits_are_disjoint_and_large_enough():
    splits = {split: made(split) for split in SPLITS}
    check_disjoint(splits)
    assert [len({task.id for task in tasks}) for tasks in splits.values()] == [1000, 200, 200]
    assert Math.tasks("test", count=5) == splits["test"][:5]
    assert len({task.prompt[-1].content for tasks in splits.values() for task in tasks}) == 1400


def sum_of_words(rng, words):
    numbers = [word for word in words if word.isdigit()]
    return f"{rng.choice(numbers)} {rng.choice('+-*/')} {rng.choice([*numbers, rng.choice(words)])}"


def test_a_random_agent_solves_almost_nothing():
    agents = [random_agent(random.Random(n), {"expression": sum_of_words}) for n in range(100)]
    scores = [played(task, agent)[1] for task, agent in zip(made("test"), agents, strict=False)]
    assert statistics.mean(score.parts["answer"] for score in scores) < 0.1
    assert statistics.mean(score.total for score in scores) < 0.1


def test_no_state_crosses_episodes():
    task = next(task for task in made("test") if len(task.item["calls"]) == 3)
    played(task, scripted(Math.expert(task)))
    first, second = Math(task), Math(task)
    planted = calling("a", ("calculate", {"expression": task.item["calls"][0]}))
    asyncio.run(first.step(planted))
    assert (len(first.state()["steps"]), len(second.state()["steps"])) == (1, 0)
    asyncio.run(second.step(planted))
    assert second.state()["steps"] == [{"call_id": "a", "tool": "calculate", "progress": True, "repeat": False}]


def test_steps_made_at_once_count_once_and_settle_those_before():
    task = Task.ask("Ana has 3 boxes with 4 pens and gets 5.", calls=["3 * 4", "12 + 5"], answer="17")
    episode, score = did(task, ["3 * 4 + 5", "3 * 4", "3*4", "5 + 12"], "17")
    assert [step["progress"] for step in episode.state["steps"]] == [True, False, False, False]
    assert [step["repeat"] for step in episode.state["steps"]] == [False, False, True, False]
    assert score.parts == {"answer": 1.0, "steps": 1.0, "repeats": -1.0, "form": 0.0}


def test_what_a_step_brings_in_is_known_even_if_a_later_step_comes_to_it():
    task = Task.ask("Half of 8 are sold, then half of these.", calls=["8 / 2", "4 / 2"], answer="2")
    assert [s["progress"] for s in did(task, ["8 / 2", "4 / 2"], "2")[0].state["steps"]] == [True, True]


def test_a_step_starts_from_numbers_that_are_known():
    task = Task.ask("Ana has 3 boxes with 4 pens and gets 5.", calls=["3 * 4", "12 + 5"], answer="17")
    assert [s["progress"] for s in did(task, ["6 + 6", "16 + 1", "12 + 5"])[0].state["steps"]] == [False] * 3
    assert [s["progress"] for s in did(task, ["4 * 3", "5 + 12"])[0].state["steps"]] == [True, True]


WORKS = {
    "(12 + 3) * 4": 60,
    " 7 // 2 ": 3,
    "-7 % 3": 2,
    "2 ** -2": 0.25,
    "0.1 + 0.2": 0.3,
    "1 / 3": 0.333333333333,
    "1_000 * +2": 2000,
    "--3": 3,
    ".5 * 4": 2,
    "2 ** 64": 2**64,
}


@pytest.mark.parametrize(("expression", "value"), WORKS.items(), ids=WORKS)
def test_the_calculator_calculates(expression, value):
    assert as_number(evaluate(expression)[0]) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "x",
        "1 +",
        "1; 2",
        "a = 1",
        "abs(1)",
        "__import__('os')",
        "().__class__",
        "(lambda: 1)()",
        "[1][0]",
        "'a' * 3",
        "f'{1}'",
        "1 if 1 else 2",
        "1 < 2",
        "True + 1",
        "1j * 1j",
        "0x10 + 1",
        "1e9 + 1",
        "1e999999999",
        "1 << 9",
        "7 & 3",
        "7 @ 3",
        "~1",
        "not 1",
        "1 / 0",
        "1 % 0",
        "1 // (2 - 2)",
        "0 ** -1",
        "2 ** 0.5",
        "9 ** 9 ** 9",
        "(9 ** 64) ** 64",
        "9" * 160,
        "(" * 100 + "1" + ")" * 99,
        "-" * 199 + "1",
        "1 + " * 60 + "1",
        "1 + \0",
        "\ud800",
        "(x := 1)",
        "await 1",
        "yield",
        "1 # comment\n+ 2",
        "*1",
    ][:-1],
)
def test_whatever_else_is_no_arithmetic(expression):
    if expression == "-" * 199 + "1":
        assert evaluate("-" * 9 + "1")[0] == -1
        return
    with pytest.raises(ToolError):
        evaluate(expression)


@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(-999, 999)), min_size=1, max_size=8))
def test_the_calculator_agrees_with_exact_fractions(chain):
    text, value = "1", Fraction(1)
    for sign, number in chain:
        if sign == "/" and number == 0:
            continue
        text = f"({text}) {sign} {number}"
        value = {"+": value + number, "-": value - number, "*": value * number}.get(sign, value / (number or 1))
    assert evaluate(text)[0] == value


def file(tmp_path, *rows):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


SOLUTION = "In May she made 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>72 clips.\n#### 72"


def test_problems_in_the_format_of_gsm8k_can_be_played(tmp_path):
    rows = (
        {"question": "Ana made 48 clips in April, and half as many in May. How many in all?", "answer": SOLUTION},
        {"question": "What is the price?", "answer": "It is <<big>>big and <<1+x=2>>.\n#### $1,234.50"},
        {"question": "How cold?", "answer": "#### -3"},
    )
    one, two, three = Math.tasks("train", files={"train": str(file(tmp_path, *rows))})
    assert [task.item["answer"] for task in (one, two, three)] == ["72", "1234.50", "-3"]
    assert [task.item["calls"] for task in (one, two, three)] == [["48/2", "48+24"], [], []]
    assert [message.role for message in one.prompt] == ["system", "user"]
    assert "24" not in one.prompt[-1].content
    assert played(one, scripted(Math.expert(one)))[1].parts["steps"] == 2.0
    for task, answer in ((one, "The answer is 72."), (two, "$1,234.50"), (three, "-3")):
        assert did(task, [], answer)[1].parts["answer"] == 1.0
        assert did(task, [], "24")[1].parts["answer"] == 0.0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "What?"}, "line 1: expected an object with the texts"),
        ({"question": 1, "answer": "#### 1"}, "line 1: expected"),
        ([1], "line 1: expected"),
        ({"question": "What?", "answer": "42"}, "line 1: the answer must end in its number"),
        ({"question": "What?", "answer": "#### many"}, "must end in its number"),
        ({"question": " ", "answer": "#### 1"}, "line 1: question is empty|prompt"),
        ("{", "line 1: not JSON"),
        ("", "holds no tasks"),
    ],
)
def test_a_row_that_is_no_problem_is_refused_with_its_line(tmp_path, row, said):
    path = file(tmp_path, row)
    with pytest.raises(InputError, match=said):
        Math.tasks("train", files={"train": str(path)})


@pytest.mark.parametrize(
    ("split", "options", "said"),
    [
        ("dev", {}, "no split 'dev'"),
        ("train", {"steps": (3, 1)}, "steps"),
        ("train", {"steps": (1,)}, "steps"),
        ("train", {"count": -1}, "count"),
        ("test", {"files": {"train": "x.jsonl"}}, "no file for split 'test', only for train"),
        ("test", {"files": {"test": "nowhere.jsonl"}}, "nowhere.jsonl: No such file"),
    ],
)
def test_options_that_make_no_sense_are_refused(split, options, said):
    with pytest.raises(InputError, match=said):
        Math.tasks(split, **options)


def test_a_row_with_calculations_that_are_none_is_refused():
    with pytest.raises(InputError, match=r"item\.calls: no arithmetic"):
        Math(Task.ask("What?", calls=["1 +"]))


@pytest.mark.slow
def test_a_thousand_random_episodes_leave_nothing_behind():
    before = len(os.listdir("/proc/self/fd"))
    for n in range(1000):
        played(made("train")[n], random_agent(random.Random(n), {"expression": sum_of_words}))
    assert len(os.listdir("/proc/self/fd")) == before
