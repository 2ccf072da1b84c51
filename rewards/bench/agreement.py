"""Does the grader say what experts say, and do the experts say the same?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from rewards.bench.findings import Finding
from rewards.bench.statistics import Interval, Pair, Statistic, auroc, interval, kappa, spearman
from rewards.graders.rows import Row
from rewards.graders.run import Grade

FEW = 20
"""Below so many labelled samples no interval is worth much."""
GRADER_LEAST = 0.5
"""What agreement of grader and experts must come to, on a scale where 0 is chance and 1 perfect."""
EXPERTS_LEAST = 0.4
"""What agreement between experts must come to: below it the task has no right answer to learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How much two raters agree."""

    method: str
    """spearman, auroc or kappa."""
    of: Interval
    samples: int

    @property
    def beyond_chance(self) -> float:
        """0 for chance, 1 for perfect, below 0 for the opposite: of an AUROC twice what is above a half."""
        return 2 * self.of.value - 1 if self.method == "auroc" else self.of.value

    def as_dict(self) -> dict[str, Any]:
        return {"method": self.method, "samples": self.samples, **self.of.as_dict()}


def between(pairs: Sequence[Pair], groups: Sequence[str]) -> Agreement | None:
    """The agreement of (grader or expert, expert) by the method that fits their scales.

    Two values on both sides are classes: kappa. A scale against two values: AUROC. Else ranks: Spearman.
    """
    left, right = ({pair[side] for pair in pairs} for side in (0, 1))
    methods: dict[str, Statistic] = {"kappa": kappa, "auroc": auroc, "spearman": spearman}
    classes = "kappa" if left <= right else "auroc"
    method = classes if len(right) == 2 else "spearman"
    resamples = max(200, min(1000, 500_000 // len(pairs))) if pairs else 200  # seconds, not minutes, of many pairs
    found = interval(pairs, methods[method], groups, resamples=resamples)
    return None if found is None else Agreement(method=method, of=found, samples=len(pairs))


def with_experts(rows: Sequence[Row], grades: Sequence[Grade]) -> tuple[Agreement | None, list[Finding]]:
    """The grader against the experts' mean, on the samples that have both."""
    both = [
        (row, grade.reward, row.label)
        for row, grade in zip(rows, grades, strict=True)
        if row.label is not None and grade.error is None
    ]
    pairs = [(reward, label) for _, reward, label in both]
    if not any(row.label is not None for row in rows):
        return None, [Finding(kind="no_labels", said="no sample has a label; nobody knows what the grader should say")]
    if not pairs:
        return None, []
    findings = []
    if len(pairs) < FEW:
        findings.append(Finding(kind="few_labels", said=f"{len(pairs)} labelled samples; {FEW} or more say something"))
    rewards, labels = {reward for reward, _ in pairs}, {label for _, label in pairs}
    if len(labels) == 1:
        only = next(iter(labels))
        said = f"every label is {only:g}; label failures as well as successes"
        return None, [*findings, Finding(kind="few_labels", said=said)]
    if len(rewards) == 1:
        span = f"labels go from {min(labels):g} to {max(labels):g}"
        said = f"it scores {next(iter(rewards)):g} whatever it is given, and {span}"
        return None, [*findings, Finding(kind="constant", said=said)]
    found = between(pairs, [row.group for row, _, _ in both])
    if found is None:
        return None, findings
    if found.beyond_chance < 0:
        said = f"{found.method} with the labels is {found.of}: better samples score less"
        findings.append(Finding(kind="inverted", said=said))
    elif found.beyond_chance < GRADER_LEAST:
        least = (1 + GRADER_LEAST) / 2 if found.method == "auroc" else GRADER_LEAST
        said = f"{found.method} with the labels is {found.of}; at least {least:g} is worth training on"
        findings.append(Finding(kind="disagrees", said=said))
    return found, findings


def of_experts(rows: Sequence[Row]) -> tuple[dict[str, Agreement], list[Finding]]:
    """Every two experts against each other, on the samples that both labelled."""
    found = {}
    for a, b in combinations(dict.fromkeys(name for row in rows for name in row.labels), 2):
        both = [row for row in rows if a in row.labels and b in row.labels]
        agreement = between([(row.labels[a], row.labels[b]) for row in both], [row.group for row in both])
        if agreement is not None:
            found[f"{a}, {b}"] = agreement
    if not found:
        return {}, []
    typical = fmean(agreement.beyond_chance for agreement in found.values())
    if typical >= EXPERTS_LEAST:
        return found, []
    said = (
        f"the experts agree {typical:.2f} on average (0 is chance, 1 perfect; {EXPERTS_LEAST} is the least): there is "
        "no answer that training could converge to"
    )
    return found, [Finding(kind="experts_disagree", said=said)]
