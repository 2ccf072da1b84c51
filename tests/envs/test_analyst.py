"""The analyst: tasks that have one answer, a database that only answers, and rewards that can't be had otherwise."""

import asyncio
import json
import os
import random
import re
import statistics
import threading
from functools import cache

import pytest

from agents import random_agent, scripted
from envs import InputError, Message, Stop, Task
from envs.analyst import Analyst
from envs.questions import FORMS, matches, value_of
from envs.script import calling
from envs.sqlite import ReadOnly
from envs.tasks import check_disjoint
from rewards import build
from rl.rollout import Limits, run_episode

SPLITS = ("train", "validation", "test")
PARTS = {
    "success": {"use": "state_equal", "state": "answer", "goal": "goal", "require": ["done", "no_violations"]},
    "steps": {"use": "progress", "weight": 0.05},
    "policy": {"use": "policy_kept", "weight": 0.1},
    "repeats": {"use": "no_repeats", "weight": 0.1},
    "form": {"use": "valid_calls", "weight": 0.1},
}
REWARD = build(PARTS)


def played(task, policy, turns=10):
    """The episode and its score."""

    async def run():
        episode = await run_episode(Analyst(task), policy, Limits(turns=turns), id="1")
        return episode, await REWARD(episode)

    return asyncio.run(run())


def did(task, *calls):
    """As `played`, with calls (name, arguments), one a turn."""
    return played(task, scripted([calling(str(n), call) for n, call in enumerate(calls)]), turns=len(calls) + 1)


def results(episode):
    return [result for turn in episode.turns for result in turn.results]


def looked(task):
    """The expert's calls before the answer."""
    return [(c.name, json.loads(c.arguments)) for m in Analyst.expert(task)[:-1] for c in m.tool_calls]


def answer(value):
    return ("answer", {"value": value})


@cache
def made(split, difficulty):
    """The tasks of a split, made once for all tests."""
    return Analyst.tasks(split, difficulty=difficulty)


@pytest.mark.parametrize("difficulty", FORMS)
@pytest.mark.parametrize("split", SPLITS)
def test_the_expert_is_paid_in_full_and_answers_what_its_query_found(split, difficulty):
    for task in made(split, difficulty)[:15]:
        episode, score = played(task, scripted(Analyst.expert(task)))
        calls = len(episode.turns)
        assert episode.stop is Stop.DONE
        assert score.parts == {"success": 1.0, "steps": calls, "policy": 0.0, "repeats": 0.0, "form": 0.0}
        rows = json.loads(results(episode)[-2].content)["rows"]
        assert matches(value_of(rows), task.item["goal"], task.item["ordered"])


@pytest.mark.parametrize("difficulty", FORMS)
def test_each_mistake_that_a_question_invites_is_wrong(difficulty):
    for task in made("test", difficulty)[:15]:
        assert len(task.item["wrong"]) >= 2
        for wrong in task.item["wrong"].values():
            _, score = did(task, *looked(task), answer(wrong if wrong is not None else "none"))
            assert score.parts["success"] == 0.0
            assert score.total < 1.0


def test_easy_answers_are_what_plain_python_finds():
    kinds = set()
    for task in made("train", "easy")[:60]:
        text = task.prompt[-1].content.partition(": ")[2]
        ((table, data),) = task.item["tables"].items()
        rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
        column, value = re.search(r"(\w+) (\w+)\?$", text).groups()
        mine = [row for row in rows if row[column] == value]
        kind, amount = re.match(r"(how many|what is the sum of|what is the highest) (\w+)", text).groups()
        right = {
            "how many": lambda mine=mine: len(mine),
            "what is the sum of": lambda mine=mine, amount=amount: sum(row[amount] for row in mine),
            "what is the highest": lambda mine=mine, amount=amount: max(row[amount] for row in mine),
        }[kind]()
        assert task.item["goal"] == right, text
        kinds.add(kind)
        assert table in text
    assert len(kinds) == 3


def test_joined_and_ranked_answers_are_what_plain_python_finds():
    seen = 0
    for task in made("train", "standard")[:150]:
        text = task.prompt[-1].content.partition(": ")[2]
        tables = {
            name: [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
            for name, data in task.item["tables"].items()
        }
        if found := re.match(r"which (\d) (\w+) have the highest sums of (\w+)\? Give each (\w+)", text):
            top, owners, amount, name = found.groups()
            sums = by_owner(tables, owners, amount)
            ranked = sorted(tables[owners], key=lambda row: -sum(sums.get(row["id"], [0])))
            assert task.item["goal"] == [row[name] for row in ranked[: int(top)]]
        elif found := re.match(r"what is the average (\w+) of \w+ by (\w+) of (\w+) (\w+)", text):
            amount, owners, place, value = found.groups()
            sums = by_owner(tables, owners, amount)
            mine = [x for row in tables[owners] if row[place] == value for x in sums.get(row["id"], [])]
            assert task.item["goal"] == pytest.approx(statistics.mean(mine), abs=0.0051)
        else:
            continue
        seen += 1
    assert seen > 20


def by_owner(tables, owners, amount):
    """Owner's id -> the amounts of theirs."""
    (facts,) = (rows for name, rows in tables.items() if name != owners)
    found = {}
    for row in facts:
        found.setdefault(row[f"{owners.rstrip('s')}_id"], []).append(row[amount])
    return found


@pytest.mark.parametrize("difficulty", FORMS)
def test_splits_are_disjoint_and_large_enough(difficulty):
    splits = {split: made(split, difficulty) for split in SPLITS}
    check_disjoint(splits)
    assert [len({task.id for task in tasks}) for tasks in splits.values()] == [400, 100, 100]
    assert Analyst.tasks("test", difficulty=difficulty, count=5) == splits["test"][:5]


def test_no_database_is_in_two_splits_at_any_difficulty():
    numbers = {
        split: {
            re.match(r"\w+ (\d+):", task.prompt[-1].content)[1]
            for difficulty in FORMS
            for task in made(split, difficulty)
        }
        for split in SPLITS
    }
    assert {split: len(found) for split, found in numbers.items()} == {"train": 400, "validation": 100, "test": 100}
    assert not numbers["train"] & numbers["test"] and not numbers["train"] & numbers["validation"]
    assert not numbers["validation"] & numbers["test"]


def test_an_easy_episode_is_short_and_of_one_table():
    for task in made("train", "easy")[:50]:
        assert len(task.item["tables"]) == 1
        assert len(Analyst.expert(task)) == 4
        assert len(task.item["sql"]) < 80
        assert isinstance(task.item["goal"], int)


def sql_of_words(rng, words):
    one, two, three = (rng.choice(words) for _ in range(3))
    return rng.choice([f"SELECT * FROM {one}", f"SELECT {one} FROM {two}", f"DROP TABLE {three}", f"{one} {two}"])


def test_a_random_agent_solves_almost_nothing():
    for difficulty in FORMS:
        tasks = made("test", difficulty)[:50]
        scores = [played(t, random_agent(random.Random(n), {"sql": sql_of_words}))[1] for n, t in enumerate(tasks)]
        assert statistics.mean(score.parts["success"] for score in scores) < 0.1
        assert statistics.mean(score.total for score in scores) < 0.1


def test_only_the_first_of_several_answers_in_a_turn_counts():
    task = made("test", "standard")[0]
    goal = task.item["goal"]
    calls = [calling(str(n), c).tool_calls[0] for n, c in enumerate([*looked(task), answer("no"), answer(goal)])]
    episode, score = played(task, scripted([Message(role="assistant", tool_calls=tuple(calls))]))
    assert results(episode)[-1].content == "Error: there was an answer before; the first one counts."
    assert (episode.state["answer"], score.parts["success"]) == ("no", 0.0)


def test_progress_counts_once_and_repeats_are_marked():
    task = made("test", "standard")[0]
    episode, score = did(task, *[call for call in looked(task) for _ in range(2)])
    assert [(s["progress"], s["repeat"]) for s in episode.state["steps"]] == [(True, False), (False, True)] * len(
        looked(task)
    )
    assert score.parts["steps"] == -score.parts["repeats"] == len(looked(task))


def test_no_state_crosses_episodes():
    task = made("test", "standard")[0]
    table = next(iter(task.item["tables"]))

    async def run():
        one, two = Analyst(task), Analyst(task)
        await one.setup()
        await two.setup()
        db = one._database._connection  # planted beneath every guard, as no tool could
        db.set_authorizer(None)
        db.execute("PRAGMA query_only = OFF")
        db.execute(f"DELETE FROM {table}")
        db.execute("CREATE TABLE planted (x)")
        call = calling("a", ("query", {"sql": f"SELECT COUNT(*) FROM {table}"}))
        assert json.loads((await one.step(call))[0].content)["rows"] == [[0]]
        found = [await two.step(call), await two.step(calling("b", ("list_tables", {})))]
        await one.close()
        await two.close()
        three = Analyst(task)
        await three.setup()
        found += [await three.step(call)]
        await three.close()
        return found

    before = json.dumps(task.item)
    counted, listed, later = asyncio.run(run())
    assert json.loads(counted[0].content)["rows"] == json.loads(later[0].content)["rows"]
    assert json.loads(counted[0].content)["rows"] == [[len(task.item["tables"][table]["rows"])]]
    assert "planted" not in listed[0].content
    assert json.dumps(task.item) == before


@pytest.mark.parametrize(
    ("said", "goal", "ordered", "same"),
    [
        (7, 7, False, True),
        ("7", 7, False, True),
        (" 1,234.5 ", 1234.5, False, True),
        (7.001, 7, False, False),
        (3.1416, 3.14, False, True),
        (3.15, 3.14, False, False),
        ("  ana\tb ", "Ana B", False, True),
        (["b", "A"], ["a", "b"], False, True),
        (["b", "a"], ["a", "b"], True, False),
        (["a"], "a", False, True),
        (["a", "a"], ["a", "b"], False, False),
        ([["x", 1], ["y", "2"]], [["y", 2], ["x", 1]], False, True),
        (["x", 1], [["x", 1]], False, False),
        (None, 0, False, False),
        (float("nan"), 1, False, False),
        (10**400, 1, False, False),
        ("", 0, False, False),
        (",", 0, False, False),
        ("1e9", 10**9, False, False),
        ([], "a", False, False),
    ],
)
def test_answers_are_compared_as_values(said, goal, ordered, same):
    assert matches(said, goal, ordered) is same


@pytest.mark.parametrize(
    ("said", "works"), [('["Ana", "Ben"]', True), ('["Ben", "Ana"]', True), ("Ana, Ben", False), ("[Ana", False)]
)
def test_a_list_may_come_as_json_text(said, works):
    table = {"columns": {"name": "TEXT"}, "rows": [["Ana"], ["Ben"]]}
    task = Task.ask("Who?", tables={"people": table}, goal=["Ana", "Ben"], needs=[["people", "name"]])
    _, score = did(task, ("query", {"sql": "SELECT name FROM people"}), answer(said))
    assert score.parts["success"] == works


@pytest.mark.parametrize(
    ("split", "options", "said"),
    [
        ("dev", {}, "no split 'dev'"),
        ("train", {"difficulty": "brutal"}, "difficulty"),
        ("train", {"count": -1}, "count"),
        ("test", {"count": 9999}, "count"),
    ],
)
def test_options_that_make_no_sense_are_refused(split, options, said):
    with pytest.raises(InputError, match=said):
        Analyst.tasks(split, **options)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({}, "item.tables is missing"),
        ({"tables": {"a": 1}, "goal": 1, "needs": []}, "item.tables"),
        ({"tables": {}, "goal": {"a": 1}, "needs": []}, "item.goal"),
        ({"tables": {}, "goal": 1, "needs": [["a"]]}, "item.needs"),
    ],
)
def test_a_row_that_is_no_question_is_refused(item, said):
    with pytest.raises(InputError, match=said):
        Analyst(Task.ask("What?", **item))


def test_tables_that_cannot_be_made_are_refused():
    table = {"columns": {"a": "INTEGER"}, "rows": [[1, 2]]}
    env = Analyst(Task.ask("What?", tables={"t": table}, goal=1, needs=[]))
    with pytest.raises(InputError, match="can't be made"):
        asyncio.run(env.setup())


@pytest.mark.parametrize("value", [{"a": 1}, [[[1]]], True])
def test_an_answer_of_another_shape_is_told_and_does_not_end_the_episode(value):
    task = made("test", "standard")[0]
    episode, score = did(task, answer(value), *looked(task), answer(task.item["goal"]))
    assert results(episode)[0].fault == "bad_arguments"
    assert score.parts["success"] == 1.0


@pytest.mark.slow
def test_a_thousand_random_episodes_leave_nothing_behind():
    tasks = made("train", "standard")[:100]

    opened = []
    make = ReadOnly.__init__

    def noted(self, *args):
        make(self, *args)
        opened.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReadOnly, "__init__", noted)
        played(tasks[0], random_agent(random.Random(0), {"sql": sql_of_words}))
        before = len(os.listdir("/proc/self/fd"))
        for n in range(1000):
            played(tasks[n % 100], random_agent(random.Random(n), {"sql": sql_of_words}))
        assert len(os.listdir("/proc/self/fd")) == before
    for thread in threading.enumerate():
        if thread.name == "tool":
            thread.join(timeout=5)  # the last one may be on its way out
            assert not thread.is_alive()
    assert len(opened) == 1001
    for database in opened:
        with pytest.raises(Exception, match="closed database"):
            database._connection.execute("SELECT 1")
