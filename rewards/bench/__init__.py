"""The test bench for graders: is this grader any good, before any training?"""

from rewards.bench.cost import Job
from rewards.bench.examine import Options, Report, examine
from rewards.bench.findings import KINDS, Finding

__all__ = ["KINDS", "Finding", "Job", "Options", "Report", "examine"]
