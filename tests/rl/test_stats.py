from __future__ import annotations

import random
from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.stats import bootstrap, iqm, pass_at_k, pass_hat_k, proportion, quantile, wilson

COUNTS = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (190, 200, 0.91041, 0.97262)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    found = wilson(successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilsons_ends_are_where_the_score_test_turns(counts: tuple[int, int], level: float) -> None:
    """Independent of the closed form: at each end p, (share - p)^2 = z^2 p (1-p) / n."""
    from statistics import NormalDist

    c, n = counts
    found = wilson(c / n, n, level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    assert found.low <= found.mean <= found.high
    for end in (found.low, found.high):
        assert (c / n - end) ** 2 == pytest.approx(z * z * end * (1 - end) / n, abs=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_with_one_sample_a_task_the_proportion_is_wilsons(outcomes: list[bool]) -> None:
    found = proportion([[outcome] for outcome in outcomes])
    plain = wilson(fmean(outcomes), len(outcomes))
    assert (found.mean, found.low, found.high) == pytest.approx((plain.mean, plain.low, plain.high))


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(2, 6))
def test_samples_that_always_agree_add_nothing(outcomes: list[bool], samples: int) -> None:
    once = proportion([[outcome] for outcome in outcomes])
    repeated = proportion([[outcome] * samples for outcome in outcomes])
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))


def _rates(dice: random.Random, spread: str) -> list[float]:
    return [dice.betavariate(0.8, 0.4) if spread == "wide" else 0.9 for _ in range(50)]


@pytest.mark.parametrize("spread", ["wide", "none"])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(spread: str) -> None:
    dice = random.Random(7)
    truth = 0.8 / 1.2 if spread == "wide" else 0.9
    trials = 600
    hits = naive = 0
    for _ in range(trials):
        clusters = [[dice.random() < rate for _ in range(4)] for rate in _rates(dice, spread)]
        found = proportion(clusters)
        hits += found.low <= truth <= found.high
        flat = wilson(found.mean, sum(map(len, clusters)))
        naive += flat.low <= truth <= flat.high
    assert 0.92 <= hits / trials <= 0.985
    if spread == "wide":
        assert naive / trials < 0.85, "the test must be able to tell a clustered interval from a naive one"


@pytest.mark.parametrize("clusters", [[], [[], []]])
def test_nothing_has_no_interval(clusters: list[list[bool]]) -> None:
    with pytest.raises(ValueError, match="no trials"):
        proportion(clusters)
    with pytest.raises(ValueError, match="nothing"):
        bootstrap(clusters)


def test_the_bootstrap_agrees_with_theory_on_a_mean() -> None:
    dice = random.Random(3)
    values = [dice.gauss(10.0, 2.0) for _ in range(400)]
    found = bootstrap([[value] for value in values], resamples=4000)
    mean = fmean(values)
    half = 1.96 * (fmean((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    assert found.mean == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), abs=0.04)


def test_the_bootstrap_draws_whole_clusters() -> None:
    one = bootstrap([[0.0], [1.0], [2.0], [5.0]])
    many = bootstrap([[0.0] * 9, [1.0] * 9, [2.0] * 9, [5.0] * 9])
    assert many == one
    assert bootstrap([[0.0], [1.0]], seed=1) == bootstrap([[0.0], [1.0]], seed=1)


def test_the_bootstrap_draws_as_many_clusters_as_there_are() -> None:
    """Of two clusters, a quarter of all draws is twice the first: both ends are within 2.5 %."""
    found = bootstrap([[0.0], [1.0]])
    assert (found.low, found.high) == (0.0, 1.0)


def test_the_bootstrap_takes_any_statistic() -> None:
    assert bootstrap([[1.0], [2.0], [3.0], [100.0]], iqm).mean == 2.5


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 3.0), ([9.0, 1.0, 2.0, 3.0], 2.5), ([1, 2, 3, 4, 5, 6, 7, 99], 4.5), ([0, 1, 2, 3, 10, 50], 4.0)],
)
def test_iqm_by_hand(values: list[float], expected: float) -> None:
    assert iqm(values) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.1, 1.3)])
def test_quantiles_by_hand(share: float, expected: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == pytest.approx(expected)


@pytest.mark.parametrize(("k", "at", "hat"), [(1, 0.6, 0.6), (2, 0.9, 0.3), (3, 1.0, 0.1), (4, 1.0, 0.0)])
def test_three_successes_of_five_by_hand(k: int, at: float, hat: float) -> None:
    assert pass_at_k(5, 3, k) == pytest.approx(at)
    assert pass_hat_k(5, 3, k) == pytest.approx(hat)


@given(COUNTS)
def test_both_are_the_share_of_all_ways_to_choose_k_samples(counts: tuple[int, int, int]) -> None:
    n, c, k = counts
    chosen = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(fmean(any(way) for way in chosen))
    assert pass_hat_k(n, c, k) == pytest.approx(fmean(all(way) for way in chosen))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(n, c, k)
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_hat_k(n, c, k)
