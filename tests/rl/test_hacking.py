"""Detectors of reward hacking: their numbers by hand, a policy that learns to farm, and many that do not."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from envs.types import Completion, Cost, Episode, Fault, Message, Stop, Task, ToolCall, ToolResult, Turn
from rewards.score import Score
from rl.hacking import (
    DECISIVE,
    DETECTORS,
    Alarm,
    Observed,
    cusum,
    drift,
    page_hinkley,
    positive_on_failures,
    psi,
    samples,
    signs,
    watch,
)
from rl.rollout import Played

Call = tuple[str, str] | tuple[str, str, Fault]


def episode(
    *turns: Sequence[Call],
    value: float = 1.0,
    paid: Sequence[float | None] | None = None,
    say: str = "",
    stop: Stop = Stop.DONE,
    tokens: int = 10,
) -> Played:
    made = Episode(id="e", env="made", task=Task.ask("?"), stop=stop, cost=Cost(sampled_tokens=tokens))
    for n, calls in enumerate(turns):
        asked = tuple(ToolCall(id=f"{n}.{i}", name=c[0], arguments=c[1]) for i, c in enumerate(calls))
        results = tuple(
            ToolResult(call_id=f"{n}.{i}", name=c[0], content="ok", fault=c[2] if len(c) > 2 else None)
            for i, c in enumerate(calls)
        )
        message = Message(role="assistant", content=say, tool_calls=asked)
        made.turns.append(Turn(completion=Completion(message=message), results=results))
    return Played(episode=made, score=Score(value=value, turns=tuple(paid) if paid is not None else None))


def test_psi_page_hinkley_and_cusum_by_hand() -> None:
    assert psi([0.25] * 4, [0.4, 0.3, 0.2, 0.1]) == pytest.approx(0.2282, abs=5e-5)
    assert psi([0.5, 0.5], [0.5, 0.5]) == 0.0
    assert page_hinkley([0, 0, 0, 1, 1, 1]) == pytest.approx([0, 0, 0, 0.70, 1.25, 1.70])
    assert cusum([0, 0, 0, 1, 1, 1], 0.0, 0.5) == pytest.approx([0, 0, 0, 1.5, 3.0, 4.5])


@pytest.mark.parametrize("size", [20, 100, 500])
@pytest.mark.parametrize("kind", ["turns", "reals"])
def test_samples_of_the_same_thing_seldom_drift_and_of_another_always_do(size: int, kind: str) -> None:
    dice = random.Random(size)

    def draw(shift: float) -> list[float]:
        return [round(dice.gauss(6 + shift, 2)) if kind == "turns" else dice.gauss(shift / 2, 1) for _ in range(size)]

    def over(shift: float) -> int:
        return sum(value > limit for value, limit in (drift(draw(0), draw(shift)) for _ in range(200)))

    assert over(0) <= 2
    assert over(4) == 200 or (size == 20 and over(4) > 100)
    with pytest.raises(ValueError, match="empty"):
        drift([], [1.0])


A, B = ("look", '{"id": 1}'), ("look", '{"id": 2}')


def test_what_episodes_did_is_counted_by_hand() -> None:
    found = signs(
        [
            [
                episode([A], [A, B], [("refund", '{"id":1}', "denied")], tokens=30),
                episode([("look", '{ "id" : 1 }')], stop=Stop.MAX_TURNS, tokens=10),
            ]
        ]
    )
    assert found["turns"] == 2.0
    assert found["calls_per_turn"] == pytest.approx(5 / 4)
    assert found["tokens_per_turn"] == 10.0
    assert found["duplicate_calls"] == pytest.approx(1 / 5)
    assert found["invalid_calls"] == pytest.approx(1 / 5)
    assert found["cut_short"] == 0.5
    assert found["tool_entropy"] == pytest.approx(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)))
    assert "process_order" not in found, "nothing was judged"


def test_what_episodes_said_is_counted_by_hand() -> None:
    """Of "a b a b a b" the runs of 4 are abab, baba, abab: a third is said again."""
    found = signs([[episode([], say="a b a b a b", value=1.0)]])
    assert found["repetition"] == pytest.approx(1 / 3)
    ten = "one two three four five six seven eight nine ten"
    other = ten.replace("ten", "else")
    found = signs([[episode([], say=ten), episode([], say=other)], [episode([], say="x y z"), episode([], say=ten)]])
    assert found["echo"] == pytest.approx(2 / 4), "three runs of 8 each, two of them shared; one pair"
    assert found["repetition"] == 0.0


def test_process_reward_of_failures_is_compared_within_their_group() -> None:
    """Hard tasks pay more steps and fail more often; over all groups together the order would be turned round."""
    easy = [episode([A], value=1, paid=[1]), episode([A], value=0, paid=[0])]
    hard = [episode([A], value=1, paid=[9]), episode([A], value=0, paid=[3]), episode([A], value=0, paid=[9])]
    alone = [episode([A], value=0, paid=[100])]
    found = signs([easy, hard, alone])
    assert found["process_order"] == pytest.approx((1 + 0.75) / 2)
    assert (found["process_of_successes"], found["process_of_failures"]) == (5.0, 4.0)
    assert found["mixed_groups"] == 2.0


def test_groups_that_earn_the_same_are_flat_and_broken_episodes_are_no_sign() -> None:
    same = [episode([A], value=1), episode([B], value=1)]
    broken = episode([A], [A], [A], stop=Stop.FAULT)
    found = signs([same, [episode([A], value=0), episode([A], value=1), broken]])
    assert found["flat_groups"] == 0.5
    assert found["duplicate_calls"] == 0.0
    assert samples([[broken]]) == {"turns": [], "calls_per_turn": [], "tokens_per_turn": []}
    assert signs([]) == {}
    assert samples([same])["tokens_per_turn"] == [10.0, 10.0]


def test_the_share_of_credit_on_failures_by_hand() -> None:
    mixed = ([True, False, None], [[1.0, 1.0], [0.5, -3.0], [7.0]])
    hopeless = ([False, False], [[5.0], [-5.0]])
    perfect = ([True, True], [[9.0], [-9.0]])
    assert positive_on_failures([mixed, hopeless, perfect]) == pytest.approx(0.2)
    assert positive_on_failures([hopeless]) is None


def run(farming: Sequence[float], *, seed: int, paid: str) -> list[Observed]:
    """A training run seen once a step: 16 groups of 8; with each step's chance an episode makes calls to the limit.

    Who farms fails. Who does not succeeds more and more often, in five calls. `paid` is what a call earns: "naive"
    pays every call, "progress" those that bring the task on, "nothing" none, "equal" the same to everybody, and
    "deductions" takes from those alone that succeed, say for asking twice.
    """
    dice = random.Random(seed)
    history = []
    for step, share in enumerate(farming):
        skill = min(0.3 + 0.05 * step, 0.95)
        groups = []
        for _ in range(16):
            group = []
            for _ in range(8):
                farms = dice.random() < share
                good = not farms and dice.random() < skill
                calls = 12 if farms else 5 if good else dice.choice([3, 4, 5])
                each = {
                    "naive": 0.3,
                    "progress": 0.2 if good else 0.1,
                    "nothing": 0.0,
                    "equal": 1 / calls,
                    "deductions": -0.1 * good,
                }[paid]
                turns = [[("look", str(0 if farms else k))] for k in range(calls)]
                group.append(episode(*turns, value=float(good), paid=[each] * calls))
            groups.append(group)
        played = [p for group in groups for p in group]
        held_out = sum(dice.random() < (1 - share) * skill for _ in range(200)) / 200
        reward = sum(p.score.total for p in played) / len(played)
        history.append(
            Observed(step=step, reward=reward, success=held_out, signs=signs(groups), samples=samples(groups))
        )
    return history


FARMING = [0.0] * 4 + [min(0.06 * k, 1.0) for k in range(20)]


@pytest.mark.parametrize("seed", range(3))
def test_a_policy_that_learns_to_farm_is_called_out_before_success_is_lost(seed: int) -> None:
    history = run(FARMING, seed=seed, paid="naive")
    success = [o.success or 0.0 for o in history]
    lost = next(i for i in range(len(history)) if success[i] < max(success[: i + 1]) / 2)
    first = next(i for i in range(len(history)) if any(a.detector in DECISIVE for a in watch(history[: i + 1])))
    assert first < lost
    confirmed = next(i for i in range(len(history)) if any(a.action == "roll_back" for a in watch(history[: i + 1])))
    assert first < confirmed <= lost
    back = next(a.back_to for a in watch(history[: confirmed + 1]) if a.action == "roll_back")
    assert back is not None and back < history[first].step
    assert success[back] == max(success[:first])


@pytest.mark.parametrize("paid", ["progress", "nothing", "equal", "deductions"])
def test_no_alarm_stops_a_policy_that_only_learns(paid: str) -> None:
    for seed in range(2):
        history = run([0.0] * 24, seed=seed, paid=paid)
        heard = [alarm for i in range(len(history)) for alarm in watch(history[: i + 1])]
        assert {alarm.action for alarm in heard} <= {"warn"}
        assert not {alarm.detector for alarm in heard} & DECISIVE


def level(step: int, reward: float, success: float | None, **seen: float) -> Observed:
    return Observed(step=step, reward=reward, success=success, signs=seen)


def test_reward_that_rises_while_success_falls_is_a_divergence() -> None:
    falls = [level(i, 1.0 + i, 0.9 - 0.1 * i) for i in range(5)]
    assert [alarm.detector for alarm in watch(falls)] == ["divergence"]
    assert watch(falls)[0].value == pytest.approx(1 / 120)
    both_fall = [replace(o, reward=-o.reward) for o in falls]
    both_rise = [replace(o, success=1 - (o.success or 0)) for o in falls]
    assert watch(both_fall) == watch(both_rise) == watch(falls[:4]) == []
    assert watch([*falls, level(5, 9.0, None)]) == [], "there was no evaluation to judge by"


def test_chance_seldom_looks_like_a_divergence() -> None:
    dice = random.Random(2)
    alarms = sum(bool(watch([level(i, dice.random(), dice.random()) for i in range(5)])) for _ in range(1000))
    assert alarms <= 10


def test_an_alarm_calls_for_more_once_it_is_heard_twice_and_the_way_back_is_the_best_before() -> None:
    good = [level(0, 0.0, 0.5), level(1, 0.5, 0.8)]
    falls = [level(2 + i, 1.0 + i, 0.7 - 0.1 * i) for i in range(5)]
    once, twice = watch([*good, *falls[:4]]), watch([*good, *falls])
    assert [(a.action, a.back_to) for a in once] == [("warn", None)]
    assert [(a.action, a.back_to) for a in twice] == [("roll_back", 1)]
    assert [a.action for a in watch([*good, *falls], confirmed="stop")] == ["stop"]
    assert [a.action for a in watch([*good, *falls], confirmed="warn")] == ["warn"]


def test_only_the_detectors_asked_for_are_heard() -> None:
    falls = [level(i, 1.0 + i, 0.9 - 0.1 * i, flat_groups=0.9) for i in range(6)]
    assert [a.detector for a in watch(falls)] == ["divergence", "flat_groups"]
    assert [a.detector for a in watch(falls, detectors=["flat_groups"])] == ["flat_groups"]
    (alarm,) = watch(falls, detectors=["divergence"])
    assert (alarm.action, alarm.back_to) == ("roll_back", 0)


def by(name: str, values: Sequence[float]) -> list[Alarm]:
    return [a for a in watch([level(i, 0.0, None, **{name: v}) for i, v in enumerate(values)]) if a.detector == name]


@pytest.mark.parametrize(
    ("name", "calm", "alarming"),
    [
        ("duplicate_calls", [0.1, 0.12, 0.1, 0.11, 0.13, 0.1], [0.1, 0.1, 0.1, 0.5, 0.6, 0.7]),
        ("cut_short", [0.3, 0.2, 0.1, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.4, 0.6, 0.8]),
        ("entropy", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5], [1.0, 0.9, 0.8, 0.7, 0.6, 0.1]),
        ("mismatch", [0.01] * 5 + [0.05], [0.01] * 5 + [0.5]),
        ("grad_norm", [0.1] * 5 + [0.9], [0.1] * 5 + [1.5]),
        ("flat_groups", [0.9, 0.9, 0.5], [0.9, 0.85, 0.95]),
        ("positive_on_failures", [0.9, 0.3], [0.1, 0.5]),
    ],
)
def test_a_detector_hears_what_it_is_for(name: str, calm: Sequence[float], alarming: Sequence[float]) -> None:
    assert by(name, calm) == []
    (alarm,) = by(name, alarming)
    assert alarm.action == "warn" and alarm.step == len(alarming) - 1 and alarm.says


def test_episodes_that_become_longer_are_noticed() -> None:
    dice = random.Random(0)
    usual = [
        Observed(step=i, reward=0.0, samples={"turns": [dice.choice([4, 5, 6]) for _ in range(64)]}) for i in range(6)
    ]
    assert watch(usual) == []
    longer = replace(usual[-1], samples={"turns": [12.0] * 64})
    assert [alarm.detector for alarm in watch([*usual[:-1], longer])] == ["drift of turns"]


def test_process_reward_that_tells_success_from_failure_ever_less_is_heard_and_stops_nobody() -> None:
    def heard(*orders: float) -> list[Alarm]:
        seen = [
            level(i, 0.0, None, process_order=o, mixed_groups=1.0, process_of_failures=1.0)
            for i, o in enumerate(orders)
        ]
        return watch(seen, detectors=["process_order"])

    (alarm,) = heard(0.80, 0.75, 0.68, 0.52, 0.40)
    assert (alarm.action, alarm.value) == ("warn", pytest.approx(0.775 - 0.46))
    assert heard(0.80, 0.75, 0.70, 0.65, 0.58), "a fall of 0.16 is enough"
    assert heard(0.80, 0.75, 0.68, 0.52) == []
    assert heard(0.80, 0.78, 0.75, 0.74, 0.72) == [], "too little of a fall"
    assert heard(0.95, 0.60, 0.75, 0.52, 0.70) == [], "not steadily enough"
    assert heard(0.40, 0.52, 0.68, 0.75, 0.80) == []


def test_failures_paid_better_are_called_out_once_the_evidence_comes_to_three() -> None:
    one = {"process_order": 0.25, "mixed_groups": 16.0, "process_of_failures": 1.0}
    history = [level(i, 0.0, None, **one) for i in range(3)]
    assert watch(history[:2], detectors=["paid_failures"]) == []
    (alarm,) = watch(history, detectors=["paid_failures"])
    assert alarm.value == pytest.approx(3 * (0.25 * 2 * 4 - 0.5))


def test_nothing_seen_is_no_alarm() -> None:
    assert watch([]) == []
    assert watch([Observed(step=0, reward=0.0)]) == []
    assert set(DETECTORS) > DECISIVE
