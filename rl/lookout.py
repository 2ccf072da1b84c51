"""What a run's records say at each evaluation, the alarms that gives, and what they call for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

from envs.errors import InputError
from rl.config import WatchConfig
from rl.hacking import Alarm, Observed, samples, signs, watch
from rl.records import Run

MEASURED = {
    "positive_on_failures": "signs/positive_on_failures",
    "entropy": "entropy",
    "mismatch": "sampling/logp_gap/mean",
    "grad_norm": "grad_norm",
}
"""Signs that the trainer measures -> their names among its metrics."""


class Lookout:
    """Judges each evaluation of a run by everything recorded so far, so that a resumed run judges as if never stopped.

    Of several processes rank 0 looks, at the groups that it has played itself.
    """

    def __init__(self, settings: WatchConfig, run: Run) -> None:
        self._settings, self._run = settings, run
        self.verdict: Alarm | None = None
        """The alarm that ends the run, with what is to be done; None while it may go on."""

    def look(self, step: int, success: float | None) -> list[Alarm]:
        """The alarms of an evaluation, which are recorded with what they were called for.

        Args:
            step: optimizer steps done. A step that was looked at before, or before the first, gives none.
            success: on held-out tasks; by the holdout grader where there is one.
        """
        past = [seen for seen, _ in watched(self._run)]
        seen = observed(self._run, past[-1].step if past else 0, step, success)
        if seen is None:
            return []
        alarms = watch([*past, seen], detectors=self._settings.detectors)
        self._run.watched.append({**asdict(seen), "alarms": [asdict(alarm) for alarm in alarms]})
        self.verdict = next((alarm for alarm in alarms if alarm.action != "warn"), None)
        if self._settings.alarm == "warn":
            self.verdict = None
        elif self.verdict is not None and self._settings.alarm == "stop":
            self.verdict = replace(self.verdict, action="stop", back_to=None)
        return alarms


def observed(run: Run, after: int, step: int, success: float | None) -> Observed | None:
    """What the records say of the steps after one evaluation up to the next; None where nothing was scored."""
    groups = [played for k in range(after, step) for played in run.recorded(k).values()]
    paid = [p.score.total for group in groups for p in group if p.score.error is None]
    if not paid:
        return None
    lines = [line for line in run.metrics.read() if after < line["step"] <= step]
    measured = {name: [line[key] for line in lines if key in line] for name, key in MEASURED.items()}
    return Observed(
        step=step,
        reward=fmean(paid),
        success=success,
        signs=signs(groups) | {name: fmean(values) for name, values in measured.items() if values},
        samples=samples(groups),
    )


def watched(run: Run) -> Iterator[tuple[Observed, list[Alarm]]]:
    """What was seen at each evaluation of a run, and the alarms it gave: what they call for, done or not."""
    for line in run.watched.read():
        alarms = [Alarm(**alarm) for alarm in line["alarms"]]
        yield Observed(**{name: value for name, value in line.items() if name != "alarms"}), alarms


def check(settings: WatchConfig, *, evaluates: bool, saves: bool) -> None:
    """Refuse settings that would have no effect.

    Raises:
        InputError: which, and what to set.
    """
    if settings != WatchConfig() and not evaluates:
        raise InputError(
            "watch would have no effect: nothing is evaluated during training; set trainer.eval_strategy=steps and "
            "trainer.eval_steps"
        )
    if settings.alarm == "roll_back" and not saves:
        raise InputError("watch.alarm: there is no way back without checkpoints; set trainer.save_steps, or say stop")


def said(alarm: Alarm) -> str:
    """An alarm in a line, as in `step 15: paid_failures (7.2, limit 5): failed episodes ... -> roll_back to 5`."""
    what = f"step {alarm.step}: {alarm.detector} ({alarm.value:.3g}, limit {alarm.limit:.3g}): {alarm.says}"
    return (
        what
        if alarm.action == "warn"
        else f"{what} -> {alarm.action}" + (f" to {alarm.back_to}" if alarm.back_to is not None else "")
    )


def noted(alarm: Alarm) -> Mapping[str, Any]:
    """An alarm as the ledger keeps it."""
    return {"detector": alarm.detector, "action": alarm.action, "back_to": alarm.back_to}
