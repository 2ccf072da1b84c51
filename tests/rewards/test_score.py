"""From what a function returns to a score that can be trusted."""

import asyncio
import math
from fractions import Fraction

import pytest

from envs import InputError, Stop
from rewards import Score, reward


def scored(function, episode, **options):
    return asyncio.run(reward(function, **options)(episode))


@pytest.mark.parametrize("value", [1, 1.0, True, Fraction(1, 1)])
def test_a_number_is_a_score_with_a_part_of_the_functions_name(played, value):
    def correct(episode):
        return value

    score = scored(correct, played("yes"))
    assert score == Score(value=1.0, parts={"correct": 1.0})
    assert type(score.value) is float


def test_an_async_function_is_awaited_and_options_are_passed_on(played):
    async def correct(episode, *, wanted):
        return episode.answer == wanted

    assert scored(correct, played("yes"), wanted="yes").value == 1.0
    assert scored(correct, played("no"), wanted="yes").value == 0.0


def test_a_name_may_be_given(played):
    assert scored(lambda episode: 1, played("yes"), name="right").parts == {"right": 1.0}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "judge returned None"),
        (math.nan, "judge is nan"),
        (-math.inf, "judge is -inf"),
        (Score(value=math.nan), "judge is nan"),
        (Score(value=0, turns=(0.5, math.nan)), "judge, turn 1 is nan"),
        (Score(value=0, turns=(None, None), parts={"style": math.inf}), "judge, part style is inf"),
        (Score(value=0, turns=(0.5,)), "judge judged 1 turns of an episode that has 2"),
        (Score(value=0, turns=()), "judge judged 0 turns of an episode that has 2"),
        (Score(value=0, turns=(0.5, None, 0.5)), "judge judged 3 turns of an episode that has 2"),
        (Score.unscored("the judge is down"), "the judge is down"),
    ],
)
def test_what_can_not_be_trusted_is_no_score_and_says_why(played, value, said):
    score = scored(lambda episode: value, played("yes", calls=[["look"]]), name="judge")
    assert score.error == said
    assert math.isnan(score.value)


def test_turns_become_a_tuple_of_floats(played):
    score = scored(lambda episode: Score(value=1, turns=[1, None]), played("yes", calls=[["look"]]))
    assert score.turns == (1.0, None)
    assert type(score.turns[0]) is float
    hash(score.turns)


@pytest.mark.parametrize("value", ["1", [1], object(), Score(value="1"), Score(value=1, turns=("a",))])
def test_what_is_no_number_is_a_bug_that_names_the_reward(played, value):
    with pytest.raises(TypeError, match="reward 'judge' returned"):
        scored(lambda episode: value, played("yes"), name="judge")


def test_an_error_of_the_function_is_seen(played):
    def broken(episode):
        return episode.task.item["missing"]

    with pytest.raises(KeyError, match="missing"):
        scored(broken, played("yes"))


def test_input_that_can_not_be_judged_is_one_episode_unscored(played):
    def picky(episode):
        raise InputError("the row has no answer")

    assert scored(picky, played("yes")).error == "picky: the row has no answer"


@pytest.mark.parametrize("stop", [Stop.FAULT, Stop.ENV_LOST])
def test_an_episode_that_broke_is_not_judged(played, stop):
    score = scored(lambda episode: 1 / 0, played("yes", stop=stop, fault="the sandbox died"))
    assert score.error == "the episode broke: the sandbox died"


def test_the_total_is_the_value_and_the_turns():
    assert Score(value=1.0).total == 1.0
    assert Score(value=1.0, turns=(0.25, None, 0.5)).total == 1.75
    assert math.isnan(Score.unscored("x").total)
