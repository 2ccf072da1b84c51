"""What grading a job takes here, and what the job would take on the hosted service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rewards.graders.run import Grade, Grader

HOSTED_HOUR = 100.0
"""US dollars for an hour of hosted training, as published."""
HOSTED_SECONDS = 731 / 510
"""Wall-clock seconds a training rollout took in the one hosted job whose events are public, grading included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How much is graded."""

    rows: int
    epochs: int = 1
    group: int = 8
    """Samples of a row in each epoch."""
    validation_rows: int = 0
    evaluations: int = 0

    @property
    def rollouts(self) -> int:
        return self.rows * self.epochs * self.group

    @property
    def grades(self) -> int:
        return self.rollouts + self.validation_rows * self.evaluations


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of grading one sample, and of a job."""

    seconds_each: float
    tokens_each: float
    grades: int
    grading_seconds: float
    """One after the other; many run at once."""
    grading_money: float
    """US dollars for judges here, where the judge's config has prices."""
    hosted_hours: float
    """From the pace of one public job: an order of magnitude."""
    hosted_money: float
    """US dollars for those hours; judges' tokens come on top, at the service's own prices."""
    hosted_judge_tokens: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(grader: Grader, grades: Sequence[Grade], job: Job) -> Cost:
    """The cost of a job, from what these grades took."""
    each = Counter[str]()
    money = 0.0
    judge = grader.services.judge
    for grade in grades:
        for model, used in grade.usage.items():
            each.update(used)
            if judge is not None:
                money += judge.price(judge.config.models.get(model, model), used)
    seconds, count = fmean(grade.seconds for grade in grades), len(grades)
    tokens = each["total_tokens"] / count
    hours = job.rollouts * HOSTED_SECONDS / 3600
    return Cost(
        seconds_each=seconds,
        tokens_each=tokens,
        grades=job.grades,
        grading_seconds=seconds * job.grades,
        grading_money=money / count * job.grades,
        hosted_hours=hours,
        hosted_money=hours * HOSTED_HOUR,
        hosted_judge_tokens=round(tokens * job.grades),
    )
