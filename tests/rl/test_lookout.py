"""A run watched by its own records: what each evaluation sees, the alarms it gives, and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envs.errors import InputError
from made import played, turn
from rewards.score import Score
from rl.collect import Group
from rl.config import WatchConfig, parse
from rl.feed import Ticket
from rl.lookout import Lookout, check, observed, said, watched
from rl.records import Run
from rl.rollout import Played

Paid = Callable[[int], float]
"""step -> what a failure's turns pay it together; a success has 0.3."""


def group(position: int, failure: float) -> Group:
    def member(value: float, turns: int, pays: float) -> Played:
        made = played(f"t{position}", value, turns=tuple(turn(None) for _ in range(turns)))
        return replace(made, score=Score(value=value, turns=(pays / turns,) * turns))

    members = (member(1.0, 3, 0.3), member(0.0, 3, failure))
    return Group(ticket=Ticket(position, members[0].episode.task), played=members)


def train(run: Run, first: int, last: int, paid: Paid) -> None:
    """Steps first + 1 ... last, of eight groups each."""
    for step in range(first, last):
        for k in range(8):
            run.record(step, group(8 * step + k, paid(step)))
        run.metrics.append({"step": step + 1, "loss": 0.0, "grad_norm": 0.5 + step, "entropy": 1.0})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {})


def honest(step: int) -> float:
    return 0.1


def farmed(step: int) -> float:
    return 0.6 if step >= 8 else 0.1


def test_an_evaluation_sees_the_steps_since_the_last_one(run: Run) -> None:
    train(run, 0, 4, honest)
    seen = observed(run, 2, 4, 0.5)
    assert seen is not None
    assert seen.reward == pytest.approx((1.3 + 0.1) / 2)
    assert (seen.step, seen.success, seen.signs["mixed_groups"]) == (4, 0.5, 16.0)
    assert seen.signs["grad_norm"] == pytest.approx(3.0), "of steps 3 and 4"
    assert len(seen.samples["turns"]) == 32
    assert observed(run, 4, 4, 0.5) is None, "nothing was played since"


def test_before_the_first_step_and_at_a_step_seen_before_there_is_nothing_to_see(run: Run) -> None:
    lookout = Lookout(WatchConfig(), run)
    assert lookout.look(0, 0.1) == []
    train(run, 0, 4, honest)
    lookout.look(4, 0.2)
    lookout.look(4, 0.3)
    assert [(seen.step, seen.success) for seen, _ in watched(run)] == [(4, 0.2)]


def alarms(run: Run, settings: WatchConfig, paid: Paid, steps: int = 20) -> list[tuple[int, str, str]]:
    """(step, detector, action) of decisive alarms, evaluated every 4 steps until the verdict."""
    lookout, heard = Lookout(settings, run), []
    for step in range(4, steps + 1, 4):
        train(run, step - 4, step, paid)
        found = lookout.look(step, 0.5 if paid(step) < 0.5 else 0.4)
        heard += [(step, a.detector, a.action) for a in found if a.detector == "paid_failures"]
        if lookout.verdict is not None:
            heard.append((step, "verdict", f"{lookout.verdict.action} {lookout.verdict.back_to}"))
            break
    return heard


def test_failures_that_are_paid_give_a_warning_and_then_a_way_back(run: Run) -> None:
    assert alarms(run, WatchConfig(alarm="roll_back"), farmed) == [
        (12, "paid_failures", "warn"),
        (16, "paid_failures", "roll_back"),
        (16, "verdict", "roll_back 4"),
    ]


def test_stop_stops_and_warn_only_records_what_was_called_for(run: Run, tmp_path: Path) -> None:
    assert alarms(run, WatchConfig(alarm="stop"), farmed)[-1] == (16, "verdict", "stop None")
    with Run.create(tmp_path / "warned", {}) as other:
        heard = alarms(other, WatchConfig(), farmed)
        assert heard[1:] == [(16, "paid_failures", "roll_back"), (20, "paid_failures", "roll_back")]
        recorded = [(seen.step, [a.action for a in found if a.action != "warn"]) for seen, found in watched(other)]
        assert recorded == [(4, []), (8, []), (12, []), (16, ["roll_back"]), (20, ["roll_back"])]


def test_an_honest_run_is_never_stopped(run: Run) -> None:
    assert alarms(run, WatchConfig(alarm="stop"), honest, steps=40) == []


def test_a_resumed_run_hears_what_an_uninterrupted_one_would(run: Run, tmp_path: Path) -> None:
    expected = alarms(run, WatchConfig(alarm="stop"), farmed)
    path = tmp_path / "resumed"
    with Run.create(path, {}) as first:
        assert alarms(first, WatchConfig(alarm="stop"), farmed, steps=12) == expected[:1]
    with Run.resume(path) as again:
        again.rewind(10)  # to a checkpoint between two evaluations: the groups of later steps are used again
        assert [seen.step for seen, _ in watched(again)] == [4, 8]
        for step in (11, 12):
            again.metrics.append({"step": step, "loss": 0.0, "grad_norm": step - 0.5, "entropy": 1.0})
        lookout = Lookout(WatchConfig(alarm="stop"), again)
        assert "paid_failures" in [a.detector for a in lookout.look(12, 0.4)]
        train(again, 12, 16, farmed)
        lookout.look(16, 0.4)
        assert lookout.verdict is not None and lookout.verdict.step == 16
    assert [seen for seen, _ in watched(Run.read(path))] == [seen for seen, _ in watched(run)]


def test_an_alarm_is_said_in_a_line(run: Run) -> None:
    lookout = Lookout(WatchConfig(alarm="roll_back", detectors=("paid_failures",)), run)
    for step in (4, 8, 12, 16):
        train(run, step - 4, step, farmed)
        found = lookout.look(step, 0.5)
    (alarm,) = found
    assert said(alarm).startswith("step 16: paid_failures (")
    assert said(alarm).endswith("of the same task -> roll_back to 8")


CONFIG: dict[str, Any] = {"model": "m", "env": {"use": "desk"}, "reward": {}, "output_dir": "runs/x"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"detectors": ["divergense"]}, "unknown detector 'divergense'; did you mean 'divergence'?"),
        ({"alarm": "stop", "detectors": ["entropy"]}, "only divergence and paid_failures stop a run"),
        ({"alarm": "explode"}, "watch.alarm"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        parse(CONFIG | {"watch": settings})
    assert says in str(error.value)


def test_watching_needs_evaluations_and_a_way_back_needs_checkpoints() -> None:
    check(WatchConfig(), evaluates=False, saves=False)
    with pytest.raises(InputError, match="nothing is evaluated during training"):
        check(WatchConfig(alarm="stop"), evaluates=False, saves=True)
    with pytest.raises(InputError, match="no way back without checkpoints"):
        check(WatchConfig(alarm="roll_back"), evaluates=True, saves=False)
    check(WatchConfig(alarm="roll_back"), evaluates=True, saves=True)
