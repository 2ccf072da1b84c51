"""A job as its run directory tells of it: steps become events, evaluated checkpoints become models.

The run is written by another process, which may be killed and go back to its last checkpoint. A step that it takes
again is not told again: an event stands as it was first told, and the results file has the numbers of the steps that
made the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rewards.graders import parse
from rl import checkpoint
from rl.hosted import metrics
from rl.hosted.events import event
from rl.hosted.plan import KEPT
from rl.hosted.store import Checkpoint, Job, Store, now
from rl.records import CONFIG, Run

WATCHED = ("metrics.jsonl", "evaluations.jsonl")
"""Files whose growth says that a step may be whole."""


class Follower:
    """One job's run, looked at now and again. Making another one of the same run tells nothing twice."""

    def __init__(self, job: Job, run: Path, store: Store) -> None:
        self._job, self._run, self._store = job, run, store
        rewarded = job.method.get("reinforcement")
        self._grader = None if rewarded is None else parse(rewarded["grader"])
        self._told = 0
        self._seen: object = None

    def look(self) -> None:
        """Tell what is new."""
        seen = [_stamp(self._run / name) for name in WATCHED] + sorted(map(_stamp, self._manifests()))
        if seen == self._seen or not (self._run / CONFIG).exists():
            return
        run = Run.read(self._run)
        for found in self._steps(run, after=self._told):
            step = found["step"]
            self._store.add(event(self._job.id, self._said(found), cause=f"step/{step}", metrics=found))
            self._told = step
        self._keep_checkpoints(run)
        self._seen = seen

    def results(self) -> str:
        """The results file of the run."""
        table = metrics.supervised_results if self._grader is None else metrics.results
        return table(self._steps(Run.read(self._run)))

    @property
    def trained_tokens(self) -> int:
        """What was sampled and learned from; of a supervised job, what was read."""
        run = Run.read(self._run)
        if self._grader is None:
            return max((int(line.get("num_tokens", 0)) for line in run.metrics.read()), default=0)
        return sum(one.played.episode.cost.sampled_tokens for one in run.episodes())

    def _steps(self, run: Run, *, after: int = 0) -> Iterator[dict[str, Any]]:
        if self._grader is None:
            return metrics.of_supervised(run, after=after)
        return metrics.of_run(run, self._grader, after=after)

    def _said(self, found: Mapping[str, Any]) -> str:
        if self._grader is not None:
            return metrics.message(found)
        valid = found["valid_loss"]
        said = f"Step {found['step']}/{found['total_steps']}: training loss={found['train_loss']:.2f}"
        return said if valid is None else f"{said}, validation loss={valid:.2f}"

    def _keep_checkpoints(self, run: Run) -> None:
        """List the best of the checkpoints there are, and no others; of a supervised job the newest."""
        there = {checkpoint.step_of(path.parent) for path in self._manifests()}
        shown: dict[int, dict[str, Any]] = {step: {"step": step} for step in sorted(there)[-KEPT:]}
        if self._grader is not None:
            scores = {line["step"]: line["score"] for line in run.evaluations() if line["score"] is not None}
            best = checkpoint.best({step: scores[step] for step in there & scores.keys()}, KEPT)
            shown = {
                step: {"step": step, "valid_reward_mean": scores[step], "full_valid_mean_reward": scores[step]}
                for step in best
            }
        listed = {one.step: one for one in self._store.all(Checkpoint, job=self._job.id)}
        for step in listed.keys() - shown.keys():
            self._store.remove(Checkpoint, listed[step].id)
        for step in sorted(shown.keys() - listed.keys()):
            self._list(step, shown[step])

    def _list(self, step: int, measured: Mapping[str, Any]) -> None:
        name = f"{self._job.fine_tuned_model}:ckpt-step-{step}"
        digest = hashlib.sha256(name.encode()).hexdigest()
        found = Checkpoint(
            id=f"ftckpt_{digest[:24]}",
            job=self._job.id,
            created_at=now(),
            step=step,
            model=name,
            metrics=measured,
        )
        self._store.add(found, event(self._job.id, f"Checkpoint created at step {step}", cause=f"checkpoint/{step}"))

    def _manifests(self) -> list[Path]:
        return list(self._run.glob(f"{checkpoint.PREFIX}*/{checkpoint.MANIFEST}"))


def _stamp(path: Path) -> tuple[str, int]:
    return str(path), path.stat().st_size if path.exists() else -1
