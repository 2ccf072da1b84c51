"""Sandboxes for a run: probed at start and again every ten minutes, and ready before they are needed.

async with Sandboxes() as sandboxes:
    async with sandboxes.episode(files={"a.py": "print(6 * 7)"}) as sandbox:
        result = await sandbox.exec(["python3", "a.py"])
    outcome = await sandboxes.grade(source, {"output": result.stdout.decode()}, {"answer": "42"})
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from envs.sandbox.box import Keeper, Sandbox
from envs.sandbox.doctor import Findings, find_tier
from envs.sandbox.graders import Graders
from envs.sandbox.inside.plan import GRADER
from envs.sandbox.probes import examine
from envs.sandbox.records import InfraError, Limits, Outcome
from envs.sandbox.settings import SandboxSettings

PROBE_EVERY = 600.0
"""Seconds between two looks at whether the sandboxes still hold."""


class Sandboxes:
    """All the sandboxes of a run. Refuses to start where none holds, and stops giving them out when one does not."""

    def __init__(
        self,
        settings: SandboxSettings | None = None,
        *,
        standby: int = 2,
        graders: int | None = None,
    ) -> None:
        """
        Args:
            settings: which tier, and the limits of an episode's sandbox; the best tier that holds unless given.
            standby: how many episode sandboxes are kept ready.
            graders: grader calls at once; one a core unless given.
        """
        self.settings = settings or SandboxSettings()
        self.findings: Findings | None = None
        self._standby = standby
        self._size = graders or len(os.sched_getaffinity(0))
        self._ready: list[Keeper] = []
        self._filling = asyncio.Lock()
        self._graders: dict[Limits, Graders] = {}
        self._broken: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Raises:
        InputError: no tier holds here, or the one that was asked for does not; the message says what to install.
        InfraError: the machinery failed.
        """
        self.findings, self.broker = await find_tier(self.settings)
        if self.findings.tier == "unsafe":
            print(f"sandbox: UNSAFE, code runs unprotected as this user: {self.settings.reason}", file=sys.stderr)
        self._start(self._refill())
        if self.findings.tier != "unsafe":
            self._start(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Raises:
        InfraError: something of a sandbox is left.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for graders in self._graders.values():
            graders.abandon()
        while self._ready:
            self._ready.pop().abandon()
        await self.broker.close()

    def record(self) -> dict[str, Any]:
        """What the run's records should say of its sandboxes. JSON values."""
        assert self.findings is not None, "not started"
        return self.findings.record() | ({"reason": self.settings.reason} if self.settings.reason else {})

    async def open(self, files: Mapping[str, str | bytes] | None = None, limits: Limits | None = None) -> Sandbox:
        """A fresh sandbox with these files in its workspace. Close it.

        Raises:
            InfraError: none can be had.
            PolicyError: a file's path leads out of the workspace, or the files do not fit.
        """
        self._check()
        keeper = await self._keeper(limits)
        sandbox = Sandbox(keeper)
        try:
            for path, content in (files or {}).items():
                await sandbox.write(path, content)
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    @asynccontextmanager
    async def episode(
        self, files: Mapping[str, str | bytes] | None = None, limits: Limits | None = None
    ) -> AsyncIterator[Sandbox]:
        """`open` and `close`."""
        sandbox = await self.open(files, limits)
        try:
            yield sandbox
        finally:
            await sandbox.close()

    async def grade(
        self,
        source: str,
        sample: Any,
        item: Mapping[str, Any],
        *,
        low: float = 0.0,
        high: float = 1.0,
        limits: Limits = GRADER,
    ) -> Outcome:
        """Call `grade(sample, item)` of a grader's source in a fresh sandbox; see `Graders.grade`."""
        if self._broken is not None:
            return InfraError(self._broken)
        graders = self._graders.get(limits)
        if graders is None:
            graders = self._graders[limits] = Graders(self.broker, limits, self._size)
        return await graders.grade(source, sample, item, low, high)

    @property
    def python(self) -> str:
        """The interpreter that code in a sandbox may run."""
        return self.broker.machine.python

    async def _keeper(self, limits: Limits | None) -> Keeper:
        """One from the standby if its limits are the usual ones; each is used once."""
        if limits is None or limits == self.settings.limits:
            while self._ready:
                keeper = self._ready.pop(0)
                self._start(self._refill())
                if not self.broker.ended(keeper.slot):
                    await self.broker.renew(keeper.slot)
                    return keeper
                await keeper.close()
        return await Keeper.open(self.broker, "episode", limits or self.settings.limits)

    def _check(self) -> None:
        if self._broken is not None:
            raise InfraError(self._broken)

    async def _refill(self) -> None:
        async with self._filling:  # two at once would make more than there is use for
            while len(self._ready) < self._standby:
                keeper = await Keeper.open(self.broker, "episode", self.settings.limits)
                self._ready.append(keeper)

    async def _watch(self) -> None:
        """Probe again from time to time. What fails once is not trusted again."""
        while True:
            await asyncio.sleep(PROBE_EVERY)
            try:
                failed = [verdict for verdict in await examine(self.broker) if not verdict.holds]
            except InfraError as error:
                self._broken = f"the sandboxes could not be probed: {error}"
                return
            if failed:
                said = "; ".join(f"{verdict.name}: {verdict.detail}" for verdict in failed)
                self._broken = f"the sandboxes no longer hold ({said})"
                return

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(task.exception(), InfraError):
            return  # whoever needs the next sandbox starts one, and sees for himself
