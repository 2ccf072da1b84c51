"""Is there something to learn: room above what the policy does, and differences within groups?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import fmean
from typing import Any

from rewards.bench.findings import Finding

NEAR_ALL = 0.95
"""The share of the way to the top, or of prompts at the bottom, at which there is nothing to learn."""
USEFUL_LEAST = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What samples of the same prompts say about training on them."""

    prompts: int
    """With two samples or more."""
    samples: int
    mean: float
    best: float
    """The mean over prompts of the best sample: what picking would give."""
    low: float
    high: float
    """The grader's worst and best score, as far as they are known."""
    at_floor: float
    """Share of prompts whose every sample scores lowest."""
    at_ceiling: float
    """Share of prompts whose every sample scores highest."""
    no_variance: float
    """Share of prompts whose samples all score the same."""
    useful: Mapping[int, float]
    """Group size -> expected share of groups whose scores differ: the others give no gradient."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"useful": {str(size): share for size, share in self.useful.items()}}


def measure(
    groups: Sequence[Sequence[float]], *, low: float, high: float, sizes: Sequence[int]
) -> tuple[Signal | None, list[Finding]]:
    """What groups of scores (one group a prompt) say; groups of one say nothing.

    Args:
        low: the worst score there can be.
        high: the best.
        sizes: group sizes to look ahead to; the first decides.
    """
    several = [list(group) for group in groups if len(group) > 1]
    if not several:
        said = "no prompt has two samples, so headroom and useful groups are not measured; give some with --samples"
        return None, [Finding(kind="no_samples_per_prompt", said=said)]
    same = [group for group in several if max(group) == min(group)]
    found = Signal(
        prompts=len(several),
        samples=sum(map(len, several)),
        mean=fmean(map(fmean, several)),
        best=fmean(map(max, several)),
        low=low,
        high=high,
        at_floor=sum(group[0] <= low for group in same) / len(several),
        at_ceiling=sum(group[0] >= high for group in same) / len(several),
        no_variance=len(same) / len(several),
        useful={size: fmean(useful(group, size) for group in several) for size in sizes},
    )
    return found, _judged(found, sizes[0])


def useful(scores: Sequence[float], size: int) -> float:
    """The chance that `size` samples of a prompt do not all score the same.

    Unbiased where there are that many samples (drawn without replacement); beyond that the observed shares
    are taken for the true ones, which never sees what did not happen yet.

    Example: scores 1, 1, 0, 0 and size 2: of 6 pairs 4 differ, 2/3.
    """
    n, counts = len(scores), Counter(scores).values()
    if n >= size:
        return 1 - sum(comb(count, size) for count in counts) / comb(n, size)
    return 1 - sum((count / n) ** size for count in counts)


def _judged(found: Signal, size: int) -> list[Finding]:
    way = (found.mean - found.low) / (found.high - found.low) if found.high > found.low else 1.0
    if found.at_ceiling >= NEAR_ALL or way >= NEAR_ALL:
        said = (
            f"the policy already has {way:.0%} of what there is to have; {found.at_ceiling:.0%} of prompts can't be "
            "improved on: no headroom"
        )
        return [Finding(kind="solved", said=said)]
    if found.at_floor >= NEAR_ALL:
        said = (
            f"on {found.at_floor:.0%} of prompts no sample ever succeeds; teach it by examples first, or grade by steps"
        )
        return [Finding(kind="hopeless", said=said)]
    if found.useful[size] < USEFUL_LEAST:
        said = f"of groups of {size} only {found.useful[size]:.0%} are expected to have scores that differ"
        return [Finding(kind="few_useful_groups", said=said)]
    return []
