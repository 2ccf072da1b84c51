"""The records of a finished run -> its numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any

from envs.errors import InputError
from rl.ablate.credits import Tally, tally
from rl.ablate.plan import Cell
from rl.hacking import Alarm
from rl.lookout import watched
from rl.records import Run

HOLDOUT = "eval/sampled/holdout"
"""The label of the evaluations that success is read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An evaluation during training."""

    step: int
    tokens: int
    """Sampled in training by then."""
    success: float
    """By the holdout grader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the training of one run took, evaluations left out."""

    steps: int
    episodes: int
    sampled_tokens: int
    prompt_tokens: int
    tool_calls: int
    graded: int
    """Scores that came from grader files, judges among them."""
    seconds: float
    """Of its training steps, rollouts included."""
    money: float
    """US dollars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run showed."""

    arm: str
    seed: int
    curve: tuple[Point, ...]
    reward: Mapping[int, float]
    """Step -> mean total reward of its training episodes."""
    pass_at: Mapping[int, float]
    """Of the last evaluation, by the holdout grader."""
    pass_hat: Mapping[int, float]
    spent: Spent
    confounds: Mapping[str, float]
    """Means over steps of CONFOUNDS, by their names here."""
    alarms: tuple[Alarm, ...]
    alarmed: bool
    """Ended by an alarm, before its budget was used."""
    versions: Mapping[str, Any]
    dealt: Mapping[int, str]
    """Place in the order of training -> task."""
    held_out: frozenset[str]
    """The episodes of the last evaluation, by task and sample."""
    credit: Tally | None
    """Advantages by turn, as far as the records can tell."""

    def success(self, last: int) -> float:
        """The mean of the last evaluations after training began."""
        return fmean([point.success for point in self.curve if point.step > 0][-last:])

    def reached(self, threshold: float) -> Point | None:
        """The first evaluation with at least so much success."""
        return next((point for point in self.curve if point.success >= threshold), None)

    @property
    def best(self) -> Point:
        return max(self.curve, key=lambda point: point.success)

    @property
    def lost(self) -> Point | None:
        """The first evaluation after the best one with under half of its success."""
        best = self.best
        return next((p for p in self.curve if p.step > best.step and p.success < best.success / 2), None)


CONFOUNDS = {
    "advantage RMS before rescaling": "credit/rms",
    "share of tokens with credit": "credit/share",
    "flat groups a step": "rollout/flat_groups",
    "gradient norm": "grad_norm",
    "entropy": "entropy",
}
"""What differs between recipes beside what they are about -> the metric that says how much."""


def result(cell: Cell) -> Result:
    """Read a finished run.

    Raises:
        InputError: a record is damaged, or its evaluations were not scored by a holdout grader.
    """
    run = Run.read(cell.path)
    lines = [line for line in run.metrics.read() if "loss" in line]
    evaluations = {entry["step"]: entry for entry in run.evaluations() if entry["label"] == HOLDOUT}
    scored = {step: entry for step, entry in sorted(evaluations.items()) if entry["success"] is not None}
    if not any(step > 0 for step in scored):
        raise InputError(f"{cell.path} has no evaluation that its holdout grader could score")
    spent, sampled, dealt = _spent(run, sum(line.get("step_time", 0.0) for line in lines))
    last = scored[max(scored)]
    words = [entry["kind"] for entry in run.ledger.read()]
    return Result(
        arm=cell.arm,
        seed=cell.seed,
        curve=tuple(
            Point(step=step, tokens=_by(sampled, step), success=entry["success"]["mean"])
            for step, entry in scored.items()
        ),
        reward={line["step"]: line["reward"] for line in lines if "reward" in line},
        pass_at={int(k): value for k, value in last["pass_at"].items()},
        pass_hat={int(k): value for k, value in last["pass_hat"].items()},
        spent=spent,
        confounds={
            name: fmean(values)
            for name, key in CONFOUNDS.items()
            if (values := [line[key] for line in lines if key in line])
        },
        alarms=tuple(alarm for _, alarms in watched(run) for alarm in alarms),
        alarmed=words[-1] == "alarmed",
        versions=run.versions,
        dealt=dealt,
        held_out=frozenset(last["scores"]),
        credit=tally(cell, run),
    )


def _spent(run: Run, seconds: float) -> tuple[Spent, Sequence[int], Mapping[int, str]]:
    """What was spent, the tokens sampled in each step so far and before, and the task at each place of the order."""
    count: dict[str, float] = defaultdict(float)
    by_step: dict[int, int] = defaultdict(int)
    dealt: dict[int, str] = {}
    for episode in run.transcripts():
        cost = episode["cost"]
        for name in ("sampled_tokens", "prompt_tokens", "tool_calls", "money"):
            count[name] += cost.get(name, 0)
        count["graded"] += len(episode["outcome"]["score"].get("graders", {}))
        count["episodes"] += 1
        by_step[episode["step"]] += cost.get("sampled_tokens", 0)
        dealt[episode["position"]] = episode["task"]["id"]
    steps = max(by_step, default=-1) + 1
    spent = Spent(
        steps=steps,
        episodes=int(count["episodes"]),
        sampled_tokens=int(count["sampled_tokens"]),
        prompt_tokens=int(count["prompt_tokens"]),
        tool_calls=int(count["tool_calls"]),
        graded=int(count["graded"]),
        seconds=seconds,
        money=count["money"],
    )
    return spent, list(accumulate(by_step[step] for step in range(steps))), dealt


def _by(sampled: Sequence[int], step: int) -> int:
    return sampled[min(step, len(sampled)) - 1] if step and sampled else 0
