from __future__ import annotations

import math
import random

import pytest

from rl.stats.calibration import Bin, Scale, brier, calibration_error, platt, reliability


def loss(scale: Scale, trials: list[tuple[float, bool]]) -> float:
    """What Platt's scale is the least of, written out."""
    good = sum(came for _, came in trials)
    targets = {True: (good + 1) / (good + 2), False: 1 / (len(trials) - good + 2)}
    return -sum(
        targets[came] * math.log(scale(score)) + (1 - targets[came]) * math.log(1 - scale(score))
        for score, came in trials
    )


def drawn(slope: float, shift: float, count: int, size: float = 1.0) -> list[tuple[float, bool]]:
    rng = random.Random(0)
    scores = [rng.gauss(0, size) for _ in range(count)]
    return [(score, rng.random() < Scale(slope=slope, shift=shift)(score)) for score in scores]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_platt_finds_the_scale_that_trials_were_drawn_from(size: float) -> None:
    found = platt(drawn(2.0 / size, -0.7, 20_000, size))
    assert found.slope * size == pytest.approx(2.0, abs=0.1)
    assert found.shift == pytest.approx(-0.7, abs=0.05)


@pytest.mark.parametrize(
    "trials", [drawn(1.0, 0.5, 60), drawn(-3.0, 2.0, 40), [(1.0, True), (3.0, False), (2.0, True)]]
)
def test_no_scale_nearby_is_better_than_platts(trials: list[tuple[float, bool]]) -> None:
    found = platt(trials)
    least = loss(found, trials)
    for a, b in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3), (1e-3, 1e-3), (-1e-3, 1e-3)):
        assert loss(Scale(slope=found.slope + a, shift=found.shift + b), trials) > least


@pytest.mark.parametrize(
    "trials", [[(0.0, False), (1.0, True)], [(5.0, True)] * 3, [(2.0, True), (2.0, False)], [(0.0, False)] * 9]
)
def test_platt_stays_finite_where_nothing_is_left_to_chance(trials: list[tuple[float, bool]]) -> None:
    found = platt(trials)
    assert math.isfinite(found.slope) and math.isfinite(found.shift)
    good = sum(came for _, came in trials)
    if len({score for score, _ in trials}) == 1 and good in (0, len(trials)):
        target = (good + 1) / (good + 2) if good else 1 / (len(trials) + 2)
        assert found(trials[0][0]) == pytest.approx(target, abs=1e-6)


def test_there_is_nothing_to_fit_to_no_trials() -> None:
    with pytest.raises(ValueError):
        platt([])


def test_brier_by_hand() -> None:
    assert brier([(0.9, True), (0.2, False), (0.5, True)]) == pytest.approx((0.01 + 0.04 + 0.25) / 3)


def test_a_table_says_what_was_forecast_and_what_was_seen() -> None:
    trials = [(0.9, True), (0.9, True), (0.95, False), (0.2, False), (1.0, True)]
    assert reliability(trials) == [
        Bin(trials=1, forecast=0.2, seen=0.0),
        Bin(trials=4, forecast=pytest.approx(0.9375), seen=0.75),
    ]


def test_calibration_error_by_hand() -> None:
    bins = reliability([(0.9, True), (0.9, True), (0.9, False), (0.2, False)])
    assert calibration_error(bins) == pytest.approx((3 * (0.9 - 2 / 3) + 0.2) / 4)
