"""Arms of an ablation against a reference, paired by seed: a test that assumes nothing but symmetry.

Under the null hypothesis a seed's difference is as likely to have either sign. So all 2^n ways to flip
the signs are equally likely, and p is the share of them whose mean is at least as far from 0 as what was
seen: exact for few seeds. The interval is what the same test would not reject.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from statistics import fmean

from envs.errors import InputError
from rl.stats.intervals import Estimate

ENUMERATED = 16
"""Up to so many seeds all subsets are looked at, beyond it 2^16 of them drawn at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """An arm against the reference."""

    seeds: int
    difference: float
    """The mean over seeds."""
    interval: Estimate | None = None
    """None where there are too few seeds for one at the level asked."""
    p: float | None = None
    """Of the sign-flip test, two-sided; None for a pilot."""
    adjusted: float | None = None
    """The same after Holm's correction for all the arms that were compared."""
    pilot: str | None = None
    """Why there is no p, where there is none."""

    def __str__(self) -> str:
        seen = f"{self.difference:+.3f} over {self.seeds} paired seeds"
        if self.interval is not None:
            seen += f" [{self.interval.low:+.3f}, {self.interval.high:+.3f}]"
        return f"{seen}; {self.pilot}" if self.pilot else f"{seen}, p = {self.adjusted:.3f}"


def compare(differences: Mapping[str, Sequence[float]], *, alpha: float = 0.05) -> dict[str, Paired]:
    """Every arm's paired differences from the reference, tested together.

    An arm with fewer seeds than the test needs to come to `alpha` at all is a pilot: it gets no p, and takes
    no part in the correction of the others.

    Args:
        differences: arm -> one difference a seed, arm minus reference.
        alpha: chance of any false finding among all arms; the intervals hold 1 - alpha each. Where many arms
            are of interest and seeds are few, name the one comparison that matters before training, and give
            that alone.

    Raises:
        InputError: no differences, or one that is not finite.
    """
    for arm, found in differences.items():
        if not found or not all(map(math.isfinite, found)):
            raise InputError(f"{arm}: needs a finite difference for every seed, not {list(found)}; leave the arm out")
    tested = _testable({arm: len(found) for arm, found in differences.items()}, alpha)
    ps = {arm: sign_flip(found) for arm, found in differences.items() if arm in tested}
    adjusted = dict(zip(ps, holm(list(ps.values())), strict=True))
    compared = {}
    for arm, found in differences.items():
        among = sum(len(other) >= len(found) for other in differences.values())
        least = fewest_seeds(among, alpha=alpha)
        few = f"a pilot: among {among} comparisons it takes {least} seeds to come to p <= {alpha:g}"
        compared[arm] = Paired(
            seeds=len(found),
            difference=fmean(found),
            interval=typical_interval(found, level=1 - alpha),
            p=ps.get(arm),
            adjusted=adjusted.get(arm),
            pilot=None if arm in tested else few,
        )
    return compared


def _testable(seeds: Mapping[str, int], alpha: float) -> set[str]:
    """The arms with most seeds, as many as can all come to alpha together; arms with equally many stay together."""
    for least in sorted(set(seeds.values())):
        arms = {arm for arm, n in seeds.items() if n >= least}
        if least >= fewest_seeds(len(arms), alpha=alpha):
            return arms
    return set()


def fewest_seeds(comparisons: int = 1, *, alpha: float = 0.05) -> int:
    """The smallest n at which 2 / 2^n, the least p there is, passes Holm's first hurdle of alpha / comparisons.

    Example: 6 for one comparison at 0.05 (p is at least 0.03125), 7 for two, 8 for four.
    """
    return math.ceil(math.log2(2 * comparisons / alpha) - 1e-12)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the paired permutation test of the mean.

    Example: of (1, 2, -1) the sum is 2; 6 of the 8 ways to give 1, 2 and 1 signs come to 2 or more, up or down:
    p = 0.75. Of (1, 2, 3) only two do: p = 0.25.
    Source: Fisher (1935), The Design of Experiments, section 21.
    """
    total = math.fsum(differences)
    if not total:
        return 1.0
    means = _subset_means([math.copysign(1.0, total) * d for d in differences])
    slack = 1e-9 * max(map(abs, differences))  # subsets that cancel exactly must not fail to by rounding
    return min(1.0, 2 * (1 + sum(mean <= slack for mean in means)) / (len(means) + 1))


def typical_interval(differences: Sequence[float], *, level: float = 0.95) -> Estimate | None:
    """The mean with the interval of all shifts that the sign-flip test would not reject; None of too few seeds.

    Its ends are subset means in order: exact at its level, or a little above, wherever differences are
    symmetric about the true one. Of 6 seeds at 95 % it is the smallest and the largest, and holds 96.9 %.

    Source: Hartigan (1969), JASA 64, "Using subsample values as typical values".
    """
    means = sorted(_subset_means(differences))
    cut = math.floor((1 - level) / 2 * (len(means) + 1) + 1e-9)
    if cut < 1:
        return None
    return Estimate(mean=fmean(differences), low=means[cut - 1], high=means[-cut])


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given: the chance of any false finding stays below alpha.

    Example: (0.01, 0.04, 0.03) become (0.03, 0.06, 0.06). Source: Holm (1979), Scand. J. Stat. 6.
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, least = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = least
    return adjusted


def _subset_means(values: Sequence[float]) -> list[float]:
    """The means of all subsets but the empty one, or of so many drawn at random."""
    if len(values) > ENUMERATED:
        dice, width = random.Random(len(values)), len(values)
        picks = (map(int, f"{dice.randrange(1, 2**width):0{width}b}") for _ in range(2**ENUMERATED - 1))
        return [fmean(compress(values, pick)) for pick in picks]
    sums = [(0.0, 0)]
    for value in values:
        sums += [(total + value, count + 1) for total, count in sums]
    return [total / count for total, count in sums[1:]]
