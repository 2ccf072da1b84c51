"""What is done to advantages after the estimator: whitening, rescaling, the soft gate, annealing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import InputError
from rl.credit import credit
from rl.credit.batch import Spread, rescaled, spread_of, whitened
from rl.credit.say import annealed, soft_gate

numbers = st.floats(-4, 4).map(lambda x: round(x, 3))
batches = st.lists(st.lists(st.tuples(numbers, st.integers(0, 9)), min_size=1, max_size=4), min_size=1, max_size=6)


def taken_apart(batch: list[list[tuple[float, int]]]) -> tuple[list[list[float]], list[list[int]], np.ndarray]:
    advantages = [[a for a, _ in row] for row in batch]
    tokens = [[n for _, n in row] for row in batch]
    return advantages, tokens, np.array([a for row in batch for a, n in row for _ in range(n)])


@given(batches)
def test_a_spread_is_that_of_every_single_token(batch: list[list[tuple[float, int]]]) -> None:
    advantages, tokens, flat = taken_apart(batch)
    found = spread_of(advantages, tokens)
    assert found.tokens == len(flat)
    if len(flat) > 1:
        assert found.mean == pytest.approx(flat.mean(), abs=1e-9)
        assert found.std(0) == pytest.approx(flat.std(), abs=1e-6)
        assert found.std(1) == pytest.approx(flat.std(ddof=1), abs=1e-6)
        assert found.rms == pytest.approx(math.sqrt((flat**2).mean()), abs=1e-9)
        assert found.share == pytest.approx((flat != 0).mean())


@given(batches, batches)
def test_the_spreads_of_two_processes_add_up_to_that_of_both(
    one: list[list[tuple[float, int]]], other: list[list[tuple[float, int]]]
) -> None:
    both = spread_of(*taken_apart(one + other)[:2])
    added = sum([spread_of(*taken_apart(part)[:2]) for part in (one, other)], Spread())
    assert (added.tokens, added.moved) == (both.tokens, both.moved)
    assert (added.total, added.squares) == pytest.approx((both.total, both.squares))


@given(batches)
def test_whitened_tokens_have_mean_0_and_std_1(batch: list[list[tuple[float, int]]]) -> None:
    advantages, tokens, flat = taken_apart(batch)
    white = whitened(advantages, spread_of(advantages, tokens), eps=0.0)
    after = spread_of(white, tokens)
    if len(flat) > 1 and flat.std() > 1e-3:
        assert (after.mean, after.std(0)) == pytest.approx((0.0, 1.0), abs=1e-6)


@given(batches, st.floats(0.1, 3))
def test_rescaling_sets_the_size_of_the_step_and_nothing_else(batch: list[list[tuple[float, int]]], rms: float) -> None:
    advantages, tokens, _ = taken_apart(batch)
    before = spread_of(advantages, tokens)
    made = rescaled(advantages, before, rms=rms)
    if before.rms:
        assert spread_of(made, tokens).rms == pytest.approx(rms)
        for row, scaled in zip(advantages, made, strict=True):
            assert scaled == pytest.approx([a * rms / before.rms for a in row])


def test_rescaling_by_hand_and_of_nothing() -> None:
    over = spread_of([[3.0], [-1.0]], [[1], [1]])
    assert rescaled([[3.0], [-1.0]], over) == [[pytest.approx(1.34164, abs=1e-5)], [pytest.approx(-0.44721, abs=1e-5)]]
    assert rescaled([[0.0, 0.0]], spread_of([[0.0, 0.0]], [[4, 1]])) == [[0.0, 0.0]]
    assert (Spread().mean, Spread().rms, Spread().share, Spread().std(1)) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("outcome", [[1.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
def test_arms_of_different_scale_are_the_same_arm_once_rescaled(outcome: list[float]) -> None:
    tokens = [[5] for _ in outcome]
    arms = [credit("rloo", [scale * r for r in outcome]) for scale in (1.0, 7.0)]
    one, other = (rescaled(arm, spread_of(arm, tokens)) for arm in arms)
    assert one == [pytest.approx(row) for row in other]


def test_the_soft_gate_equals_the_numbers_worked_out_by_hand() -> None:
    made = soft_gate([[1.0, 1.0], [-1.0]], [1, 0], [[1.0, 0.0], [0.5]], ddof=0, eps=0.0)
    assert made == [pytest.approx([20 / 11, 2 / 11]), pytest.approx([-1.0])]


def test_of_a_failure_the_worse_turn_bears_more() -> None:
    better, worse = soft_gate([[-1.0, -1.0]], [0], [[0.5, 0.1]], strength=0.5)[0]
    assert worse < better < 0


turns_of = st.lists(numbers | st.none(), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), turns_of), min_size=2, max_size=5), st.floats(0, 5))
def test_the_soft_gate_only_moves_credit_within_an_episode(
    group: list[tuple[float, list[float | None]]], strength: float
) -> None:
    outcome, turns = [g[0] for g in group], [g[1] for g in group]
    plain = credit("grpo", outcome, [[None] * len(row) for row in turns])
    for before, after in zip(plain, soft_gate(plain, outcome, turns, strength=strength), strict=True):
        assert sum(after) == pytest.approx(sum(before), abs=1e-9)
        assert all(np.sign(a) == np.sign(b) for a, b in zip(before, after, strict=True))
    untouched = soft_gate(plain, outcome, turns, strength=0.0)
    assert untouched == plain


def test_a_gate_for_other_turns_is_refused() -> None:
    with pytest.raises(InputError, match="advantages of episode 0 has 1 entries, where there are 2"):
        soft_gate([[1.0]], [1], [[0.1, 0.2]])


@pytest.mark.parametrize(("done", "left"), [(0.0, 1.0), (0.5, 1.0), (0.65, 0.5), (0.8, 0.0), (1.0, 0.0)])
def test_annealing_by_hand(done: float, left: float) -> None:
    assert annealed(done, 0.5, 0.8) == pytest.approx(left)
