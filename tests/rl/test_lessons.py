"""What the embedded policy is taught: real episodes of careless people who know the job."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from envs.analyst import COUNTS, Analyst, Slips, demonstration
from envs.errors import InputError
from rl import tiny
from rl.config import parse
from rl.lessons import LESSONS, demonstrations, options

TREE = {"model": "tiny", "reward": {}, "output_dir": "runs/x"}
CAREFUL = Slips(blind=0, guess=0, broad=0, other=0, misread=0)


def solved(episode: object) -> bool:
    state = episode.state  # type: ignore[attr-defined]
    return bool(state["answer"] == state["goal"]) and not state["violations"]


def test_a_careful_analyst_is_the_expert() -> None:
    for task in Analyst.tasks("train", difficulty="easy", count=60):
        assert demonstration(task, random.Random(0), CAREFUL) == Analyst.expert(task)


def test_about_half_of_the_analysts_demonstrations_succeed() -> None:
    episodes = demonstrations(400, "analyst")
    assert 0.4 < sum(map(solved, episodes)) / len(episodes) < 0.6


@pytest.mark.parametrize("slip", ["guess", "broad", "other", "misread"])
def test_each_slip_of_an_analyst_costs_the_task(slip: str) -> None:
    always = demonstrations(60, "analyst", slips=Slips(**{**dict.fromkeys(Slips.__slots__, 0.0), slip: 1.0}))
    assert sum(map(solved, always)) < 6  # chance: another way to the same number


def test_demonstrations_are_of_tasks_that_no_default_run_plays() -> None:
    taught = {episode.task.id for episode in demonstrations(300, "analyst")}
    for split in COUNTS:
        assert not taught & {task.id for task in Analyst.tasks(split, difficulty="easy")}


@pytest.mark.parametrize("lesson", LESSONS)
def test_demonstrations_are_the_same_for_the_same_seed(lesson: str) -> None:
    first, again, other = (demonstrations(30, lesson, seed=seed) for seed in (1, 1, 2))  # type: ignore[arg-type]
    assert [e.messages for e in first] == [e.messages for e in again]
    assert [e.messages for e in first] != [e.messages for e in other]
    assert Counter(e.env for e in first) == {lesson: 30}


def test_the_embedded_policy_is_taught_the_job_that_is_played() -> None:
    assert tiny.recipe_of(parse({**TREE, "env": {"use": "analyst"}})).lesson == "analyst"
    assert tiny.recipe_of(parse({**TREE, "env": {"use": "desk"}})).lesson == "desk"
    assert tiny.recipe_of(parse({**TREE, "env": {"use": "analyst"}, "tiny": {"lesson": "desk"}})).lesson == "desk"


def test_an_option_of_another_lesson_is_refused() -> None:
    assert options("analyst") == ("slips",)
    with pytest.raises(InputError, match=r"tiny\.orders would have no effect: it is of lesson 'desk'"):
        tiny.recipe_of(parse({**TREE, "env": {"use": "analyst"}, "tiny": {"orders": [1, 1]}}))
