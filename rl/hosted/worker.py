"""What runs jobs: one at a time, each in a process that is told to stop, followed, and gone on with after a kill."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from envs.errors import InputError
from rl import cli
from rl.engines import EngineError
from rl.hosted.base import ServedBase
from rl.hosted.child import Child
from rl.hosted.events import event
from rl.hosted.files import RESULTS, Files
from rl.hosted.follow import Follower
from rl.hosted.places import Places
from rl.hosted.store import Job, Store, now
from rl.lock import held

log = logging.getLogger(__name__)

LOOK = 0.3
"""Seconds between two looks at a job that runs, and for one that waits."""
GRACE = 30.0
"""Seconds that a run may take to finish its step when the server stops; what it does not finish is done again."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """Runs the jobs of a store for as long as `run` does.

    Args:
        make_room: called before a job starts, to free the device that it will train on.
        done: called when it has ended.
    """

    store: Store
    files: Files
    places: Places
    base: ServedBase
    make_room: Callable[[], Awaitable[None]]
    done: Callable[[], None]
    _child: Child | None = field(default=None)

    async def run(self) -> None:
        """Run jobs until cancelled: those that a stopped server left running first, then the queue in its order."""
        for job in self.store.jobs_in("running"):
            self.store.add(event(job.id, "The server was started again; the job goes on from its last checkpoint"))
        while True:
            waiting = [*self.store.jobs_in("running"), *self.store.jobs_in("queued")]
            if not waiting:
                await asyncio.sleep(LOOK)
                continue
            try:
                await self._job(waiting[0])
            except Exception as error:  # a bug here must not stop the jobs behind this one
                log.exception("job %s can't be run", waiting[0].id)
                self._fail(waiting[0].id, f"the server failed on this job: {error}", "server_error")

    async def close(self) -> None:
        """Have the run that goes on finish its step, if it can soon."""
        child, self._child = self._child, None
        if child is not None:
            child.interrupt()
            try:
                await asyncio.wait_for(child.wait(), GRACE)
            except TimeoutError:
                await child.end(GRACE)

    async def _job(self, job: Job) -> None:
        if job.status == "queued":
            moved = self.store.move(
                job.id, "running", expect=("queued",), tell=[event(job.id, "Fine-tuning job started")]
            )
            if moved is None:  # it was cancelled or paused a moment ago
                return
        follower = Follower(job, self.places.run(job.id), self.store)
        await self.make_room()
        try:
            if not await self._based(job):
                code, reason = cli.INTERRUPTED, ""
            else:
                code, reason = await self._train(job, follower)
        except EngineError as error:
            code, reason = cli.BROKEN, str(error)
        finally:
            self.done()
        await asyncio.to_thread(follower.look)
        wish = self._wish(job)
        if code == cli.OK:
            await asyncio.to_thread(self._succeed, job, follower)
        elif wish == "cancel":
            told = event(job.id, "The job was cancelled")
            self.store.move(job.id, "cancelled", expect=("running",), tell=[told], wish=None, finished_at=now())
        elif wish == "pause":
            told = event(job.id, "The job was paused")
            self.store.move(job.id, "paused", expect=("running",), tell=[told], wish=None)
        else:
            self._fail(job.id, reason, "invalid_job" if code == cli.BAD_INPUT else "training_failed")

    async def _based(self, job: Job) -> bool:
        """Wait until the base model is there; False if something was wished of the job before it was."""
        ready = asyncio.ensure_future(self.base.ready())
        try:
            while self._wish(job) is None:
                done, _ = await asyncio.wait([ready], timeout=LOOK)
                if done:
                    await ready
                    return True
            return False
        finally:
            ready.cancel()

    async def _train(self, job: Job, follower: Follower) -> tuple[int, str]:
        """Run a job's process to its end; its exit code, and what it said last."""
        while held(self.places.run(job.id) / ".lock"):  # the process of a killed server takes a moment to notice
            await asyncio.sleep(LOOK)
        child = self._child = await Child.start(self.places.log(job.id), "train", str(self.places.config(job.id)))
        try:
            code = await self._accompany(job, child, follower)
        except Exception:
            await child.end()  # or it would train beside the next job
            raise
        self._child = None
        return code, child.reason()

    async def _accompany(self, job: Job, child: Child, follower: Follower) -> int:
        """Tell what a run does, and the run what is wished, until it has ended."""
        asked = False
        while child.code is None:
            wish = self._wish(job)
            if wish == "cancel":
                await child.end()
            elif wish == "pause" and not asked:
                child.interrupt()
                asked = True
            with suppress(InputError):  # read while the run took steps back; at its end nothing is suppressed
                await asyncio.to_thread(follower.look)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(child.wait()), LOOK)
        return child.code

    def _wish(self, job: Job) -> str | None:
        found = self.store.get(Job, job.id)
        return None if found is None else found.wish

    def _succeed(self, job: Job, follower: Follower) -> None:
        results = self.files.add(
            io.BytesIO(follower.results().encode()),
            filename="step_metrics.csv",
            purpose=RESULTS,
            id=f"file-{job.id.removeprefix('ftjob-')}",
        )
        told = [
            event(job.id, f"New fine-tuned model created: {job.fine_tuned_model}"),
            event(job.id, "The job has successfully completed"),
        ]
        self.store.move(
            job.id,
            "succeeded",
            expect=("running",),
            tell=told,
            wish=None,
            finished_at=now(),
            result_files=[results.id],
            trained_tokens=follower.trained_tokens,
        )

    def _fail(self, id: str, message: str, code: str) -> None:
        error = {"code": code, "message": message, "param": None}
        told = event(id, f"The job failed: {message}", level="error")
        self.store.move(id, "failed", expect=("running",), tell=[told], wish=None, finished_at=now(), error=error)
