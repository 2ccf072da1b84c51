"""What a sandbox is asked to be: its limits, its layers of protection, and where its files lie."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What code in a sandbox may use. Sizes are bytes, times are seconds."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    wall: float = 60.0
    """Of one command, by the clock. Everything that runs in the sandbox is killed when it is over."""
    cpu: float | None = None
    """CPU time of one process; `wall` unless given."""
    memory: int = 2048 * MIB
    """Of all processes together."""
    pids: int = 128
    """Processes and threads at once."""
    disk: int = 256 * MIB
    """The workspace, and again as much for /tmp where there is one."""
    inodes: int = 50_000
    """Files and directories in the workspace."""
    open_files: int = 1024
    """Descriptors of one process."""
    output: int = 1 * MIB
    """What is kept of stdout, and of stderr. A command that writes sixteen times as much is killed."""
    lifetime: float = 1800.0
    """Of the sandbox as a whole."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None and name == "cpu":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"limit {name} is a number more than 0, not {value!r}")

    @property
    def flood(self) -> int:
        """Bytes of output that get a command killed."""
        return 16 * self.output


TOOL = Limits()
"""For the commands of an episode."""

GRADER = Limits(wall=30.0, pids=32, disk=64 * MIB, inodes=10_000, open_files=256, output=MIB // 4, lifetime=600.0)
"""For one grader call, of which `lifetime` is the pool process's."""


@dataclass(frozen=True)
class Plan:
    """Everything a keeper needs to know. Made by the broker, sent before anything else."""

    tier: str
    """`bwrap`, `landlock` or `unsafe`."""
    kind: str
    """`episode` runs commands in a workspace that lasts, `grader` runs each call in one of its own."""
    layers: frozenset[str]
    limits: Limits
    uid: int
    """Of the slot; what runs inside has it outside as well."""
    workspace: str
    tmp: str
    readable: tuple[str, ...]
    """Trees that are readable beside the system's own."""
    counted: bool
    """A cgroup counts memory and processes; else a watcher adds them up, and what it can't see is refused."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "layers": sorted(self.layers)}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Plan:
        given = {**tree, "layers": frozenset(tree["layers"]), "readable": tuple(tree["readable"])}
        return cls(**{**given, "limits": Limits(**tree["limits"])})


ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "TERM": "dumb",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""What code in a sandbox finds in its environment, beside HOME and TMPDIR. Nothing is inherited."""
