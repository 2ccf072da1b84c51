"""Arms against the reference: what the runs show, and what so few of them could have shown at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from rl.ablate.plan import Ablation
from rl.ablate.results import Result
from rl.hacking import OF_HACKING, Alarm
from rl.stats import (
    Estimate,
    Paired,
    compare,
    detectable_effect,
    fewest_seeds,
    iqm,
    probability_of_improvement,
    stratified_bootstrap,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What an arm showed, over its finished runs."""

    name: str
    runs: tuple[Result, ...]
    """In the order of seeds."""
    success: Mapping[int, float]
    """Seed -> mean of the last evaluations."""
    iqm: float
    interval: Estimate | None
    """Of the interquartile mean; None of a single run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """An arm against the reference, paired by seed."""

    arm: str
    differences: Mapping[int, float]
    """Seed -> arm minus reference."""
    paired: Paired
    tested: bool
    """Named for a test before training, so that it may have a p."""
    wins: float
    """The chance that a run of the arm beats one of the reference, ties half."""
    detectable: float | None
    """The smallest true difference that so many seeds find four times in five; None where no p could come to 0.05."""

    @property
    def verdict(self) -> str:
        """In words: better, worse, no difference detectable, or a pilot."""
        if not self.tested:
            return "not tested (compare does not name it)"
        if self.paired.adjusted is None:
            return "pilot: no p"
        if self.paired.adjusted > 0.05:
            return "no difference detectable"
        return "better" if self.paired.difference > 0 else "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that an ablation shows."""

    ablation: Ablation
    arms: tuple[Arm, ...]
    against: tuple[Against, ...]
    left_out: tuple[str, ...]
    """Runs that are not in it, and why."""
    warnings: tuple[str, ...]
    """What was not the same in all runs."""


def findings(
    ablation: Ablation, results: Sequence[Result], *, left_out: Sequence[str] = (), warnings: Sequence[str] = ()
) -> Findings:
    """What the finished runs show.

    Args:
        left_out: what is said of runs that are not among the results.
        warnings: what is known to differ between arms beside what they are about.
    """
    by_arm = {name: sorted((r for r in results if r.arm == name), key=lambda r: r.seed) for name in ablation.arms}
    arms = tuple(_arm(name, runs, ablation.last) for name, runs in by_arm.items() if runs)
    return Findings(
        ablation=ablation,
        arms=arms,
        against=tuple(_against(ablation, {arm.name: arm for arm in arms})),
        left_out=tuple(left_out),
        warnings=(*warnings, *unlike(results)),
    )


def _arm(name: str, runs: Sequence[Result], last: int) -> Arm:
    success = {run.seed: run.success(last) for run in runs}
    values = list(success.values())
    return Arm(
        name=name,
        runs=tuple(runs),
        success=success,
        iqm=iqm(values),
        interval=stratified_bootstrap([values]) if len(values) > 1 else None,
    )


def _against(ablation: Ablation, arms: Mapping[str, Arm]) -> list[Against]:
    reference = arms.get(ablation.first)
    if reference is None:
        return []
    differences = {}
    for name, arm in arms.items():
        if name != ablation.first and (both := arm.success.keys() & reference.success.keys()):
            differences[name] = {seed: arm.success[seed] - reference.success[seed] for seed in sorted(both)}
    named = [name for name in differences if ablation.compare is None or name in ablation.compare]
    tested = compare({name: list(differences[name].values()) for name in named})
    found = []
    for name, by_seed in differences.items():
        values = list(by_seed.values())
        paired = tested[name] if name in tested else _untested(values)
        found.append(
            Against(
                arm=name,
                differences=by_seed,
                paired=paired,
                tested=name in tested,
                wins=probability_of_improvement(
                    [[arms[name].success[seed] for seed in by_seed]], [[reference.success[seed] for seed in by_seed]]
                ),
                detectable=_detectable(values, len(tested) if name in tested else 1),
            )
        )
    return found


def _untested(differences: Sequence[float]) -> Paired:
    """The difference and its interval, without a test."""
    (alone,) = compare({"it": differences}).values()
    return Paired(seeds=alone.seeds, difference=alone.difference, interval=alone.interval)


def _detectable(differences: Sequence[float], comparisons: int) -> float | None:
    """At Holm's first hurdle, with the spread that the seeds show."""
    if len(differences) < max(fewest_seeds(comparisons), 2):
        return None
    return detectable_effect(len(differences), stdev(differences), alpha=0.05 / comparisons)


def unlike(results: Sequence[Result]) -> list[str]:
    """What was not the same in all runs, of that which should have been."""
    found = []
    for what, values in (
        ("code revision", [run.versions.get("revision") for run in results]),
        ("packages", [sorted(run.versions.get("packages", {}).items()) for run in results]),
        ("machine", [sorted(map(str, run.versions.get("machine", {}).items())) for run in results]),
        ("optimizer steps", [run.spent.steps for run in results]),
        ("training episodes", [run.spent.episodes for run in results]),
    ):
        kinds: dict[str, list[str]] = {}
        for run, value in zip(results, values, strict=True):
            kinds.setdefault(str(value), []).append(f"{run.arm}/{run.seed}")
        if len(kinds) > 1:
            each = "; ".join(f"{', '.join(runs)}: {value}" for value, runs in kinds.items())
            found.append(f"{what}: not the same in all runs: {each}")
    if len({run.held_out for run in results}) > 1:
        found.append("held-out tasks: not the same in all runs")
    found += _dealt_otherwise(results)
    if any(str(run.versions.get("revision")).endswith("+") for run in results):
        found.append("the code of some runs was changed after its last commit (revisions that end with +)")
    return found


def _dealt_otherwise(results: Sequence[Result]) -> list[str]:
    """Runs of one seed that were not dealt the same tasks at the same places."""
    first: dict[int, Result] = {}
    found = []
    for run in results:
        one = first.setdefault(run.seed, run)
        if any(one.dealt[place] != run.dealt[place] for place in one.dealt.keys() & run.dealt.keys()):
            found.append(f"training tasks: {one.arm} and {run.arm} were not dealt the same with seed {run.seed}")
    return found


def alarm_story(run: Result) -> tuple[Alarm | None, int | None]:
    """The first alarm of hacking in a run, and how many evaluations it came before success was lost.

    Lost is under half of the best; None where it never was, or where there was no alarm.
    """
    first = next((alarm for alarm in run.alarms if alarm.detector in OF_HACKING), None)
    if first is None or run.lost is None:
        return first, None
    steps = [point.step for point in run.curve]
    return first, steps.index(run.lost.step) - sum(step < first.step for step in steps)


def mean_curve(runs: Sequence[Result]) -> list[tuple[int, float, float, float]]:
    """(step, mean, lowest, highest) of success over runs, at the steps that all of them were evaluated at."""
    common = set.intersection(*({point.step for point in run.curve} for run in runs))
    curves = [{point.step: point.success for point in run.curve} for run in runs]
    rows = [(step, [curve[step] for curve in curves]) for step in sorted(common)]
    return [(step, fmean(values), min(values), max(values)) for step, values in rows]
