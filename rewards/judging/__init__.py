"""Episodes judged by a model: against criteria, or against one another. docs/judges.md has what it sees and is asked."""

from rewards.judging.relative import Relative
from rewards.judging.rubric import Criterion, Rubric

__all__ = ["Criterion", "Relative", "Rubric"]
