"""How good a reward model is on tasks that it was not trained on.

A trial is a state of an episode and whether that episode succeeded. Trials of one task hang together, so intervals
are those of tasks drawn anew. Pure functions, plain Python.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from rewards.bench.statistics import Interval, auroc, interval
from rl.stats import Estimate, bootstrap
from rl.stats.calibration import Bin, Scale, brier, calibration_error, reliability

FEWEST_TASKS = 20
"""Below it a cluster bootstrap undercovers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a model said of a state, and what came of it."""

    task: str
    group: str
    score: float
    """Log-odds, before they are scaled."""
    chance: float
    """After."""
    good: bool
    turn: int = 0
    """After how many turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """What trials say. None where all of them ended alike."""

    trials: int
    tasks: int
    good: float
    """The share that succeeded."""
    auroc: Interval | None
    """Over all trials: the chance that a success scores higher than a failure."""
    auroc_within: Estimate | None
    """The same among trials of one group alone, mean over the tasks that have both: what a choice between samples
    stands on."""
    brier: float
    brier_constant: float
    """Of who always says `good`."""
    calibration_error: float
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOf:
    """Choosing one of n samples of a task, by score and at random."""

    n: int
    tasks: int
    chosen: Estimate
    """Success of the highest score."""
    random: Estimate
    """Success of a sample drawn blindly: the mean of all n."""
    any: float
    """Success of who knows: the share of groups in which one of them succeeded."""
    difference: Estimate
    """Chosen minus random, paired by task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What held-out tasks say of a reward model."""

    scale: Scale
    """Fitted to other tasks than those that were held out."""
    forecasts: Mapping[str, Forecasts]
    """Of whole episodes; or of a process model on the way, between the first turn and the last, and at the end."""
    by_turn: Mapping[int, Interval] = field(default_factory=dict)
    """Of a process model: AUROC among states after the same number of turns, where there are enough of them."""
    best_of: BestOf | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def forecasts(trials: Sequence[Trial], *, seed: int) -> Forecasts:
    """What trials say of the model that scored them.

    Raises:
        ValueError: there are none.
    """
    said = [(trial.chance, trial.good) for trial in trials]
    good = fmean(float(trial.good) for trial in trials)
    ranked = [(trial.score, float(trial.good)) for trial in trials]
    bins = reliability(said)
    within: dict[str, list[float]] = defaultdict(list)
    for own in _groups(trials).values():
        found = auroc([(trial.score, float(trial.good)) for trial in own])
        if found is not None:
            within[own[0].task].append(found)
    return Forecasts(
        trials=len(trials),
        tasks=len({trial.task for trial in trials}),
        good=good,
        auroc=interval(ranked, auroc, [trial.task for trial in trials], seed=seed),
        auroc_within=bootstrap(list(within.values()), seed=seed) if within else None,
        brier=brier(said),
        brier_constant=good * (1 - good),
        calibration_error=calibration_error(bins),
        reliability=tuple(bins),
    )


def by_turn(trials: Sequence[Trial], *, seed: int) -> dict[int, Interval]:
    """AUROC after each number of turns that at least `FEWEST_TASKS` tasks come to.

    Over all turns together, a model that merely counts them may do well: only those that did not stop early are
    still there late. Here it would not.
    """
    turns: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        turns[trial.turn].append(trial)
    found = dict[int, Interval]()
    for turn, own in sorted(turns.items()):
        tasks = [trial.task for trial in own]
        area = interval([(trial.score, float(trial.good)) for trial in own], auroc, tasks, seed=seed)
        if area is not None and len(set(tasks)) >= FEWEST_TASKS:
            found[turn] = area
    return found


def best_of(trials: Sequence[Trial], *, seed: int) -> BestOf | None:
    """Best-of-n against random-of-n; None where no task has several samples.

    Among samples of the same score any may be chosen, so that each counts alike.

    Args:
        trials: one an episode. Groups count that are as large as the largest.
    """
    groups = _groups(trials)
    n = max(map(len, groups.values()), default=0)
    if n < 2:
        return None
    tasks: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)
    for own in groups.values():
        if len(own) == n:
            top = max(trial.score for trial in own)
            chosen = fmean(float(trial.good) for trial in own if trial.score == top)
            tasks[own[0].task].append((chosen, fmean(float(t.good) for t in own), any(t.good for t in own)))
    found = list(tasks.values())
    return BestOf(
        n=n,
        tasks=len(found),
        chosen=bootstrap([[chosen for chosen, _, _ in own] for own in found], seed=seed),
        random=bootstrap([[blind for _, blind, _ in own] for own in found], seed=seed),
        any=fmean(fmean(float(one) for _, _, one in own) for own in found),
        difference=bootstrap([[chosen - blind for chosen, blind, _ in own] for own in found], seed=seed),
    )


def _groups(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        found[trial.group].append(trial)
    return found


def lines(found: Measured) -> Iterator[str]:
    """All of it for a person."""
    yield f"on held-out tasks, scores scaled by {found.scale.slope:.3g} and shifted by {found.scale.shift:.3g}"
    for name, own in found.forecasts.items():
        yield f"{name}: {own.trials} trials of {own.tasks} tasks, {own.good:.0%} succeeded"
        if own.auroc is not None:
            yield f"  AUROC                {_three(own.auroc)}"
        if own.auroc_within is not None:
            yield f"  AUROC within a group {own.auroc_within}"
        yield f"  Brier                {own.brier:.3f}; of who always says {own.good:.2f}: {own.brier_constant:.3f}"
        yield f"  calibration error    {own.calibration_error:.3f}"
        yield "  said   seen   trials"
        for each in own.reliability:
            yield f"  {each.forecast:.3f}  {each.seen:.3f}  {each.trials:6}"
    for turn, area in found.by_turn.items():
        yield f"after turn {turn}, AUROC    {_three(area)}"
    if (best := found.best_of) is not None:
        yield f"best of {best.n}, {best.tasks} tasks"
        yield f"  by score             {best.chosen}"
        yield f"  at random            {best.random}"
        yield f"  difference           {best.difference}"
        yield f"  any of them          {best.any:.3f}"


def _three(found: Interval) -> Estimate:
    return Estimate(mean=found.value, low=found.low, high=found.high)
