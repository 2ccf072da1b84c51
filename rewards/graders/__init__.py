"""Graders in the JSON of hosted reinforcement fine-tuning. docs/hosted.md has every behaviour, known and decided."""

from rewards.graders.errors import GradingError
from rewards.graders.formula import Formula, FormulaError, FormulaFault
from rewards.graders.judge import Judge, JudgeConfig, JudgeError
from rewards.graders.python import GraderPool, PoolError, Ran, UnsafeSubprocess
from rewards.graders.run import Grade, Grader, Services
from rewards.graders.sandboxed import SandboxPool
from rewards.graders.settings import Settings
from rewards.graders.spec import load, parse
from rewards.graders.template import MissingVariable, Template

__all__ = [
    "Formula",
    "FormulaError",
    "FormulaFault",
    "Grade",
    "Grader",
    "GraderPool",
    "GradingError",
    "Judge",
    "JudgeConfig",
    "JudgeError",
    "MissingVariable",
    "PoolError",
    "Ran",
    "SandboxPool",
    "Services",
    "Settings",
    "Template",
    "UnsafeSubprocess",
    "load",
    "parse",
]
