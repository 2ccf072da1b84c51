"""Agreement, against hand computation, against definitions spelled out, and in simulation."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.bench.statistics import auroc, interval, kappa, ranks, spearman

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12)
CLASSES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=2, max_size=12)


def test_tied_values_share_their_mean_rank():
    assert ranks([7, 3, 7, 9]) == [2.5, 1.0, 2.5, 4.0]
    assert ranks([]) == []


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        ([(1, 2), (2, 1), (3, 3)], 0.5),
        ([(1, 10), (2, 20), (3, 25)], 1.0),
        ([(1, 3), (2, 2), (3, 1)], -1.0),
        ([(1, 1), (1, 2), (2, 3)], math.sqrt(3) / 2),
        ([(1, 1), (1, 2)], None),
        ([], None),
    ],
)
def test_spearman_by_hand(pairs, value):
    assert spearman(pairs) == (None if value is None else pytest.approx(value))


@given(st.permutations(range(8)))
def test_spearman_without_ties_is_the_formula_of_rank_differences(order):
    squares = sum((i - rank) ** 2 for i, rank in enumerate(order))
    assert spearman(list(enumerate(order))) == pytest.approx(1 - 6 * squares / (8 * (64 - 1)))


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        ([(1, 1), (1, 1), (0, 0), (0, 0), (1, 0)], (0.8 - 0.48) / 0.52),
        ([(0, 1), (1, 0)], -1.0),
        ([(1, 1), (1, 1)], None),
        ([], None),
    ],
)
def test_kappa_by_hand(pairs, value):
    assert kappa(pairs) == (None if value is None else pytest.approx(value))


@given(PAIRS)
def test_kappa_is_agreement_beyond_that_of_every_pair_of_ratings(pairs):
    """Chance agreement is that of the one rater's ratings with all of the other's."""
    chance = sum(x == y for x, _ in pairs for _, y in pairs) / len(pairs) ** 2
    observed = sum(x == y for x, y in pairs) / len(pairs)
    expected = None if chance == 1 else pytest.approx((observed - chance) / (1 - chance))
    assert kappa(pairs) == expected


@given(CLASSES)
def test_auroc_is_the_share_of_pairs_in_order(pairs):
    good, bad = ([score for score, label in pairs if label == which] for which in (1, 0))
    wins = sum((g > b) + (g == b) / 2 for g in good for b in bad)
    assert auroc(pairs) == (pytest.approx(wins / (len(good) * len(bad))) if good and bad else None)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """Pairs of a normal score with correlation 0.5, in groups of one: Spearman's rho is (6/pi) asin(r/2)."""
    truth, dice, held = 6 / math.pi * math.asin(0.25), random.Random(3), 0
    for trial in range(60):
        xs = [dice.gauss(0, 1) for _ in range(60)]
        pairs = [(x, 0.5 * x + math.sqrt(0.75) * dice.gauss(0, 1)) for x in xs]
        found = interval(pairs, spearman, range(60), resamples=200, seed=trial)
        held += found.low <= truth <= found.high
    assert held >= 51  # of 60; with a chance of 0.95 each, fewer have a chance below 0.002


def test_samples_of_one_prompt_that_say_the_same_narrow_nothing():
    pairs = [(0.1, 0), (0.4, 1), (0.3, 0), (0.9, 1), (0.6, 0), (0.7, 1), (0.2, 1), (0.8, 0)]
    once = interval(pairs, auroc, range(8))
    often = interval(pairs * 5, auroc, [*range(8)] * 5)
    as_if_independent = interval(pairs * 5, auroc, range(40))
    assert often.high - often.low == pytest.approx(once.high - once.low, abs=0.1)
    assert as_if_independent.high - as_if_independent.low < (once.high - once.low) * 0.7


def test_an_interval_that_can_not_be_known_is_all_there_is():
    found = interval([(1, 1), (2, 0)], auroc, ["a", "a"])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0), "one group is always drawn whole"
    found = interval([(1, 1), (2, 0)], auroc, ["a", "b"])
    assert (found.low, found.high) == (-1.0, 1.0) or found.low <= found.value <= found.high
    assert interval([(1, 1)], auroc, ["a"]) is None
