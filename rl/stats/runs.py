"""One recipe over several training runs: a robust average with an interval, and how often it beats another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import pi, sqrt, tan
from statistics import NormalDist, fmean

from rl.stats.intervals import Estimate, iqm, quantile


def stratified_bootstrap(
    strata: Sequence[Sequence[float]],
    statistic: Callable[[Sequence[float]], float] = iqm,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic of all runs of all strata together, with a bootstrap interval that holds for few runs.

    Runs are drawn with replacement within each stratum. A stratum is what was trained by itself, an environment
    say; the tasks that all runs were measured on are none, since a seed is lucky on all of them at once: give
    one stratum, with one number a run. Plain percentile intervals of 6 runs cover 90 % where they say 95, so
    the percentiles are moved out as far as Student's t lies beyond the normal distribution.

    Args:
        strata: [S][n_s], one number a run.
        statistic: of all numbers together; the interquartile mean unless given.
        resamples: how many.
        level: the share of such intervals that hold the true value.
        seed: of the draws.

    Raises:
        ValueError: a stratum of fewer than 2 runs.

    Source: Agarwal et al. (2021), arXiv 2108.13264; for the percentiles, after Hesterberg (2015), Am. Stat. 69.
    """
    if not strata or any(len(runs) < 2 for runs in strata):
        raise ValueError("an interval needs two runs or more in every stratum")
    dice = random.Random(seed)
    drawn = sorted(statistic([x for runs in strata for x in dice.choices(runs, k=len(runs))]) for _ in range(resamples))
    freedom = sum(len(runs) - 1 for runs in strata)
    tail = NormalDist().cdf(-student((1 + level) / 2, freedom))
    whole = statistic([x for runs in strata for x in runs])
    return Estimate(mean=whole, low=quantile(drawn, tail), high=quantile(drawn, 1 - tail))


def probability_of_improvement(arm: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The chance that a run of an arm beats a run of the other on a stratum drawn at random; ties count half.

    Args:
        arm: [S][n_s], one number a run.
        other: [S][m_s], the same strata.

    Example: (3, 2) against (2, 1) wins three comparisons of four and ties one: 0.875.
    Source: Agarwal et al. (2021), arXiv 2108.13264.
    """
    return fmean(
        fmean((x > y) + 0.5 * (x == y) for x in mine for y in theirs) for mine, theirs in zip(arm, other, strict=True)
    )


def student(share: float, freedom: int) -> float:
    """The quantile of Student's t: exact for 1 and 2 degrees of freedom, to 0.5 % at 97.5 % for more.

    Source: Abramowitz and Stegun (1964), 26.7.5, and the closed forms.
    """
    if freedom == 1:
        return tan(pi * (share - 0.5))
    if freedom == 2:
        return (2 * share - 1) / sqrt(2 * share * (1 - share))
    z, v = NormalDist().inv_cdf(share), float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v**power for power, term in enumerate(terms, 1))
