"""Has a number changed? Three classical answers, for distributions and for levels."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from statistics import fmean

from rl.stats import quantile

BINS, IN_A_BIN = 10, 5
"""Bins, and how many of the smaller sample each holds on average: fewer bins where there are not enough."""
FLOOR = 1e-4
"""The least share of a bin, so that an empty one has a logarithm."""


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Population stability index of two distributions over the same bins: sum of (a - e) ln(a / e).

    Below 0.1 nothing has changed, above 0.25 a lot has. Example: from four quarters to (.4, .3, .2, .1) it is 0.2282.
    """
    floored = [(max(e, FLOOR), max(a, FLOOR)) for e, a in zip(expected, actual, strict=True)]
    return math.fsum((a - e) * math.log(a / e) for e, a in floored)


def drift(reference: Sequence[float], now: Sequence[float]) -> tuple[float, float]:
    """The PSI between two samples, and the limit above which it says more than that the samples are small.

    Bins are the tenths of the reference, fewer of a small sample and where values repeat; half a count is added
    to each, so that a small sample is not far from another for a bin it missed. Between samples of n and m of the
    same thing the PSI comes to about (bins - 1) (1/n + 1/m); the limit is 0.25 and that, with three standard
    deviations.

    Raises:
        ValueError: a sample is empty.
    """
    if not reference or not now:
        raise ValueError("there is no drift between samples of which one is empty")
    ordered = sorted(reference)
    bins = max(2, min(BINS, min(len(reference), len(now)) // IN_A_BIN))
    edges = sorted({quantile(ordered, i / bins) for i in range(1, bins)})
    shares = []
    for sample in (reference, now):
        counts = [0.5] * (len(edges) + 1)
        for value in sample:
            counts[bisect_left(edges, value)] += 1
        shares.append([count / sum(counts) for count in counts])
    freedom, noise = len(edges), 1 / len(reference) + 1 / len(now)
    return psi(shares[0], shares[1]), 0.25 + (freedom + 3 * math.sqrt(2 * freedom)) * noise


def page_hinkley(values: Sequence[float], *, slack: float = 0.05) -> list[float]:
    """How far a level has risen above its own past, place by place: m - min m, m the sum of x - mean so far - slack.

    Example: of (0, 0, 0, 1, 1, 1) it is (0, 0, 0, 0.70, 1.25, 1.70). Source: Page (1954), Biometrika 41.
    """
    total = low = 0.0
    found = []
    for i in range(len(values)):
        total += values[i] - fmean(values[: i + 1]) - slack
        low = min(low, total)
        found.append(total - low)
    return found


def cusum(values: Sequence[float], mean: float, sd: float, *, slack: float = 0.5) -> list[float]:
    """How far values have run above a known level, in its standard deviations: S = max(0, S + (x - mean)/sd - slack).

    Above 5 is an alarm. Example: of (0, 0, 0, 1, 1, 1) against mean 0, sd 0.5 it is (0, 0, 0, 1.5, 3, 4.5).
    Source: Page (1954), Biometrika 41.
    """
    level, found = 0.0, []
    for value in values:
        level = max(0.0, level + (value - mean) / sd - slack)
        found.append(level)
    return found
