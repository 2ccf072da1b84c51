"""Rewards as configs write them."""

import asyncio
import sys
import textwrap

import pytest
import yaml

from envs import InputError
from rewards import REWARDS, Score, build

DESK = """
outcome: {use: state_equal, require: [done, answered, no_violations]}
process: {use: progress, weight: 0.25}
tidy: {use: no_repeats, weight: 0.5, per_turn: false}
"""


def run(spec, episode):
    return asyncio.run(build(yaml.safe_load(spec) if isinstance(spec, str) and "\n" in spec else spec)(episode))


@pytest.fixture
def desk(played):
    def make(database="as it should be"):
        steps = [
            {"call_id": "0", "tool": "look", "progress": True},
            {"call_id": "1", "tool": "look", "repeat": True},
        ]
        state = {"database": database, "goal": "as it should be", "violations": [], "steps": steps}
        return played("Done.", calls=[["look"], ["look"]], state=state)

    return make


def test_a_desk_config_reads_as_it_pays(desk):
    assert run(DESK, desk()) == Score(
        value=0.5, turns=(0.25, 0.0, None), parts={"outcome": 1.0, "process": 1.0, "tidy": -1.0}
    )
    assert run(DESK, desk("wrong")).value == -0.5


def test_success_at_the_desk_is_one_line(desk):
    spec = yaml.safe_load("{use: state_equal, require: [done, answered, no_violations]}")
    assert [run(spec, desk()).value, run(spec, desk("wrong")).value] == [1.0, 0.0]


def test_a_name_alone_is_a_reward(played):
    assert run("exact", played("4", item={"answer": "4"})) == Score(value=1.0, parts={"exact": 1.0})
    assert run({"right": "exact"}, played("4", item={"answer": "4"})).parts == {"right": 1.0}


def test_a_gate_is_made_of_specs(played):
    spec = """
    use: gated
    threshold: 0.5
    first: {use: numeric, tolerance: 1}
    then:
      tidy: {use: no_repeats, weight: 2}
      form: valid_calls
    """
    episode = played("4", calls=[["look"], ["look"]], item={"answer": 5})
    assert run(spec, episode) == Score(
        value=1.0,
        turns=(0.0, -2.0, None),
        parts={"first": 1.0, "then": -2.0, "then.tidy": -1.0, "then.form": 0.0, "open": 1.0},
    )


def test_every_reward_of_the_house_has_its_own_name_and_can_be_built():
    check = {"type": "string_check", "input": "a", "reference": "b", "operation": "eq"}
    needed = {
        "in_order": {"order": ["a", "b"]},
        "gated": {"first": "exact", "then": "exact"},
        "capped": {"part": "progress", "limit": 0.3},
        "shaped": {"potential": "progress"},
        "min_form": {"part": "progress"},
        "grader": {"grader": check},
        "flagged": {"fact": "needless"},
        "rubric": {"model": "m", "judge": {"base_url": "http://x"}, "criteria": [{"name": "a", "says": "It is so."}]},
        "relative": {"model": "m", "judge": {"base_url": "http://x"}},
    }
    own = {name: function for name, function in REWARDS.items() if function.__module__.startswith("rewards.")}
    assert REWARDS.keys() - own.keys() <= {"learned"}, "which the floor above adds, and tests"
    for name, function in own.items():
        assert name == function.__name__
        assert callable(build({"use": name} | needed.get(name, {})))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working directory."""
    code = """
    from __future__ import annotations
    from rewards import Reward, Score, reward, weighted
    from envs import Episode

    def correct(episode: Episode, *, answer: str = "4") -> float:
        return float(episode.answer == answer)

    async def slow(episode):
        return 0.5

    def maker(*, wanted: str) -> Reward:
        return reward(correct, answer=wanted)

    made = weighted({"a": (reward(correct), 1.0), "b": (reward(slow), 1.0)})
    number = 3
    """
    (tmp_path / "own_rewards.py").write_text(textwrap.dedent(code))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())


def test_rewards_of_ones_own_are_functions_makers_or_rewards(own, played):
    assert run("own_rewards:correct", played("4")) == Score(value=1.0, parts={"correct": 1.0})
    assert run({"use": "own_rewards:correct", "answer": "5"}, played("4")).value == 0.0
    assert run("own_rewards:slow", played("4")).value == 0.5
    assert run({"use": "own_rewards:maker", "wanted": "5"}, played("5")).value == 1.0
    assert run("own_rewards:made", played("4")).value == 1.5


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("exat", "reward.use: unknown reward 'exat'; did you mean 'exact'"),
        ({"outcome": {"use": "exat"}}, r"reward\.outcome\.use: unknown reward 'exat'; did you mean 'exact'"),
        ({"use": "exact", "feild": "x"}, "reward: unknown option 'feild'; did you mean 'field'"),
        ({"a": {"use": "exact", "wieght": 1}}, r"reward\.a: unknown option 'wieght'"),
        ({"use": "numeric", "tolerance": "1"}, r"reward\.tolerance: Input should be a valid number"),
        ({"use": "exact", "require": ["don"]}, r"reward\.require: 0: Input should be 'done', 'answered' or"),
        ({"use": "exact", "require": "done"}, r"reward\.require: "),
        ({"use": "exact", "ignore_case": 1}, r"reward\.ignore_case: Input should be a valid boolean"),
        ({"use": "in_order"}, "reward: the option 'order' is missing"),
        ({"use": "exact", "episode": 1}, "unknown option 'episode'"),
        ({"use": "exact", "weight": 2}, r"reward\.weight has a meaning only among several parts"),
        ({"use": "exact", "per_turn": True}, r"reward\.per_turn has a meaning only among several parts"),
        ({"a": {"use": "exact", "weight": "2"}}, r"reward\.a\.weight: expected a number, found '2'"),
        ({"a": {"use": "exact", "weight": True}}, r"reward\.a\.weight: expected a number"),
        ({"a": {"use": "exact", "weight": float("nan")}}, r"reward\.a\.weight: expected a number"),
        ({"a": {"use": "exact", "per_turn": 0}}, r"reward\.a\.per_turn: expected true or false"),
        ({"a": {"weight": 1.0}}, r"reward\.a: "),
        ({"field": 3}, r"reward\.field: expected a name or a mapping with 'use'"),
        ({"use": 3}, r"reward\.use: expected a name, found 3"),
        ({}, "reward: expected a name or a mapping with 'use'"),
        (None, "reward: expected a name or a mapping with 'use'"),
        (["exact"], "reward: expected a name or a mapping with 'use'"),
        ({"use": "gated", "first": "exact", "then": "exat"}, r"reward\.then\.use: unknown reward 'exat'"),
        ({"use": "gated", "first": "exact"}, "the option 'then' is missing"),
        ("no_such_module:correct", r"reward\.use: .*can't import no_such_module"),
        ("own_rewards:corect", r"reward\.use: .*unknown attribute 'corect'; did you mean 'correct'"),
        ("own_rewards:number", r"reward\.use: own_rewards:number is no function"),
        ({"use": "own_rewards:correct", "anwser": 1}, "unknown option 'anwser'; did you mean 'answer'"),
        ({"use": "own_rewards:correct", "answer": 1}, r"reward\.answer: Input should be a valid string"),
        ("own_rewards:maker", "the option 'wanted' is missing"),
    ],
)
def test_a_spec_that_makes_no_reward_is_refused_and_says_where(own, spec, said):
    with pytest.raises(InputError, match=said) as error:
        build(spec)
    assert "\n" not in str(error.value)


def test_the_key_it_came_from_is_named():
    with pytest.raises(InputError, match=r"eval\.reward\.use: unknown"):
        build("exat", where="eval.reward")
