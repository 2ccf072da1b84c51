"""Is this grader any good? Everything the bench knows to ask, and one verdict."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from rewards.bench import agreement, probes, stability
from rewards.bench.agreement import Agreement
from rewards.bench.cost import Cost, Job, estimate
from rewards.bench.findings import Finding, Verdict, verdict
from rewards.bench.lint import lint, range_of
from rewards.bench.probes import Probe
from rewards.bench.signal import Signal, measure
from rewards.bench.stability import Stability
from rewards.graders.rows import Row, grade_all
from rewards.graders.run import Grade, Grader

ERRORS_MOST = 0.1
"""The share of samples that a grader may fail on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How thorough to be. Every probe and repeat of a grader with a judge costs tokens."""

    group: int = 8
    """The group size of the training to come."""
    repeats: int = 3
    repeated: int = 20
    """How many samples are graded again."""
    probed: int = 10
    """How many prompts are probed."""
    job: Job | None = None
    """What the cost is of; None takes the rows at hand as the training set, once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found out about a grader."""

    grader: str
    hash: str
    samples: int
    agreement: Agreement | None
    experts: Mapping[str, Agreement]
    """Pair of experts -> how much they agree."""
    stability: Stability | None
    signal: Signal | None
    honest_failure: float | None
    """What samples score on average that experts gave least."""
    probes: Sequence[Probe]
    cost: Cost
    findings: Sequence[Finding]

    @property
    def verdict(self) -> Verdict:
        return verdict(self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "verdict": self.verdict,
            "findings": [finding.as_dict() for finding in self.findings],
            "grader": self.grader,
            "grader_hash": self.hash,
            "samples": self.samples,
            "agreement": self.agreement and self.agreement.as_dict(),
            "experts": {pair: found.as_dict() for pair, found in self.experts.items()},
            "stability": self.stability and self.stability.as_dict(),
            "signal": self.signal and self.signal.as_dict(),
            "honest_failure": self.honest_failure,
            "probes": [probe.as_dict() for probe in self.probes],
            "cost": self.cost.as_dict(),
        }


async def examine(
    grader: Grader,
    rows: Sequence[Row],
    *,
    drawn: Sequence[Row] | None = None,
    options: Options | None = None,
    phase: Callable[[str], None] = lambda name: None,
) -> Report:
    """Everything about a grader.

    Args:
        rows: samples with what experts said about them; one at least.
        drawn: several samples of each prompt as the policy draws them; None takes `rows`.
        options: how thorough to be.
        phase: told what is being done.
    """
    options = options or Options()
    phase("grading the labelled samples")
    grades = await grade_all(grader, rows)
    low, high = _ends(grader, grades)
    width = high - low or 1.0
    found, findings = agreement.with_experts(rows, grades)
    experts, said = agreement.of_experts(rows)
    findings += said
    phase("grading again")
    # By lot: files are often sorted, and every n-th sample may be the same kind of sample.
    again = random.Random(0).sample(rows, min(options.repeated, len(rows)))
    stable, said = await stability.repeat(grader, again, repeats=options.repeats, width=width)
    findings += said
    phase("grading what the policy draws")
    several = grades if drawn is None else await grade_all(grader, drawn)
    sizes = sorted({options.group, 4, 8, 16}, key=lambda size: (size != options.group, size))
    signal, said = measure(_groups(drawn or rows, several), low=low, high=high, sizes=sizes)
    findings += said
    phase("probing")
    honest, probed, said = await probes.probe(grader, rows, grades, prompts=options.probed, width=width)
    findings += [*said, *_errors(rows, grades), *lint(grader, rows, grades)]
    prompts = len({row.group for row in rows})
    return Report(
        grader=grader.__name__,
        hash=grader.hash,
        samples=len(rows),
        agreement=found,
        experts=experts,
        stability=stable,
        signal=signal,
        honest_failure=honest,
        probes=probed,
        cost=estimate(grader, grades, options.job or Job(rows=prompts, group=options.group)),
        findings=sorted(findings, key=lambda f: ("stop", "fix", "note").index(f.severity)),
    )


def _ends(grader: Grader, grades: Sequence[Grade]) -> tuple[float, float]:
    """The worst and the best score there can be; as seen, where the grader's JSON does not say."""
    if grader.settings.clamp is not None:
        return grader.settings.clamp
    low, high = range_of(grader.spec)
    if isfinite(low):
        return low, high
    seen = [grade.reward for grade in grades if grade.error is None]
    return min([0.0, *seen]), max([1.0, *seen])


def _groups(rows: Sequence[Row], grades: Sequence[Grade]) -> list[list[float]]:
    groups: dict[str, list[float]] = {}
    for row, grade in zip(rows, grades, strict=True):
        if grade.error is None:
            groups.setdefault(row.group, []).append(grade.reward)
    return list(groups.values())


def _errors(rows: Sequence[Row], grades: Sequence[Grade]) -> list[Finding]:
    """Samples that got no score, and those that got the error score though experts do not call them failures."""
    findings = []
    unscored = [grade for grade in grades if grade.error is not None]
    if unscored:
        said = f"{len(unscored)} of {len(grades)} samples got no score; the first: {unscored[0].error}"
        findings.append(Finding(kind="unscored", said=said))
    deserved = probes.failures(rows)
    failed = [g for g, due in zip(grades, deserved, strict=True) if g.error is None and g.errors and not due]
    if len(failed) > ERRORS_MOST * deserved.count(False):
        flags = Counter(error.flag for grade in failed for error in grade.errors)
        first = failed[0].errors[0].said.strip().splitlines()[-1]
        named = ", ".join(f"{flag} {count}x" for flag, count in flags.items())
        findings.append(
            Finding(kind="errors", said=f"it failed on {len(failed)} samples that are no failures: {named}; {first}")
        )
    return findings
