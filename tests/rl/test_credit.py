"""Every estimator against numbers worked out by hand, and the laws that they share."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import InputError
from rewards import Score, gated
from rewards.compose import shaping
from rl.credit import CREDIT, credit, needs
from rl.credit.shapes import returns_to_go

Episodes = list[tuple[float, list[float | None]]]
ONE_TURN = [[None], [None], [None], [None]]
TWO = ([1.0, 0.0], [[0.2, 0.8], [0.6, 0.0]])
"""Outcomes and turn rewards that pull in opposite directions."""
MET = (
    [1.0, 1.0, 0.0],
    [[None] * 2, [None] * 3, [None] * 2],
    [["s0", "s1"], ["s0", "s0", "s1"], ["s0", "s2"]],
)
"""Three episodes through the same states."""
CRITIC_FREE = [name for name in CREDIT if "values" not in needs(name)]
WHOLE = ("grpo", "dr_grpo", "rloo", "reinforce_pp")
"""One advantage an episode."""

rewards = st.floats(-5, 5).map(lambda x: round(x, 3))
turns_of = st.lists(rewards | st.none(), min_size=1, max_size=4)
groups = st.lists(st.tuples(rewards, turns_of), min_size=2, max_size=6)


def near(expected: Any) -> Any:
    """Nested lists, to the five digits they are given with."""
    if isinstance(expected, list):
        return [near(item) for item in expected]
    return pytest.approx(expected, abs=1e-5)


def data(name: str, turns: Any) -> dict[str, Any]:
    """What an estimator needs beside scores: a few states, a critic that expects little, one token a turn."""
    given: dict[str, Any] = {
        "states": [[f"s{k % 2}" for k in range(len(row))] for row in turns],
        "values": [[0.1 * k for k in range(len(row))] for row in turns],
        "turn_ids": [list(range(len(row))) for row in turns],
    }
    return {key: given[key] for key in needs(name)}


def each(name: str, outcome: Any, turns: Any, **options: Any) -> Any:
    return credit(name, outcome, turns, **data(name, turns), **options)


BY_HAND: list[tuple[str, Any, Any, dict[str, Any], Any]] = [
    ("grpo", *TWO, {"process": 0.0}, [[0.707107] * 2, [-0.707107] * 2]),
    ("grpo", *TWO, {"process": 0.0, "ddof": 0}, [[1.0] * 2, [-1.0] * 2]),
    ("grpo", [1, 0, 0, 0], ONE_TURN, {}, [[1.5], [-0.5], [-0.5], [-0.5]]),
    ("grpo", [1, 0, 0, 0], ONE_TURN, {"ddof": 0}, [[1.732051], [-0.57735], [-0.57735], [-0.57735]]),
    ("dr_grpo", *TWO, {"process": 0.0}, [[0.5] * 2, [-0.5] * 2]),
    ("dr_grpo", [1, 0, 0, 0], ONE_TURN, {}, [[0.75], [-0.25], [-0.25], [-0.25]]),
    ("dr_grpo", *TWO, {}, [[0.7] * 2, [-0.7] * 2]),
    ("rloo", *TWO, {"process": 0.0}, [[1.0] * 2, [-1.0] * 2]),
    ("rloo", [1, 0, 0, 0], ONE_TURN, {}, [[1.0], [-0.333333], [-0.333333], [-0.333333]]),
    ("rloo", [1, 1, 0, 0], ONE_TURN, {}, [[0.666667], [0.666667], [-0.666667], [-0.666667]]),
    ("reinforce_pp", [1, 0], [[None], [None]], {"tokens": [[5], [6]]}, [[1.095445], [-0.912871]]),
    ("reinforce_pp", [1, 0], [[None], [None]], {"tokens": [[5], [6]], "ddof": 1}, [[1.044466], [-0.870388]]),
    ("reinforce_pp", [1, 0], [[None] * 2, [None]], {"tokens": [[2, 3], [6]]}, [[1.095445] * 2, [-0.912871]]),
    ("process_grpo", *TWO, {"ddof": 0}, [[0.632456, 1.264911], [-0.632456, -1.264911]]),
    ("process_grpo", *TWO, {}, [[0.547723, 1.095445], [-0.547723, -1.095445]]),
    (
        "process_grpo",
        [1, 0],
        [[0.2, 0.8, 0.5], [0.6, 0]],
        {"ddof": 0},
        [[0.840168, 1.610322, 0.280056], [-0.840168, -1.470294]],
    ),
    ("process_grpo", [0, 0], [[1, 1, 1], [0]], {"ddof": 0}, [[1.732051, 1.154701, 0.57735], [-1.732051]]),
    (  # the hard gate: turns of the failure count 0, the outcome is paid at the last turn
        "process_grpo",
        [1, 0],
        [[0.2, 0.8], [0.0, 0.0]],
        {"ddof": 0, "outcome_weight": 1.0},
        [[1.324532, 1.721892], [-1.324532, -0.662266]],
    ),
    (
        "process_grpo",
        [1, 0],
        [[0.2, None, 0.8], [0.6, 0.0]],
        {"ddof": 0},
        [[0.632456, 1.264911, 1.264911], [-0.632456, -1.264911]],
    ),
    (
        "mt_grpo",
        [1, 0, 0],
        [[0.5, None], [0.1, None], [0.3, None]],
        {},
        [[2.154701, 1.154701], [-1.57735, -0.57735], [-0.57735, -0.57735]],
    ),
    (
        "mt_grpo",
        [1, 0, 0],
        [[0.5, None], [0.1, None], [0.3, None]],
        {"ddof": 0},
        [[2.638958, 1.414214], [-1.931852, -0.707107], [-0.707107, -0.707107]],
    ),
    ("mt_grpo", *TWO, {}, [[0.0, 0.707107], [0.0, -0.707107]]),
    (  # who has ended is not compared with: first turns .5 and .1 have z +-.707107
        "mt_grpo",
        [1, 0, 0],
        [[0.5, None], [0.1, None], [0.9]],
        {},
        [[1.861807, 1.154701], [-1.284457, -0.57735], [-0.57735]],
    ),
    ("gigpo", *MET, {}, [[0.582708, 0.333333], [0.535208, 0.582708, 0.333333], [-1.367292, -0.666667]]),
    (
        "gigpo",
        *MET,
        {"by_row": True},
        [[0.535089, 0.285714], [0.487589, 0.535089, 0.285714], [-1.41491, -0.714286]],
    ),
    (  # R has std .57735; G at s0 (.95, .9025, .95, 0) has std .46762; s1 and s2 have none
        "gigpo",
        *MET,
        {"scale": True},
        [[1.110636, 0.57735], [1.009057, 1.110636, 0.57735], [-2.652979, -1.154701]],
    ),
    (
        "turn_return",
        [1, 0, 0],
        [[0.1, 0.3, None], [0.0, 0.2, None], [-0.1, 0.1, None]],
        {"ddof": 0},
        [[2.963407, 2.963407, 1.414214], [-0.707107, 0.06749, -0.707107], [-2.2563, -0.707107, -0.707107]],
    ),
    (
        "turn_return",
        [1, 0, 0],
        [[0.1, 0.3, None], [0.0, 0.2, None], [-0.1, 0.1, None]],
        {"ddof": 0, "by_turn": True, "root": True},
        [[3.146264, 2.638958, 1.414214], [-0.707107] * 3, [-2.439158, -1.931852, -0.707107]],
    ),
    ("turn_return", [1, 0], [[None, None], [None]], {"gamma": 0.5}, [[0.353553, 0.707107], [-0.707107]]),
    (  # z of (.1, 0, 0) is (1.414214, -.707107, -.707107): the judged 0 in the middle is a turn
        "turn_return",
        [0, 0],
        [[0.1, 0.0, None], [0.0, None]],
        {"ddof": 0},
        [[0.707107, -0.707107, 0.0], [-0.707107, 0.0]],
    ),
    (
        "return_to_go_loo",
        [1, 0, 0],
        [[0.0, 0.5], [1.0], [0.0, 0.0, 0.25]],
        {"scale": False},
        [[1.5 - 0.625, 1.5 - 0.125], [1.0 - 0.875], [0.25 - 1.25, 0.25 - 0.75, 0.25]],
    ),
    (
        "grouped_td",
        *MET,
        {},
        [[0.249375, 0.0], [0.178184, 0.249375, 0.0], [-0.700625, 0.0]],
    ),
]


@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: f"{case[0]} {case[-2] or ''}")
def test_an_estimator_equals_the_numbers_worked_out_by_hand(case: Any) -> None:
    name, outcome, turns, *states, options, expected = case
    bare = {} if name in ("dr_grpo", "rloo", "return_to_go_loo", "grouped_td") else {"eps": 0.0}
    assert credit(name, outcome, turns, *states, **bare, **options) == near(expected)


def test_grpo_with_its_eps_equals_the_numbers_worked_out_by_hand() -> None:
    advantages = credit("grpo", [1, 0, 0, 1], ONE_TURN)
    std = math.sqrt(4 * 0.25 / 3)
    assert [a for (a,) in advantages] == pytest.approx([0.5 / (std + 1e-4) * s for s in (1, -1, -1, 1)])
    assert advantages[0][0] == pytest.approx(0.86588, abs=1e-5)


def test_return_to_go_counts_ended_episodes_as_zero() -> None:
    advantages = credit("return_to_go_loo", [1, 0], [[0, 0], [0.5]], scale=False)
    assert advantages == [[pytest.approx(0.5), pytest.approx(1.0)], [pytest.approx(-0.5)]]


def test_return_to_go_is_scaled_by_all_that_it_is_compared_with() -> None:
    """The same return by ways of other lengths: the spread of whole returns is 0, and dividing by it has no bound."""
    std = math.sqrt(0.1875 * 2)
    assert credit("return_to_go_loo", [1, 1], [[None], [None, None]]) == [[0.0], [0.0, pytest.approx(1 / (std + 1e-4))]]
    shaped = credit("return_to_go_loo", [0, 0], [[0.4, 0.3, -0.7], [0.1, -0.1]])
    assert max(abs(a) for row in shaped for a in row) < 3


def test_turns_behind_a_closed_gate_are_judged_and_paid_nothing() -> None:
    """The turn rewards of `TWO` behind their outcomes, as the reward functions make them."""

    def score(value: float, turns: list[float | None]) -> Score:
        async def first(episode: Any, /) -> Score:
            return Score(value=value)

        async def then(episode: Any, /) -> Score:
            return Score(value=0.0, turns=tuple(turns))

        return asyncio.run(gated(first=first, then=then, zero=True)(None))

    scores = [score(r, row) for r, row in zip(*TWO, strict=True)]
    outcome, turns = [s.value for s in scores], [s.turns or () for s in scores]
    found = credit("process_grpo", outcome, turns, ddof=0, eps=0.0, outcome_weight=1.0)
    assert found == near([[1.324532, 1.721892], [-1.324532, -0.662266]])


@given(st.lists(st.tuples(rewards, st.lists(rewards, min_size=1, max_size=4)), min_size=2, max_size=6))
def test_shaping_moves_no_credit_between_episodes_and_takes_the_potential_off_the_return_to_go(
    group: list[tuple[float, list[float]]],
) -> None:
    """Episodes begin with the same potential, as they do in one state; here with 0."""
    outcome = [g[0] for g in group]
    potentials = [[0.0, *g[1][1:]] for g in group]
    plain, turns = [[0.0] * len(row) for row in potentials], [shaping(row, 1.0) for row in potentials]
    for name in ("grpo", "dr_grpo", "rloo"):
        for a, b in zip(credit(name, outcome, plain), credit(name, outcome, turns), strict=True):
            assert a == pytest.approx(b, abs=1e-6)
    assert returns_to_go([0.0], [[0.25, 0.5]], 1.0, 0.9) == [near([0.7, 0.5])]
    for r, row, found in zip(outcome, potentials, returns_to_go(outcome, turns, 1.0, 1.0), strict=True):
        assert found == pytest.approx([r - phi for phi in row], abs=1e-9)


CRITIC: list[tuple[str, Any, Any, dict[str, Any], Any]] = [
    ("gae", [1], [[0.5, 0]], {"lam": 1.0}, [[1.1, 1.0, 0.0, 0.4, 0.2]]),
    ("gae", [1], [[0.5, 0]], {}, [[1.021975, 0.9705, 0.0, 0.39, 0.2]]),
    ("gae", [None], [[0.5, 0]], {}, [[0.0] * 5]),
    ("gae", [1], [[0.5, 0]], {"process": 0.0, "lam": 0.0, "gamma": 0.5}, [[-0.15, -0.2, 0.0, -0.2, 0.2]]),
    ("gae", [1], [[0.5, 0]], {"turn_gamma": 0.95, "lam": 1.0}, [[1.05, 0.95, 0.0, 0.4, 0.2]]),
]


@pytest.mark.parametrize("case", CRITIC, ids=lambda case: str(case[3]))
def test_gae_by_the_token_equals_the_numbers_worked_out_by_hand(case: Any) -> None:
    name, outcome, turns, options, expected = case
    for at_the_tool in (9.0, -3.0, math.nan):
        places = {"values": [[0.4, 0.5, at_the_tool, 0.6, 0.8]], "turn_ids": [[0, 0, -1, 1, 1]]}
        assert credit(name, outcome, turns, **places, **options) == near(expected)


def test_gae_by_the_turn_equals_the_numbers_worked_out_by_hand() -> None:
    assert credit("gae_turn", [1], [[0.5, 0]], values=[[0.4, 0.6]]) == near([[1.0504, 0.4]])
    assert credit("gae_turn", [1], [[0.5, 0]], values=[[0.4, 0.6]], gamma=1.0, lam=1.0) == near([[1.1, 0.4]])
    assert credit("gae_turn", [0], [[1, 2]], values=[[1.0, 1.0]], gamma=0.5, lam=0.5) == near([[0.75, 1.0]])


def test_with_values_of_sampled_continuations_gae_by_the_turn_is_vineppos_advantage() -> None:
    assert credit("gae_turn", [1], [[None, None]], values=[[0.5, 0.75]], gamma=1.0, lam=0.0) == near([[0.25, 0.25]])


@given(st.lists(st.tuples(rewards, rewards), min_size=1, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_the_solution_of_its_linear_equations(
    steps: list[tuple[float, float]], gamma: float, lam: float
) -> None:
    """Independent: (I - gamma lam S) A = r + gamma S V - V with S the shift by one step, solved by numpy."""
    r, v = np.array(steps).T
    shift = np.eye(len(r), k=1)
    expected = np.linalg.solve(np.eye(len(r)) - gamma * lam * shift, r + gamma * shift @ v - v)
    turns = {"turn_ids": [list(range(len(r)))], "values": [v.tolist()], "gamma": gamma, "lam": lam}
    assert credit("gae", [0], [r.tolist()], **turns)[0] == pytest.approx(expected.tolist(), abs=1e-9)
    del turns["turn_ids"]
    assert credit("gae_turn", [0], [r.tolist()], **turns)[0] == pytest.approx(expected.tolist(), abs=1e-9)


@given(groups)
def test_whole_episode_estimators_agree_with_numpy(group: Episodes) -> None:
    outcome, turns = [g[0] for g in group], [g[1] for g in group]
    total = np.array([r + sum(x or 0.0 for x in row) for r, row in group])
    others = (total.sum() - total) / (len(total) - 1)
    expected = {
        "grpo": (total - total.mean()) / (total.std(ddof=1) + 1e-4),
        "dr_grpo": total - total.mean(),
        "rloo": total - others,
    }
    for name, values in expected.items():
        found = [row[0] for row in credit(name, outcome, turns)]
        assert found == pytest.approx(values.tolist(), abs=1e-6)
    tokens = [[3 * k + 1 for k in range(len(row))] for row in turns]
    each_token = np.repeat(expected["dr_grpo"], [sum(row) for row in tokens])
    white = (expected["dr_grpo"] - each_token.mean()) / (each_token.std() + 1e-4)
    found = [row[0] for row in credit("reinforce_pp", outcome, turns, tokens=tokens)]
    assert found == pytest.approx(white.tolist(), abs=1e-5)


@given(groups, st.floats(0, 1))
def test_return_to_go_agrees_with_numpy_on_padded_returns(group: Episodes, gamma: float) -> None:
    """Independent: a matrix of discounts, zero rows after the end, and the mean over all other rows."""
    outcome, turns = [g[0] for g in group], [g[1] for g in group]
    width = max(map(len, turns))
    paid = np.zeros((len(group), width))
    for i, (r, row) in enumerate(group):
        paid[i, : len(row)] = [x or 0.0 for x in row]
        paid[i, len(row) - 1] += r
    k = np.arange(width)
    to_go = paid @ np.tril(gamma ** np.maximum(k[:, None] - k[None, :], 0))
    advantages = to_go - (to_go.sum(axis=0) - to_go) / (len(group) - 1)
    found = credit("return_to_go_loo", outcome, turns, gamma=gamma, scale=False)
    for i, row in enumerate(found):
        assert row == pytest.approx(advantages[i, : len(row)].tolist(), abs=1e-9)


@given(groups)
def test_scaled_return_to_go_is_bounded_by_the_size_of_the_group(group: Episodes) -> None:
    """No number is further from the mean of n than sqrt(n - 1) of their standard deviations (Samuelson, 1968)."""
    found = credit("return_to_go_loo", [g[0] for g in group], [g[1] for g in group])
    size = len(group) * max(len(turns) for _, turns in group)
    assert all(abs(a) <= 3 * math.sqrt(size) for row in found for a in row)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(1, 4))
def test_scaled_return_to_go_of_equal_lengths_is_rloo_over_the_standard_deviation(
    outcome: list[float], length: int
) -> None:
    found = credit("return_to_go_loo", outcome, [[None] * length for _ in outcome])
    alone = credit("rloo", outcome, [[None] * length for _ in outcome])
    std = float(np.std(outcome, ddof=1)) + 1e-4
    assert [a for row in found for a in row] == pytest.approx([a / std for row in alone for a in row], abs=1e-6)


@pytest.mark.parametrize("name", CREDIT)
def test_an_unscored_episode_has_no_advantage_and_moves_nobody_elses(name: str) -> None:
    with_it = each(name, [1, None, 0], [[0.1], [0.7, 0.7], [0.2]])
    without = each(name, [1, 0], [[0.1], [0.2]])
    assert with_it[1] == [0.0, 0.0]
    assert [with_it[0], with_it[2]] == without


@pytest.mark.parametrize("name", CRITIC_FREE)
def test_a_lone_episode_and_an_even_group_teach_nothing(name: str) -> None:
    assert each(name, [1.0], [[0.3, 0.1, 0.2]]) == [[0.0] * 3]
    assert each(name, [1.0, None], [[0.3, 0.1], [0.9, 0.8]]) == [[0.0] * 2] * 2
    assert each(name, [0.5] * 3, [[0.2]] * 3) == [[pytest.approx(0.0, abs=1e-9)]] * 3
    assert each(name, [None, None], [[0.2], [0.3]]) == [[0.0], [0.0]]


@pytest.mark.parametrize("name", CREDIT)
@settings(max_examples=25)
@given(groups, st.randoms())
def test_the_order_of_a_group_does_not_matter(name: str, group: Episodes, r: random.Random) -> None:
    order = list(range(len(group)))
    r.shuffle(order)
    plain = each(name, [g[0] for g in group], [g[1] for g in group])
    mixed = each(name, [group[i][0] for i in order], [group[i][1] for i in order])
    for place, i in enumerate(order):
        assert mixed[place] == pytest.approx(plain[i], abs=1e-6)


@pytest.mark.parametrize("name", [*WHOLE, "mt_grpo", "turn_return", "process_grpo"])
@settings(max_examples=25)
@given(groups, rewards)
def test_a_constant_added_to_every_outcome_changes_nothing(name: str, group: Episodes, shift: float) -> None:
    turns = [g[1] for g in group]
    a = credit(name, [g[0] for g in group], turns)
    b = credit(name, [g[0] + shift for g in group], turns)
    assert [x for row in a for x in row] == pytest.approx([x for row in b for x in row], abs=1e-4)


@pytest.mark.parametrize("name", ["gigpo", "grouped_td", "return_to_go_loo"])
@settings(max_examples=25)
@given(st.lists(st.tuples(rewards, st.lists(rewards, min_size=3, max_size=3)), min_size=2, max_size=5), rewards)
def test_without_discount_and_in_step_the_same_holds_for_returns_to_go(
    name: str, group: Episodes, shift: float
) -> None:
    """A return-to-go shifts as a whole, and so does its baseline, if nobody has ended where others go on."""
    turns = [g[1] for g in group]
    given = {"states": [["a", "b", "b"]] * len(group)} if "states" in needs(name) else {}
    options = given | ({"scale": False} if name == "return_to_go_loo" else {}) | {"gamma": 1.0}
    a = credit(name, [g[0] for g in group], turns, **options)
    b = credit(name, [g[0] + shift for g in group], turns, **options)
    if name == "grouped_td":  # after the end the value is 0, and the outcome with it
        a, b = [row[:-1] for row in a], [row[:-1] for row in b]
    assert [x for row in a for x in row] == pytest.approx([x for row in b for x in row], abs=1e-6)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
@settings(max_examples=25)
@given(groups)
def test_the_advantages_of_a_group_sum_to_nothing(name: str, group: Episodes) -> None:
    found = credit(name, [g[0] for g in group], [g[1] for g in group])
    assert sum(row[0] for row in found) == pytest.approx(0.0, abs=1e-6)


@given(groups)
def test_rloo_is_dr_grpo_times_g_over_g_minus_one(group: Episodes) -> None:
    outcome, turns = [g[0] for g in group], [g[1] for g in group]
    scale = len(group) / (len(group) - 1)
    for a, b in zip(credit("rloo", outcome, turns), credit("dr_grpo", outcome, turns), strict=True):
        assert a == pytest.approx([scale * x for x in b], abs=1e-6)


@given(groups)
def test_where_no_state_is_met_twice_gigpo_is_grpo_without_the_division(group: Episodes) -> None:
    outcome, turns = [g[0] for g in group], [g[1] for g in group]
    states = [[f"{i}/{k}" for k in range(len(row))] for i, row in enumerate(turns)]
    for a, b in zip(credit("gigpo", outcome, turns, states), credit("dr_grpo", outcome, turns), strict=True):
        assert a == pytest.approx(b, abs=1e-9)


@pytest.mark.parametrize("name", CREDIT)
def test_process_weight_zero_is_the_outcome_alone(name: str) -> None:
    turns = [[0.3, None], [0.0], [-1.0, 2.0]]
    none = [[None] * len(row) for row in turns]
    options = {"outcome_weight": 1.0} if name == "process_grpo" else {}
    without = each(name, [1, 0, 0.5], none, **options)
    assert each(name, [1, 0, 0.5], turns, process=0.0, **options) == without
    assert any(a for row in without for a in row)


@pytest.mark.parametrize("name", ["process_grpo", "mt_grpo", "turn_return"])
def test_a_judged_zero_is_a_turn_and_an_unjudged_one_is_none(name: str) -> None:
    outcome, rest = [0, 0, 0], [[0.5, 0.4], [0.1, 0.3]]
    zero, none = ([[a, a], *rest] for a in (0.0, None))
    assert each(name, outcome, zero) != each(name, outcome, none)
    others = each(name, outcome[1:], rest)
    assert each(name, outcome, none)[1:] == others, "an unjudged turn moved the statistics of the judged"


def test_without_turn_rewards_there_is_one_turn_or_as_many_as_states() -> None:
    assert credit("rloo", [1, 0]) == [[1.0], [-1.0]]
    assert [len(row) for row in credit("gigpo", [1, 0], states=[["a", "b"], ["a"]])] == [2, 1]


def test_an_episode_without_turns_counts_and_has_no_advantages() -> None:
    for name in CRITIC_FREE:
        found = each(name, [0.0, 1.0], [[], [0.5, 0.1]])
        assert found[0] == [] and len(found[1]) == 2
    assert credit("rloo", [0.0, 1.0], [[], [None]])[1] == [1.0]


REFUSED: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    r"no estimator 'grp'.*grpo": ("grp", ([1], [[0]]), {}),
    r"return_to_go_loo: unknown option 'gama'; did you mean 'gamma'": (
        "return_to_go_loo",
        ([1, 0], [[0], [0]]),
        {"gama": 0.9},
    ),
    r"outcome, entry 0 of episode 1 is nan": ("grpo", ([1, math.nan], [[0], [0]]), {}),
    r"reward of turn 1 of episode 0 is inf": ("rloo", ([1], [[0, math.inf]]), {}),
    r"value 1 of episode 0 is nan": ("gae_turn", ([1], [[0, 0]]), {"values": [[0.0, math.nan]]}),
    r"2 outcomes, 1 lists": ("grpo", ([1, 0], [[0]]), {}),
    r"gigpo needs states": ("gigpo", ([1, 0], [[0], [0]]), {}),
    r"gae needs turn_ids and values": ("gae", ([1, 0], [[0], [0]]), {}),
    r"states of episode 1 has 2 entries, where there are 1": ("gigpo", ([1, 0], [[0], [0]], [["a"], ["a", "b"]]), {}),
    r"values of 1 episodes, where there are 2": ("gae_turn", ([1, 0], [[0], [0]]), {"values": [[0.0]]}),
    r"tokens of episode 0 has 1 entries": ("reinforce_pp", ([1], [[0, 0]]), {"tokens": [[1]]}),
    r"turn_ids of episode 0 must go through its turns 0 to 1 in order": (
        "gae",
        ([1], [[0, 0]]),
        {"values": [[0.0, 0.0]], "turn_ids": [[1, 0]]},
    ),
    r"each with at least one token; they go through \[0\]": (
        "gae",
        ([1], [[0, 0]]),
        {"values": [[0.0]], "turn_ids": [[0]]},
    ),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_cant_be_used_is_refused_by_name(says: str) -> None:
    name, given, options = REFUSED[says]
    with pytest.raises(InputError, match=says):
        credit(name, *given, **options)
