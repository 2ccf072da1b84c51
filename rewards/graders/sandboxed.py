"""Where python graders run unless told otherwise: in sandboxes, each call in namespaces of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from envs.sandbox import Graded, InfraError, Limits, SandboxSettings, shared
from rewards.graders.python import Limits as HostedLimits
from rewards.graders.python import PoolError, Ran

HOSTED = HostedLimits()
LIMITS = Limits(
    wall=HOSTED.seconds,
    memory=HOSTED.memory,
    disk=HOSTED.disk,
    output=HOSTED.output,
    pids=32,
    inodes=10_000,
    open_files=256,
    lifetime=600.0,
)
"""Of one call: the hosted ones, and what those leave unsaid. `lifetime` is the waiting process's."""


class SandboxPool:
    """A `GraderPool` of the event loop's sandboxes, which are opened at the first call if nobody did before.

    Graders run under the system's Python, which every user may run, and import what that has.

    Args:
        settings: other sandboxes than those that all share: another tier, or another interpreter.
    """

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self._settings = settings

    async def grade(self, source: str, *, sample: Mapping[str, Any], item: Mapping[str, Any]) -> Ran:
        """What `grade(sample, item)` of a source came to.

        Raises:
            InputError: no tier of sandbox holds on this machine; says what to install.
            PoolError: the sandboxes could not be had.
        """
        try:
            sandboxes = await shared(self._settings)
        except InfraError as error:
            raise PoolError(f"no sandbox for python graders: {error}") from error
        found = await sandboxes.grade(source, sample, item, low=-math.inf, high=math.inf, limits=LIMITS)
        if isinstance(found, InfraError):
            raise PoolError(str(found))
        if isinstance(found, Graded):
            return Ran(value=found.value, output=found.log, seconds=found.seconds)
        return Ran(value=None, error=f"{found.kind}: {found}")
