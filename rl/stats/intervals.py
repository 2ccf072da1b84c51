"""How sure a number is: intervals of proportions and of any statistic, trimmed means.

Numbers that belong together come in clusters: the samples of one task are not independent, so each
function that gives an interval takes one sequence per task and treats the task as what was drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, sqrt
from statistics import NormalDist, fmean


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and the interval that holds the true one at the stated level."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(share: float, n: float, level: float = 0.95) -> Estimate:
    """Wilson's score interval of a proportion seen in `n` independent trials.

    It holds its level near 0 and 1, where the usual mean +- 1.96 se does not. `n` may be an effective
    sample size. Source: Wilson (1927), JASA 22.
    """
    if n <= 0:
        raise ValueError("a proportion of no trials has no interval")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the interval touches 0 and 1 exactly; rounding must not push it past the mean.
    return Estimate(mean=share, low=max(0.0, min(centre - half, share)), high=min(1.0, max(centre + half, share)))


def proportion(clusters: Sequence[Sequence[bool]], level: float = 0.95) -> Estimate:
    """The share of successes, each cluster (task) counting the same, with a cluster-robust interval.

    Wilson's interval at the effective sample size p(1-p)/se^2, where se is the standard error between
    clusters: with one sample a task it is Wilson's own, and samples of one task that always agree add
    nothing. Where all agree on 0 or on 1 there is no spread to see, and each cluster counts as one trial.
    Source: Korn and Graubard (1998), Survey Methodology 24; Franco et al. (2019), J. Surv. Stat. Methodol. 7.
    """
    shares = [fmean(cluster) for cluster in clusters if cluster]
    if not shares:
        raise ValueError("a proportion of no trials has no interval")
    mean = fmean(shares)
    variance = fmean((share - mean) ** 2 for share in shares) / len(shares)
    trials = sum(map(len, clusters))
    effective = min(mean * (1 - mean) / variance, trials) if variance else len(shares)
    return wilson(mean, effective, level)


def bootstrap(
    clusters: Sequence[Sequence[float]],
    statistic: Callable[[Sequence[float]], float] = fmean,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Any statistic of the cluster means, with the percentile interval of a cluster bootstrap.

    Whole clusters are drawn with replacement. With fewer than about 20 clusters it undercovers.
    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    means = [fmean(cluster) for cluster in clusters if cluster]
    if not means:
        raise ValueError("there is nothing to resample")
    dice = random.Random(seed)
    drawn = sorted(statistic(dice.choices(means, k=len(means))) for _ in range(resamples))
    tail = (1 - level) / 2
    return Estimate(mean=statistic(means), low=quantile(drawn, tail), high=quantile(drawn, 1 - tail))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile of sorted numbers, linear between neighbours (numpy's default)."""
    place = share * (len(ordered) - 1)
    below = floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def iqm(values: Sequence[float]) -> float:
    """The mean of the middle half: a quarter of the values, rounded down, is cut off at each end.

    Source: Agarwal et al. (2021), arXiv 2108.13264.
    """
    if not values:
        raise ValueError("there is no middle of nothing")
    cut = len(values) // 4
    return fmean(sorted(values)[cut : len(values) - cut])
