"""What goes into a sandbox and what comes out, as records; and whose fault it is when nothing does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from envs.errors import EnvLost, ToolError
from envs.sandbox.inside.plan import GRADER, TOOL, Limits

__all__ = [
    "GRADER",
    "TOOL",
    "Ended",
    "Graded",
    "GraderError",
    "InfraError",
    "Limits",
    "Outcome",
    "PolicyError",
    "Result",
]

Ended = Literal["exit", "signal", "timeout", "cpu", "memory", "disk", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a command ended, and what it wrote."""

    ended: Ended
    """By itself (`exit`, `signal`), or by the limit that stopped it."""
    exit_code: int | None
    """None where a signal ended it."""
    signal: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    """Whether more was written than is kept."""
    seconds: float
    cpu_seconds: float
    peak_memory: int
    """Bytes, of the largest process that was waited for."""

    @property
    def ok(self) -> bool:
        return self.ended == "exit" and self.exit_code == 0


class PolicyError(ToolError):
    """The model's: a path that leads out, a file that is not there, a limit that was hit, a sandbox it destroyed.

    Raised inside a tool it becomes text for the model. As the outcome of a grader call it is what the judged sample
    may have provoked, and is worth the configured error score, not a pass.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        """`path`, `not_found`, `not_a_file`, `too_large`, `disk`, `refused`, `arguments`, `timeout`, `cpu`, `memory`,
        `output`, `destroyed`."""


class GraderError(Exception):
    """The grader's: its source does not run, or what it returned is no score."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        """`syntax`, `no_function`, `raised`, `no_number`, `not_finite`, `out_of_range`, `no_result`, `bad_result`."""


class InfraError(EnvLost):
    """The machinery's: no sandbox could be had, or one was lost through no doing of its own. Worth a retry."""

    kind = "infra"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A grader's score."""

    value: float
    log: str
    """What it printed, cut to the limit."""
    seconds: float


Outcome = Graded | PolicyError | GraderError | InfraError
"""Of a grader call: a score, or whose fault it is that there is none."""
