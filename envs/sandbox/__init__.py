"""Places to run code that nobody vouches for: four verbs, limits, and tiers that are tried before they are trusted."""

from envs.sandbox.box import Sandbox
from envs.sandbox.doctor import Findings, find_tier
from envs.sandbox.pool import Sandboxes
from envs.sandbox.probes import Verdict
from envs.sandbox.records import (
    GRADER,
    TOOL,
    Graded,
    GraderError,
    InfraError,
    Limits,
    Outcome,
    PolicyError,
    Result,
)
from envs.sandbox.settings import SandboxSettings
from envs.sandbox.shared import share, shared

__all__ = [
    "GRADER",
    "TOOL",
    "Findings",
    "Graded",
    "GraderError",
    "InfraError",
    "Limits",
    "Outcome",
    "PolicyError",
    "Result",
    "Sandbox",
    "SandboxSettings",
    "Sandboxes",
    "Verdict",
    "find_tier",
    "share",
    "shared",
]
