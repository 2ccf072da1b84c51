"""Jobs as they are asked for: checked, queued, paused, resumed, cancelled. What runs them is `rl.hosted.worker`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any

import yaml

from rl.config import Config
from rl.hosted import body, plan, rows
from rl.hosted.errors import ApiError, missing
from rl.hosted.events import event
from rl.hosted.files import Files
from rl.hosted.local import Base, Local
from rl.hosted.models import Models
from rl.hosted.places import Places
from rl.hosted.refusal import Refused
from rl.hosted.store import File, Job, Status, Store, new_id, now
from rl.whole import write_whole

QUEUE = 16
"""How many jobs may wait."""
SEEDS = 2**31 - 1
OWNER = "local"
"""What stands in a model's name for an organization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """The jobs of a server."""

    store: Store
    files: Files
    models: Models
    places: Places
    local: Local

    def create(self, tree: Any) -> Job:
        """Check a job and its files, and put it at the end of the queue.

        Raises:
            Refused: something in it can't be used.
            ApiError: 429, the queue is full.
        """
        asked = body.read(tree)
        if len(self.store.jobs_in("queued")) >= QUEUE:
            raise ApiError(429, f"{QUEUE} jobs are waiting, and no more can; cancel one, or wait until one has ended")
        id, seed = new_id("ftjob"), asked.seed if asked.seed is not None else secrets.randbelow(SEEDS)
        planned = self._plan(asked.model_copy(update={"seed": seed}), id)
        kind = asked.method.type
        method = asked.method.model_dump(mode="json", by_alias=True, exclude_none=True)
        method[kind]["hyperparameters"] = dict(planned.hyperparameters)
        job = Job(
            id=id,
            created_at=now(),
            status="queued",
            model=asked.model,
            body=tree,
            method=method,
            seed=seed,
            fine_tuned_model=_name(asked.model, asked.suffix, id),
        )
        self.places.job(id).mkdir()
        write_whole(self.places.config(id), yaml.safe_dump(planned.config.model_dump(mode="json"), sort_keys=False))
        said = [event(id, text, level="warn") for text in planned.said]
        told = ["Files validated, moving job to queued state", f"Created fine-tuning job: {id}"]
        self.store.add(job, *(event(id, text) for text in reversed(told)), *said)
        return job

    def get(self, id: str) -> Job:
        """The job of this id.

        Raises:
            ApiError: 404, there is none.
        """
        job = self.store.get(Job, id)
        if job is None:
            raise missing("fine-tuning job", id)
        return job

    def cancel(self, id: str) -> Job:
        """End a job; its checkpoints stay.

        Raises:
            ApiError: 404; 400, it has ended.
        """
        job, told = self.get(id), event(id, "The job was cancelled")
        waiting: tuple[Status, ...] = ("validating_files", "queued", "paused")
        moved = self.store.move(id, "cancelled", expect=waiting, tell=[told], finished_at=now())
        moved = moved or self.store.move(id, expect=("running",), wish="cancel")
        if moved is None:
            raise _stands(job, "cancelled")
        return moved

    def pause(self, id: str) -> Job:
        """Have a job finish its step, save and wait.

        Raises:
            ApiError: 404; 400, it has ended, is paused or is being cancelled.
        """
        job, told = self.get(id), event(id, "The job was paused")
        moved = self.store.move(id, "paused", expect=("validating_files", "queued"), tell=[told])
        if moved is None and job.wish != "cancel":
            moved = self.store.move(id, expect=("running",), wish="pause")
        if moved is None:
            raise _stands(job, "paused")
        return moved

    def resume(self, id: str) -> Job:
        """Put a paused job back into the queue; it goes on from its last checkpoint.

        Raises:
            ApiError: 404; 400, it is not paused.
        """
        job, told = self.get(id), event(id, "The job was resumed, moving it to queued state")
        moved = self.store.move(id, "queued", expect=("paused",), tell=[told])
        if moved is None:
            raise _stands(job, "resumed")
        return moved

    def _plan(self, asked: body.Body, id: str) -> plan.Plan:
        local = self._knowing_own(asked.model)
        local.base(asked.model)
        train = self._file(asked.training_file, "training_file")
        valid = None if asked.validation_file is None else self._file(asked.validation_file, "validation_file")
        place = self.places.run(id)
        if asked.reinforcement is None:
            held_out = None if valid is None else self.files.path(valid.id)
            planned = plan.supervised(
                asked, train=self.files.path(train.id), valid=held_out, local=local, output_dir=place
            )
        else:
            assert valid is not None, "a reinforcement job without one was refused"
            planned = plan.plan(
                asked,
                train=self._rows(train, "training_file"),
                valid=self._rows(valid, "validation_file"),
                local=local,
                output_dir=place,
            )
        return replace(planned, config=self._on_shared_base(planned.config))

    def _knowing_own(self, name: str) -> Local:
        """The local settings, with a model that was fine-tuned here under its name."""
        if name in self.local.models or not name.startswith("ft:"):
            return self.local
        try:
            adapter = self.models.adapter(name)
        except ApiError:
            return self.local
        own = Base(model=self.models.base, adapter=adapter)
        return self.local.model_copy(update={"models": {**self.local.models, name: own}})

    def _file(self, id: str, param: rows.Param) -> File:
        file = self.store.get(File, id)
        if file is None:
            raise Refused(f"There is no file {id[:200]!r}: upload it first", param=param, code=f"invalid_{param}")
        return file

    def _rows(self, file: File, param: rows.Param) -> rows.Rows:
        return rows.read(self.files.path(file.id), param, name=file.filename)

    def _on_shared_base(self, config: Config) -> Config:
        """The embedded policy is made once for all jobs, not in every run directory."""
        if config.model != "tiny":
            return config
        return config.model_copy(update={"model": str(self.places.base), "tiny": {}})


def _stands(job: Job, what: str) -> ApiError:
    how = f"is {job.status}" + (f" and about to {job.wish}" if job.wish else "")
    return ApiError(400, f"Job {job.id} {how}: it can't be {what}", param="id", code="invalid_job_state")


def _name(model: str, suffix: str | None, id: str) -> str:
    """What a fine-tuned model is called: the base, whose it is, the suffix, and 8 digits of the job."""
    base = model.split(":")[1] if model.startswith("ft:") else model
    return f"ft:{base}:{OWNER}:{suffix or ''}:{id[-8:]}"
