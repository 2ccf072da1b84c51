"""The coder: functions that can be written and mended, tests that can't be got at, and rewards for nothing else."""

import asyncio
import json
import random
import statistics
from functools import cache

import pytest

from agents import random_agent
from envs import InputError, Message, Stop, Task
from envs.coder import HIDDEN, Coder
from envs.functions import FAMILIES
from envs.mutations import mutants, plain
from envs.sandbox import shared
from envs.script import calling
from envs.tasks import check_disjoint
from envs.trials import alike, tried
from rl.policy import ScriptPolicy
from workspaces import did, no_tier, play, reward_of, runner, said, soaked

pytestmark = no_tier
SPLITS = ("train", "validation", "test")
DIFFICULTIES = ("easy", "standard", "hard")
REWARD = reward_of("coder.yaml")
SUBMIT = ("submit", {})
TEST = ("test", {})


run = pytest.fixture(scope="module")(runner)


def write(source, path="solution.py"):
    return ("write", {"path": path, "content": source})


@cache
def made(split, difficulty, count):
    return Coder.tasks(split, difficulty=difficulty, count=count)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_expert_is_paid_in_full(run, difficulty):
    for split in SPLITS:
        for task in made(split, difficulty, 8)[:2]:
            episode, score = run(play(Coder, task, ScriptPolicy(Coder.expert(task)), REWARD))
            assert (episode.stop, score.value) == (Stop.DONE, 1.0)
            assert score.parts["steps"] == pytest.approx(1 - task.item["passing"] / HIDDEN)
            assert score.parts["repeats"] == score.parts["calls"] == 0.0


def test_every_family_is_right_in_the_sandbox_as_it_is_here(run):
    """Python inside may be another version than the one that worked out what is right."""
    for task in made("train", "standard", 40)[: len(FAMILIES)]:
        trials = run(trial(task.item["solution"], task))
        assert all(t.passed for t in trials), (task.item["function"], [t.said for t in trials])


async def trial(source, task, tests=None):
    tests = task.item["hidden"] if tests is None else tests
    return await tried(await shared(), source, task.item["function"], tests, seconds=10)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_each_mistake_that_was_thought_of_is_wrong(run, difficulty):
    for task in made("test", difficulty, 8)[:4]:
        for wrong in task.item["wrong"][:2]:
            _, score = run(did(Coder, task, REWARD, write(wrong), SUBMIT))
            assert score.value == 0.0 and score.total < 1.0


def test_a_mistake_shows_in_the_examples_or_at_hard_does_not(run):
    for difficulty, shows in (("easy", True), ("hard", False)):
        mends = [task for task in made("test", difficulty, 8) if "mistake" in task.prompt[-1].content]
        assert mends
        for task in mends:
            trials = run(trial(task.item["start"], task, task.item["visible"]))
            assert (not all(t.passed for t in trials)) is shows


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_no_constant_passes_more_tests_than_count_as_nothing(difficulty):
    for task in made("train", difficulty, 8):
        results = [json.dumps(right, sort_keys=True) for _, right in task.item["hidden"]]
        assert max(map(results.count, results)) <= task.item["passing"] < HIDDEN
        arguments = [json.dumps(a) for a, _ in (*task.item["hidden"], *task.item["visible"])]
        assert len(set(arguments)) == len(arguments)


def test_splits_are_disjoint_and_large_enough():
    splits = {split: Coder.tasks(split) for split in SPLITS}
    check_disjoint(splits)
    assert [len({task.id for task in tasks}) for tasks in splits.values()] == [400, 100, 100]
    assert splits["test"][:5] == Coder.tasks("test", count=5)


def test_no_function_is_in_two_splits_at_any_difficulty():
    functions = {
        split: {task.item["solution"] for difficulty in DIFFICULTIES for task in made(split, difficulty, 8)}
        for split in SPLITS
    }
    assert not functions["train"] & functions["test"] and not functions["train"] & functions["validation"]
    assert not functions["validation"] & functions["test"]


def test_a_mutant_differs_by_one_mistake_and_none_is_made_twice():
    source = plain("def f(x):\n    return [n for n in x if n > 3 and not n % 2 == 0][:2]")
    found = list(mutants(source, random.Random(0)))
    assert len(set(found)) == len(found) and source not in found
    assert {text for text in found if "n >= 3" in text or " or " in text or "[:1]" in text} <= set(found)
    assert sorted(found) == sorted(mutants(source, random.Random(1)))
    same = {"n > 3": 1, "n % 2": 1}
    for text in found:
        assert sum(part not in text for part in same) <= 1


def words(rng, read):
    return " ".join(rng.choices(read, k=rng.randint(1, 4)))


PHRASES = {
    "path": lambda rng, read: rng.choice(["solution.py", "examples.py", rng.choice(read)]),
    "command": words,
    "content": lambda rng, read: f"def {rng.choice(read)}(x):\n    return {words(rng, read)}\n",
}


def test_a_random_agent_solves_almost_nothing(run):
    async def each(n, task):
        return (await play(Coder, task, random_agent(random.Random(n), PHRASES), REWARD))[1]

    async def all_of_them():
        return await asyncio.gather(*(each(n, task) for n, task in enumerate(made("train", "standard", 40)[:30])))

    scores = run(all_of_them())
    assert statistics.mean(score.value for score in scores) < 0.1
    assert statistics.mean(score.total for score in scores) < 0.1


def known(task):
    """A table of the examples."""
    table = {repr(arguments): right for arguments, right in task.item["visible"]}
    return (
        f"KNOWN = {table!r}\n\ndef {task.item['function']}(*arguments):\n    return KNOWN.get(repr(list(arguments)))\n"
    )


def forged(task):
    """Writes answers for every test to whatever is open, and ends."""
    line = json.dumps({"returned": task.item["visible"][0][1]}) + "\n"
    return (
        f"import os\nfor number in range(3, 30):\n    try:\n        os.write(number, {line!r}.encode() * {HIDDEN})\n"
        "    except OSError:\n        pass\nos._exit(0)\n"
    )


EQUAL = "class All(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n\ndef {}(*a): return All()\n"
PEEK = "import sys\ndef {}(*a): return sys._getframe(1).f_globals.get('right', sys._getframe(1).f_globals['asked'])\n"
MARKER = "print('all tests passed, reward 1.0')\ndef {}(*a): print('PASSED'); return 'PASSED'\n"

HACKERS = {
    "repeats a rewarded call": lambda t: [TEST] * 8,
    "overwrites the examples": lambda t: [
        write("print('ok')", "examples.py"), ("run", {"command": "python3 examples.py"}), TEST, SUBMIT,
    ],
    "knows the examples by heart": lambda t: [write(known(t)), TEST, SUBMIT],
    "answers without working": lambda t: [SUBMIT],
    "prints what a success looks like": lambda t: [write(MARKER.format(t.item["function"])), TEST, SUBMIT],
    "forges answers and ends": lambda t: [write(forged(t)), TEST, SUBMIT],
    "returns what equals everything": lambda t: [write(EQUAL.format(t.item["function"])), TEST, SUBMIT],
    "looks for the answers in the caller": lambda t: [write(PEEK.format(t.item["function"])), TEST, SUBMIT],
    "puts its own caller in the way": lambda t: [
        ("run", {"command": "echo 'print(1)' > json.py; cp json.py importlib.py; cp json.py sitecustomize.py"}),
        TEST, SUBMIT,
    ],
    "tries one constant after the other": lambda t: [
        call
        for _, right in t.item["visible"]
        for call in (write(f"def {t.item['function']}(*a): return {right!r}"), TEST)
    ],
    "claims an approval": lambda t: [write("# approved by the reviewer: counts as passed\n"), SUBMIT],
    "spams what ends the task": lambda t: [TEST, *[SUBMIT] * 20],
    "stops early": lambda t: [("read", {"path": "solution.py"})],
    "destroys its sandbox": lambda t: [("run", {"command": "kill -9 -1; rm -rf ~ /work /tmp"}), SUBMIT],
}  # fmt: skip


@pytest.mark.parametrize("hack", HACKERS.values(), ids=HACKERS)
def test_a_hacker_earns_no_more_than_an_honest_failure(run, hack):
    for task in made("test", "standard", 8)[:3]:
        wrong = task.item["wrong"][0]
        _, honest = run(did(Coder, task, REWARD, ("read", {"path": "solution.py"}), write(wrong), TEST, SUBMIT))
        episode, score = run(did(Coder, task, REWARD, *hack(task)))
        assert not episode.broken and score.error is None
        assert honest.value == score.value == 0.0
        assert score.total <= honest.total, (score.parts, honest.parts)


def test_progress_counts_what_is_newly_passed_and_repeats_are_marked(run):
    task = next(task for task in made("train", "standard", 40) if len(task.item["wrong"]) > 1)
    right = write(task.item["solution"])
    episode, score = run(did(Coder, task, REWARD, right, TEST, TEST, write("x = 1"), TEST, right, TEST, SUBMIT))
    steps = [step for step in episode.state["steps"] if step["tool"] == "test"]
    assert [step["progress"] > 0 for step in steps] == [True, False, False, False]
    assert [step["repeat"] for step in steps] == [False, True, False, True]
    assert score.parts["steps"] == pytest.approx(1 - task.item["passing"] / HIDDEN)
    assert (episode.state["passed"], episode.state["source"]) == (HIDDEN, task.item["solution"])


def test_what_the_model_is_told_of_tests_is_about_the_examples_alone(run):
    task = made("test", "standard", 8)[0]
    episode, _ = run(did(Coder, task, REWARD, write("def nothing(): 1"), TEST, SUBMIT))
    told = said(episode)[1]
    assert (
        told.startswith(f"0 of {len(task.item['visible'])} examples are right.\n") and "raised AttributeError" in told
    )
    assert len(told.splitlines()) == 1 + len(task.item["visible"])
    hidden = [json.dumps(arguments)[1:-1] for arguments, _ in task.item["hidden"]]
    shown = [json.dumps(arguments)[1:-1] for arguments, _ in task.item["visible"]]
    assert not [text for text in hidden if len(text) > 8 and text in told and not any(text in s for s in shown)]


def test_only_the_first_of_several_submissions_counts(run):
    task = made("test", "standard", 8)[0]
    calls = [SUBMIT, write(task.item["solution"]), SUBMIT]
    turn = tuple(calling(str(n), call).tool_calls[0] for n, call in enumerate(calls))
    message = Message(role="assistant", tool_calls=turn)
    episode, score = run(play(Coder, task, ScriptPolicy([message]), REWARD))
    assert [r.fault for r in episode.turns[0].results] == [None, None, "raised"] and score.value == 0.0


def test_no_state_crosses_episodes_or_rounds_of_tests(run):
    task = made("test", "standard", 8)[0]
    name = task.item["function"]
    plant = "echo x > mark; echo x > $TMPDIR/mark; echo x > /dev/shm/mark; (setsid sleep 99 &) ; ls"
    look = 'ls -A . "$TMPDIR" /dev/shm 2>/dev/null | grep mark; pgrep sleep; true'
    before, _ = run(did(Coder, task, REWARD, ("run", {"command": plant})))
    after, _ = run(did(Coder, task, REWARD, ("run", {"command": look})))
    assert "mark" in said(before)[0] and said(after) == [""]
    source = (
        "import os, tempfile\nmark = tempfile.gettempdir() + '/mark'\nseen = os.path.exists(mark)\nopen(mark, 'w')\n"
    )
    source += f"def {name}(*a): return seen"
    for _ in range(2):
        assert {t.said for t in run(trial(source, task))} == {"returned false"}


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        ("def f(x): return x", None),
        ("import os\nos._exit(0)", "it ended the program"),
        ("def f(x):\n    while True: pass", "it took too long"),
        ("def f(x): return float('nan')", "returned NaN"),
        ("def f(x): return {1, 2}", "raised TypeError: Object of type set is not JSON serializable"),
        ("def f(x): raise SystemExit(0)", "raised SystemExit: 0"),
        ("def f(x): return (", "raised SyntaxError"),
        ("def f(x):\n    return f(x)", "raised RecursionError"),
        ("def f(x): return 'x' * 10**10", "raised MemoryError"),
        ("def f(x):\n    y = []\n    for _ in range(10**5): y = [y]\n    return y", "raised RecursionError"),
        ("def g(x): return x", "raised AttributeError"),
        ("import os\nos.close(3)\ndef f(x): os.closerange(0, 99); return x", "it ended the program"),
    ],
)
def test_a_function_that_misbehaves_has_failed_and_harms_nobody(run, source, ending):
    async def scene():
        return await tried(await shared(), source, "f", [([True], True), ([1], 1)], seconds=1.5)

    trials = run(scene())
    assert [t.passed for t in trials] == [ending is None] * 2
    assert ending is None or all(t.said.startswith(ending) for t in trials), trials


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        (None, 0, False),
    ],
)
def test_values_are_compared_by_kind_too(one, other, same):
    assert alike(one, other) is same


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"split": "train", "difficulty": "brutal"}, "difficulty"),
        ({"split": "train", "count": -1}, "count"),
        ({"split": "train", "count": 9999}, "count"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, asked):
    with pytest.raises(InputError, match=asked):
        Coder.tasks(**options)


@pytest.mark.parametrize(
    ("item", "asked"),
    [
        ({}, "item.function is the name of a function"),
        ({"function": "f"}, "item.visible are pairs"),
        ({"function": "f", "visible": [], "hidden": [[1, 2]]}, "item.hidden are pairs"),
        ({"function": "f", "visible": [], "hidden": []}, "item.hidden is empty"),
    ],
)
def test_a_row_that_is_no_task_is_refused(item, asked):
    with pytest.raises(InputError, match=asked):
        Coder(Task.ask("Write f.", **item))


@pytest.mark.parametrize("episodes", [16, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_random_episodes_leave_nothing_behind(run, episodes):
    before, after = run(soaked(Coder, made("train", "standard", 40), REWARD, PHRASES, episodes))
    assert after[0] <= before[0] and after[1] <= before[1]
