"""What can be wrong with a grader, by name, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "fix", "stop"]
Verdict = Literal["go", "fix these", "don't use RFT for this"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know about a grader: which kind of thing it is, and what was seen."""

    kind: str
    """A key of `KINDS`."""
    said: str

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind]

    def as_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "severity": self.severity, "said": self.said}


def verdict(findings: Iterable[Finding]) -> Verdict:
    """The worst of what was found decides."""
    severities = {finding.severity for finding in findings}
    if "stop" in severities:
        return "don't use RFT for this"
    return "fix these" if "fix" in severities else "go"


KINDS: dict[str, Severity] = {
    # What labels say.
    "experts_disagree": "stop",
    "no_labels": "fix",
    "few_labels": "note",
    "disagrees": "fix",
    "inverted": "fix",
    "constant": "fix",
    # What the samples of one prompt say.
    "solved": "stop",
    "hopeless": "stop",
    "few_useful_groups": "fix",
    "no_samples_per_prompt": "note",
    # What grading twice says.
    "unstable": "fix",
    "order_bias": "fix",
    "edit_bias": "fix",
    # What probes say.
    "pays_empty": "fix",
    "pays_refusal": "fix",
    "pays_copying": "fix",
    "pays_stuffing": "fix",
    "pays_all_labels": "fix",
    "pays_length": "fix",
    "pays_nonsense": "fix",
    "pays_injection": "fix",
    "pays_exceptions": "fix",
    # What running it says.
    "unscored": "fix",
    "errors": "fix",
    # What reading it says.
    "missing_field": "fix",
    "sparse_field": "fix",
    "ignores_sample": "fix",
    "reversed_contains": "fix",
    "unused_grader": "fix",
    "leaves_range": "fix",
    "formula_fault": "fix",
    "failing_pays": "fix",
    "outvotes_correctness": "fix",
    "same_grader_twice": "note",
    "unformatted_json": "note",
    "runs_the_sample": "fix",
    "random_source": "fix",
    "hosted_limit": "note",
}
"""Every kind of finding there is -> what it does to the verdict."""
