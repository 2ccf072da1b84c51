"""What an ablation of so many seeds, or an evaluation of so many tasks, could have seen at all."""

from __future__ import annotations

import math
import random
from functools import lru_cache
from statistics import NormalDist

from rl.stats.intervals import quantile
from rl.stats.paired import fewest_seeds, typical_interval
from rl.stats.runs import student

DRAWS = 2000
SIMULATED = 10
"""Up to so many seeds the test is simulated; beyond it has the power of the paired t-test, to 3 %."""


def detectable_effect(seeds: int, sd: float, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest true difference that the sign-flip test of so many paired seeds finds with a chance of `power`.

    A difference under it can't be seen at this n, so that finding none says nothing. None where no difference
    can be seen, however large.

    Args:
        seeds: paired runs.
        sd: standard deviation of the difference over seeds, taken to be normal.
        power: chance to find it.
        alpha: of the test, two-sided.

    Example: 6 seeds whose difference has sd 0.05 show 0.09, 10 show 0.05.
    """
    if seeds < fewest_seeds(alpha=alpha):
        return None
    if seeds > SIMULATED:
        return sd * (student(1 - alpha / 2, seeds - 1) + NormalDist().inv_cdf(power)) / math.sqrt(seeds)
    # A shift of 0 is rejected in favour of a larger one where the whole interval lies above it.
    return -sd * quantile(_lowest(seeds, alpha), 1 - power)


def seeds_needed(effect: float, sd: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """The fewest paired seeds that find a true difference with a chance of `power`.

    Raises:
        ValueError: the difference is 0, which no number of seeds finds.
    """
    if not effect:
        raise ValueError("no number of seeds finds a difference of 0")
    found = max(fewest_seeds(alpha=alpha), 2)
    while (least := detectable_effect(found, sd, power=power, alpha=alpha)) is None or least > abs(effect):
        found += 1
    return found


def tasks_needed(
    effect: float, *, between: float, within: float, samples: int, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Tasks for a paired comparison of two policies: (z + z')^2 (omega^2 + 2 s^2 / K) / effect^2.

    Args:
        effect: true difference in success.
        between: omega^2, the variance over tasks of the difference of expected success.
        within: s^2, the mean variance of one sample within a task.
        samples: K episodes a task and policy.
        power: chance to find it.
        alpha: two-sided.

    Example: between 0.05 and within 0.15, 3 points of success take 3053 tasks of one sample, or 764 of 8.
    Source: Miller (2024), arXiv 2411.00640.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return math.ceil(z * z * (between + 2 * within / samples) / effect**2)


@lru_cache
def _lowest(seeds: int, alpha: float) -> list[float]:
    """Sorted lower ends of the intervals of as many standard normal differences, over DRAWS ablations."""
    dice = random.Random(seeds)
    intervals = (typical_interval([dice.gauss() for _ in range(seeds)], level=1 - alpha) for _ in range(DRAWS))
    return sorted(interval.low for interval in intervals if interval is not None)
