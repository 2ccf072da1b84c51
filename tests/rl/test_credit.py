import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import InputError
from rl.credit import CREDIT, credit

Episodes = list[tuple[float, list[float]]]
ONE_TURN = [[None], [None], [None], [None]]
rewards = st.floats(-5, 5)
groups = st.lists(st.tuples(rewards, st.lists(rewards, min_size=1, max_size=4)), min_size=2, max_size=6)


def test_grpo_equals_the_numbers_worked_out_by_hand() -> None:
    advantages = credit("grpo", [1, 0, 0, 1], ONE_TURN)
    std = math.sqrt(4 * 0.25 / 3)
    assert [a for (a,) in advantages] == pytest.approx([0.5 / (std + 1e-4) * s for s in (1, -1, -1, 1)])
    assert advantages[0][0] == pytest.approx(0.86588, abs=1e-5)


def test_rloo_is_the_distance_to_the_mean_of_the_others() -> None:
    advantages = credit("rloo", [1.0, 0.0, 0.25, 0.75], ONE_TURN)
    assert [a for (a,) in advantages] == pytest.approx([1 - 1 / 3, -2 / 3, 0.25 - 1.75 / 3, 0.75 - 1.25 / 3])


def test_return_to_go_counts_ended_episodes_as_zero() -> None:
    advantages = credit("return_to_go_loo", [1, 0], [[0, 0], [0.5]], scale=False)
    assert advantages == [[pytest.approx(0.5), pytest.approx(1.0)], [pytest.approx(-0.5)]]


def test_an_unscored_episode_has_no_advantage_and_moves_nobody_elses() -> None:
    for name in CREDIT:
        with_it = credit(name, [1, None, 0], [[0.1], [0.7, 0.7], [0.2]])
        without = credit(name, [1, 0], [[0.1], [0.2]])
        assert with_it[1] == [0.0, 0.0]
        assert [with_it[0], with_it[2]] == without


@pytest.mark.parametrize("name", CREDIT)
def test_a_lone_episode_and_an_even_group_teach_nothing(name: str) -> None:
    assert credit(name, [1.0], [[0.3, 0.1]]) == [[0.0, 0.0]]
    assert credit(name, [0.5] * 3, [[0.2]] * 3) == [[pytest.approx(0.0, abs=1e-9)]] * 3


@pytest.mark.parametrize("name", CREDIT)
@given(groups, st.randoms())
def test_the_order_of_a_group_does_not_matter(name: str, group: Episodes, r: random.Random) -> None:
    order = list(range(len(group)))
    r.shuffle(order)
    plain = credit(name, [g[0] for g in group], [g[1] for g in group])
    mixed = credit(name, [group[i][0] for i in order], [group[i][1] for i in order])
    for place, i in enumerate(order):
        assert mixed[place] == pytest.approx(plain[i], abs=1e-6)


@given(groups, rewards)
def test_a_constant_added_to_every_outcome_changes_nothing(group: Episodes, shift: float) -> None:
    turns = [g[1] for g in group]
    for name in ("grpo", "dr_grpo", "rloo"):
        a = credit(name, [g[0] for g in group], turns)
        b = credit(name, [g[0] + shift for g in group], turns)
        assert [x for row in a for x in row] == pytest.approx([x for row in b for x in row], abs=1e-5)


@given(groups)
def test_rloo_is_dr_grpo_times_g_over_g_minus_one(group: Episodes) -> None:
    outcome, turns = [g[0] for g in group], [g[1] for g in group]
    scale = len(group) / (len(group) - 1)
    for a, b in zip(credit("rloo", outcome, turns), credit("dr_grpo", outcome, turns), strict=True):
        assert a == pytest.approx([scale * x for x in b], abs=1e-6)


@pytest.mark.parametrize("name", CREDIT)
def test_process_weight_zero_is_the_outcome_alone(name: str) -> None:
    turns = [[0.3, None], [0.0], [-1.0, 2.0]]
    none = [[None] * len(row) for row in turns]
    assert credit(name, [1, 0, 0.5], turns, process=0.0) == credit(name, [1, 0, 0.5], none)


def test_bad_names_options_and_numbers_are_refused() -> None:
    with pytest.raises(InputError, match=r"no estimator 'grp'.*grpo"):
        credit("grp", [1], [[0]])
    with pytest.raises(InputError, match="gama"):
        credit("return_to_go_loo", [1, 0], [[0], [0]], gama=0.9)
    with pytest.raises(ValueError, match="nan"):
        credit("grpo", [math.nan], [[0]])
    with pytest.raises(ValueError, match="2 outcomes, 1 lists"):
        credit("grpo", [1, 0], [[0]])
