"""Whether a number that is said to be a chance is one. Pure functions, plain Python.

A trial is a pair of what was forecast and whether it came true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, log, log1p
from statistics import fmean

BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From scores to chances: 1 / (1 + exp(-(slope * score + shift)))."""

    slope: float = 1.0
    shift: float = 0.0

    def __call__(self, score: float) -> float:
        return _logistic(self.slope * score + self.shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The trials whose forecasts lie near one another."""

    trials: int
    forecast: float
    """Their mean."""
    seen: float
    """The share that came true."""


def platt(trials: Sequence[tuple[float, bool]], *, steps: int = 100) -> Scale:
    """The scale under which scores are most likely to have been chances; increasing or not, as it falls out.

    Platt's smoothed targets, (n + 1) / (n + 2) and 1 / (n + 2), keep it finite where scores separate perfectly.
    Newton's method, halving steps that do not help. Source: Platt (1999), Advances in Large Margin Classifiers;
    Lin, Lin and Weng (2007), Machine Learning 68.

    Args:
        trials: (score, came true).

    Raises:
        ValueError: there are none.
    """
    if not trials:
        raise ValueError("there is nothing to fit a scale to")
    good = sum(1 for _, came in trials if came)
    targets = ((good + 1) / (good + 2), 1 / (len(trials) - good + 2))
    points = [(score, targets[0] if came else targets[1]) for score, came in trials]
    # Scores on a scale of their own would make the two directions of the search very unlike.
    mean = fmean(score for score, _ in points)
    size = max((abs(score - mean) for score, _ in points), default=0.0) or 1.0
    points = [((score - mean) / size, target) for score, target in points]
    base = fmean(target for _, target in points)
    slope, shift = 0.0, _logit(base)
    loss = _loss(points, slope, shift)
    for _ in range(steps):
        down = _newton(points, slope, shift)
        share = 1.0
        while share > 1e-10:
            tried = (slope + share * down[0], shift + share * down[1])
            if (found := _loss(points, *tried)) < loss:
                break
            share /= 2
        else:
            break
        (slope, shift), before, loss = tried, loss, found
        if before - loss < 1e-14 * before:
            break
    return Scale(slope=slope / size, shift=shift - slope * mean / size)


def brier(trials: Sequence[tuple[float, bool]]) -> float:
    """The mean square of forecast minus what came: 0 at best, p(1 - p) for who always says the share p.

    Source: Brier (1950), Monthly Weather Review 78.
    """
    return fmean((forecast - came) ** 2 for forecast, came in trials)


def reliability(trials: Sequence[tuple[float, bool]], *, bins: int = BINS) -> list[Bin]:
    """Forecasts from 0 to 1 in bins of one width, those left out that are empty."""
    held: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for trial in trials:
        held[min(int(trial[0] * bins), bins - 1)].append(trial)
    return [
        Bin(trials=len(own), forecast=fmean(f for f, _ in own), seen=fmean(float(came) for _, came in own))
        for own in held
        if own
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: |forecast - seen|, each bin weighing its trials.

    It is above 0 by chance alone, the more so the fewer trials a bin has. Source: Naeini, Cooper and Hauskrecht
    (2015), AAAI.

    Example: 3 trials of forecast 0.9 that came true twice, 1 of 0.2 that did not: (3 * 0.233 + 0.2) / 4 = 0.225.
    """
    return fsum(each.trials * abs(each.forecast - each.seen) for each in bins) / sum(each.trials for each in bins)


def _logistic(x: float) -> float:
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


def _logit(share: float) -> float:
    return log(share / (1 - share))


def _loss(points: Sequence[tuple[float, float]], slope: float, shift: float) -> float:
    total = []
    for score, target in points:
        x = slope * score + shift
        total.append((log1p(exp(-x)) if x >= 0 else log1p(exp(x)) - x) + (1 - target) * x)
    return fsum(total)


def _newton(points: Sequence[tuple[float, float]], slope: float, shift: float) -> tuple[float, float]:
    """The step to the minimum of the parabola that touches here."""
    a = b = c = g = h = 0.0
    for score, target in points:
        chance = _logistic(slope * score + shift)
        weight, miss = chance * (1 - chance), chance - target
        a, b, c = a + weight * score * score, b + weight * score, c + weight
        g, h = g + miss * score, h + miss
    a, c = a + 1e-9, c + 1e-9
    determinant = a * c - b * b
    return (b * h - c * g) / determinant, (b * g - a * h) / determinant
