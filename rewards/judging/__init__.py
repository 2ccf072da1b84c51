"""Episodes judged by a model: against criteria, or against one another. docs/judges.md says how."""

from rewards.judging.relative import Relative
from rewards.judging.rubric import Criterion, Rubric

__all__ = ["Criterion", "Relative", "Rubric"]
