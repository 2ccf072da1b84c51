"""`/v1/fine_tuning/jobs`: jobs, their events and their checkpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import StreamingResponse

from rl.hosted import shown
from rl.hosted.errors import ApiError
from rl.hosted.files import page
from rl.hosted.jobs import Jobs
from rl.hosted.store import ENDED, Checkpoint, Event, Job, Row
from rl.hosted.wire import StrictRoute

LOOK = 0.5
"""Seconds between two looks for new events of a stream."""
BATCH = 100
Limit = Annotated[int, Query(ge=1, le=100)]


def router(jobs: Jobs) -> APIRouter:
    """`/v1/fine_tuning/jobs`."""
    api = APIRouter(prefix="/v1/fine_tuning/jobs", route_class=StrictRoute, tags=["jobs"])

    @api.post("")
    def create(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Put a job into the queue."""
        return shown.job(jobs.create(body))

    @api.get("")
    def listed(request: Request, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
        """Jobs, newest first; `metadata[KEY]=VALUE` leaves out the others."""
        wanted = _metadata(request)
        found: list[Job] = []
        while len(found) <= limit:
            batch = _page(jobs, Job, after, BATCH)
            found += [job for job in batch if wanted.items() <= (job.body.get("metadata") or {}).items()]
            if len(batch) < BATCH:
                break
            after = batch[-1].id
        return page([shown.job(job) for job in found[: limit + 1]], limit)

    @api.get("/{job_id}")
    def retrieved(job_id: str) -> dict[str, Any]:
        """One job."""
        return shown.job(jobs.get(job_id))

    @api.post("/{job_id}/cancel")
    def cancel(job_id: str) -> dict[str, Any]:
        """End it."""
        return shown.job(jobs.cancel(job_id))

    @api.post("/{job_id}/pause")
    def pause(job_id: str) -> dict[str, Any]:
        """Have it finish its step, save and wait."""
        return shown.job(jobs.pause(job_id))

    @api.post("/{job_id}/resume")
    def resume(job_id: str) -> dict[str, Any]:
        """Go on with it."""
        return shown.job(jobs.resume(job_id))

    _add_told(api, jobs)
    return api


def _add_told(api: APIRouter, jobs: Jobs) -> None:
    """What a job tells: its events and its checkpoints."""

    @api.get("/{job_id}/events", response_model=None)
    def events(
        job_id: str, after: str | None = None, limit: Limit = 20, stream: bool = False
    ) -> dict[str, Any] | StreamingResponse:
        """What happened, newest first; as a stream in its order, from the event `after` on, until the job has ended."""
        jobs.get(job_id)
        if stream:
            _page(jobs, Event, after, 1, job=job_id)
            return StreamingResponse(_stream(jobs, job_id, after), media_type="text/event-stream")
        found = _page(jobs, Event, after, limit + 1, job=job_id)
        return page([shown.event(event) for event in found], limit)

    @api.get("/{job_id}/checkpoints")
    def checkpoints(job_id: str, after: str | None = None, limit: Limit = 10) -> dict[str, Any]:
        """The models that it made on its way and kept, newest first."""
        jobs.get(job_id)
        found = _page(jobs, Checkpoint, after, limit + 1, job=job_id)
        return page([shown.checkpoint(checkpoint) for checkpoint in found], limit)


def _page(jobs: Jobs, kind: type[Row], after: str | None, limit: int, **equal: Any) -> list[Row]:
    found = jobs.store.page(kind, after=after, limit=limit, **equal)
    if found is None:
        raise ApiError(400, f"There is nothing of the id {str(after)[:200]!r} to go on after", param="after")
    return found


def _metadata(request: Request) -> dict[str, str]:
    return {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }


async def _stream(jobs: Jobs, job: str, after: str | None) -> AsyncIterator[str]:
    while True:
        ended = jobs.get(job).status in ENDED  # before looking: what is told with the end must not be missed
        found = jobs.store.page(Event, after=after, limit=BATCH, newest_first=False, job=job) or []
        for event in found:
            yield f"data: {json.dumps(shown.event(event))}\n\n"
            after = event.id
        if len(found) == BATCH:
            continue
        if ended:
            yield "data: [DONE]\n\n"
            return
        await asyncio.sleep(LOOK)
