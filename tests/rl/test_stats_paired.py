"""Tests and intervals for arms paired by seed, against brute force and by simulation."""

from __future__ import annotations

import random
from itertools import product
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import InputError
from rl.stats import (
    compare,
    detectable_effect,
    fewest_seeds,
    holm,
    iqm,
    probability_of_improvement,
    seeds_needed,
    sign_flip,
    stratified_bootstrap,
    tasks_needed,
    typical_interval,
)
from rl.stats.runs import student

DIFFERENCES = st.lists(st.integers(-20, 20).map(lambda n: n / 8), min_size=1, max_size=9)  # sums of these are exact


@given(DIFFERENCES)
def test_the_sign_flip_p_is_the_share_of_all_flips_as_far_out(differences: list[float]) -> None:
    """Independent: all 2^n signs one by one."""
    seen = abs(sum(differences))
    flips = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    assert sign_flip(differences) == pytest.approx(sum(flip >= seen for flip in flips) / len(flips))


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=9), st.floats(-3, 3))
def test_the_interval_is_what_the_test_does_not_reject(differences: list[float], shift: float) -> None:
    found = typical_interval(differences)
    assert found is not None
    if min(abs(shift - found.low), abs(shift - found.high)) > 1e-6:
        assert (found.low < shift < found.high) == (sign_flip([d - shift for d in differences]) > 0.05)


def test_of_six_seeds_the_interval_goes_from_the_smallest_to_the_largest_difference() -> None:
    found = typical_interval([0.3, 0.1, 0.2, 0.6, 0.5, 0.4])
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.35, 0.1, 0.6))
    assert typical_interval([0.1] * 5) is None


def test_many_seeds_are_tested_with_flips_drawn_at_random() -> None:
    dice = random.Random(1)
    differences = [dice.gauss(0.45, 1) for _ in range(30)]
    normal = fmean(differences) / (np.std(differences) / 30**0.5)
    assert sign_flip(differences) == sign_flip(differences)
    assert sign_flip(differences) == pytest.approx(2 * (1 - NormalDist().cdf(abs(normal))), abs=0.01)
    found = typical_interval(differences)
    assert found is not None and found.low < fmean(differences) < found.high


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (5, 8)])
def test_the_fewest_seeds_are_those_whose_least_p_passes(comparisons: int, seeds: int) -> None:
    assert fewest_seeds(comparisons) == seeds
    assert 2 / 2**seeds <= 0.05 / comparisons < 2 / 2 ** (seeds - 1)
    assert sign_flip([1.0] * seeds) == 2 / 2**seeds


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_p_itself_and_bonferroni(ps: list[float]) -> None:
    for p, adjusted in zip(ps, holm(ps), strict=True):
        assert p <= adjusted <= min(1.0, len(ps) * p) or adjusted == max(holm(ps))
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert [holm(ps)[i] for i in order] == sorted(holm(ps))


def test_too_few_seeds_are_a_pilot_without_p() -> None:
    found = compare({"process": [0.1, 0.2, 0.3]})["process"]
    assert (found.p, found.adjusted, found.interval) == (None, None, None)
    assert (
        str(found) == "+0.200 over 3 paired seeds; a pilot: among 1 comparisons it takes 6 seeds to come to p <= 0.05"
    )


def test_a_pilot_takes_no_part_in_the_correction_of_the_others() -> None:
    six = [0.1, 0.2, 0.3, 0.1, 0.2, 0.15]
    found = compare({"process": six, "ppo": six[:3]})
    assert found["process"].p == found["process"].adjusted == 2 / 64
    assert found["ppo"].p is None and "among 2 comparisons it takes 7 seeds" in str(found["ppo"])
    assert str(found["process"]) == "+0.175 over 6 paired seeds [+0.100, +0.300], p = 0.031"


def test_of_equally_many_seeds_either_all_are_tested_or_none() -> None:
    seven = [0.1, 0.2, 0.3, 0.1, 0.2, 0.15, 0.1]
    none = compare({"a": seven[:6], "b": seven[:6]})
    assert [found.p for found in none.values()] == [None, None]
    both = compare({"a": seven, "b": seven})
    assert [found.adjusted for found in both.values()] == pytest.approx([4 / 128] * 2)


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [float("inf")]])
def test_an_arm_without_finite_differences_is_refused_by_name(bad: list[float]) -> None:
    with pytest.raises(InputError, match="ppo: needs a finite difference for every seed"):
        compare({"ppo": bad})


def null_ablation(dice: random.Random, arms: int, seeds: int) -> dict[str, list[float]]:
    """Arms that do not differ: a seed is lucky for all of them, and each measures 200 tasks."""
    differences: dict[str, list[float]] = {f"arm{a}": [] for a in range(arms)}
    for _ in range(seeds):
        rate = min(max(dice.gauss(0.6, 0.1), 0.05), 0.95)
        scores = [sum(dice.random() < rate for _ in range(100)) / 100 for _ in range(arms + 1)]
        for arm, score in zip(differences, scores[1:], strict=True):
            differences[arm].append(score - scores[0])
    return differences


@pytest.mark.parametrize(("arms", "seeds", "trials"), [(1, 6, 2000), (3, 8, 700)])
def test_false_findings_are_no_more_than_promised(arms: int, seeds: int, trials: int) -> None:
    dice = random.Random(11)
    false = 0
    for _ in range(trials):
        found = compare(null_ablation(dice, arms, seeds)).values()
        assert all(arm.adjusted is not None for arm in found)
        false += any(arm.adjusted <= 0.05 for arm in found if arm.adjusted is not None)
    assert false / trials <= 0.06
    assert false, "a test that finds nothing has no size to speak of"


@pytest.mark.parametrize("seeds", [6, 8, 10])
@pytest.mark.parametrize("shape", ["normal", "heavy"])
def test_intervals_of_differences_cover_the_truth(seeds: int, shape: str) -> None:
    dice = random.Random(0)
    hits, trials = 0, {6: 20_000, 8: 6000, 10: 2000}[seeds]
    for _ in range(trials):
        draws = [
            dice.gauss() if shape == "normal" else dice.gauss() / dice.gammavariate(2, 0.5) ** 0.5 for _ in range(seeds)
        ]
        found = typical_interval([0.3 + draw for draw in draws])
        assert found is not None
        hits += found.low <= 0.3 <= found.high
    assert 0.93 <= hits / trials <= 0.97


@pytest.mark.parametrize(("strata", "runs"), [(1, 6), (1, 8), (3, 6)])
def test_bootstrap_intervals_of_the_interquartile_mean_cover_the_truth(strata: int, runs: int) -> None:
    """By the same function; its draws are made cheaper for it by a lower number of resamples."""
    dice = random.Random(5)
    trials = 700
    hits = 0
    for trial in range(trials):
        drawn = [[dice.gauss(0.7, 0.1) for _ in range(runs)] for _ in range(strata)]
        found = stratified_bootstrap(drawn, resamples=500, seed=trial)
        hits += found.low <= 0.7 <= found.high
    assert 0.93 <= hits / trials <= 0.97


def test_the_bootstrap_draws_within_strata_and_is_seeded() -> None:
    low, high = [0.1, 0.2, 0.3, 0.2], [10.1, 10.2, 10.3, 10.2]
    found = stratified_bootstrap([low, high], fmean, resamples=500)
    assert found.mean == pytest.approx(5.2)
    assert 5.1 <= found.low <= found.high <= 5.3, "a draw took both from one stratum"
    assert stratified_bootstrap([low], seed=3) == stratified_bootstrap([low], seed=3)
    assert stratified_bootstrap([[1.0, 2.0, 3.0, 100.0]]).mean == iqm([1.0, 2.0, 3.0, 100.0])


@pytest.mark.parametrize("strata", [[], [[]], [[0.1, 0.2], [0.3]]])
def test_one_run_has_no_interval(strata: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="two runs or more"):
        stratified_bootstrap(strata)


def test_the_probability_of_improvement_by_hand() -> None:
    assert probability_of_improvement([[3, 2]], [[2, 1]]) == 0.875
    assert probability_of_improvement([[3, 2], [0]], [[2, 1], [1]]) == 0.4375
    assert probability_of_improvement([[0.5] * 3], [[0.5] * 4]) == 0.5


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (5, 2.57058), (9, 2.26216), (30, 2.04227)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert student(0.975, freedom) == pytest.approx(expected, rel=5e-3)
    assert student(0.025, freedom) == pytest.approx(-student(0.975, freedom))


def test_the_detectable_effect_is_found_as_often_as_it_says() -> None:
    for seeds in (6, 8, 14):
        effect = detectable_effect(seeds, 0.05)
        assert effect is not None
        dice = random.Random(100 + seeds)
        trials = 1000 if seeds < 10 else 150
        found = sum(sign_flip([dice.gauss(effect, 0.05) for _ in range(seeds)]) <= 0.05 for _ in range(trials))
        assert found / trials == pytest.approx(0.8, abs=0.04 if seeds < 10 else 0.09)
    assert detectable_effect(5, 0.05) is None


def test_the_seeds_needed_are_the_fewest_that_can_see_the_effect() -> None:
    needed = seeds_needed(0.06, 0.05)
    at, below = detectable_effect(needed, 0.05), detectable_effect(needed - 1, 0.05)
    assert at is not None and below is not None and at <= 0.06 < below
    assert seeds_needed(-0.06, 0.05) == needed
    assert seeds_needed(100.0, 0.05) == 6
    with pytest.raises(ValueError, match="difference of 0"):
        seeds_needed(0.0, 0.05)


@pytest.mark.parametrize(
    ("effect", "samples", "expected"),
    [(0.03, 1, 3052), (0.03, 4, 1090), (0.03, 8, 763), (0.05, 1, 1099), (0.05, 4, 392), (0.1, 8, 69)],
)
def test_the_tasks_needed_are_those_of_the_formula(effect: float, samples: int, expected: int) -> None:
    assert abs(tasks_needed(effect, between=0.05, within=0.15, samples=samples) - expected) <= 1
