"""Agreement of two raters on the same things, with intervals. Pure functions, plain Python."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from statistics import quantiles
from typing import TypeAlias

Pair: TypeAlias = tuple[float, float]
Statistic: TypeAlias = Callable[[Sequence[Pair]], float | None]
"""A number of pairs of ratings, from -1 to 1; None where they do not define one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value and the ends between which the true one lies in 95 of 100 cases."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def spearman(pairs: Sequence[Pair]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where one side never varies.

    Example: (1, 2), (2, 1), (3, 3) has 0.5. Source: Spearman (1904), Am. J. Psychol. 15.
    """
    a, b = ranks([x for x, _ in pairs]), ranks([y for _, y in pairs])
    if not a:
        return None
    mean = (len(a) + 1) / 2
    both = fsum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    size = sqrt(fsum((x - mean) ** 2 for x in a)) * sqrt(fsum((y - mean) ** 2 for y in b))
    return max(-1.0, min(1.0, both / size)) if size else None  # rounding must not push it past the ends


def kappa(pairs: Sequence[Pair]) -> float | None:
    """Cohen's kappa: agreement beyond chance of two raters who sort into classes; None where chance explains all.

    Example: both say (1, 1) twice, (0, 0) twice, (1, 0) once: observed 0.8, by chance 0.48, kappa 0.615.
    Source: Cohen (1960), Educ. Psychol. Meas. 20.
    """
    if not pairs:
        return None
    n = len(pairs)
    observed = sum(x == y for x, y in pairs) / n
    left, right = Counter(x for x, _ in pairs), Counter(y for _, y in pairs)
    chance = sum(left[value] * right[value] for value in left) / n**2
    return (observed - chance) / (1 - chance) if chance < 1 else None


def auroc(pairs: Sequence[Pair]) -> float | None:
    """The chance that of a good and a bad sample the good one scores higher, ties counting half.

    Args:
        pairs: (score, label), labels above the lower of the two being good.

    Source: Mann and Whitney (1947), Ann. Math. Stat. 18.
    """
    labels = {label for _, label in pairs}
    if len(labels) != 2:
        return None
    good_label = max(labels)
    rank = ranks([score for score, _ in pairs])
    good = [r for r, (_, label) in zip(rank, pairs, strict=True) if label == good_label]
    return (fsum(good) - len(good) * (len(good) + 1) / 2) / (len(good) * (len(pairs) - len(good)))


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1, ties at the mean of theirs: (7, 3, 7) has 2.5, 1, 2.5."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            found[place] = (start + 1 + end) / 2
        start = end
    return found


def interval(
    pairs: Sequence[Pair], statistic: Statistic, groups: Sequence[Hashable], *, resamples: int = 1000, seed: int = 0
) -> Interval | None:
    """A statistic with the 95 % percentile interval of a cluster bootstrap; None where it is not defined.

    Samples of one prompt are not independent, so whole groups are drawn with replacement. Draws in which the
    statistic is not defined are drawn again; where that is most of them the interval is all of [-1, 1].
    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

    Args:
        groups: of each pair, which prompt it belongs to.
    """
    value = statistic(pairs)
    if value is None:
        return None
    clusters: dict[Hashable, list[Pair]] = {}
    for group, pair in zip(groups, pairs, strict=True):
        clusters.setdefault(group, []).append(pair)
    members, dice, drawn = list(clusters.values()), random.Random(seed), []
    for _ in range(2 * resamples):
        sample = [pair for cluster in dice.choices(members, k=len(members)) for pair in cluster]
        if (found := statistic(sample)) is not None:
            drawn.append(found)
        if len(drawn) == resamples:
            break
    if len(drawn) < resamples:
        return Interval(value=value, low=-1.0, high=1.0)
    cuts = quantiles(drawn, n=40, method="inclusive")
    return Interval(value=value, low=min(cuts[0], value), high=max(cuts[-1], value))
