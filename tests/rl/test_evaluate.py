from __future__ import annotations

import json

import pytest
from rich.console import Console

from envs.types import Cost, Stop
from made import played, turn
from rl.evaluate import summarise
from rl.report import comparison, details
from rl.stats import pass_at_k, wilson


def shown(table: object) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_success_is_wilsons_with_one_sample_a_task() -> None:
    report = summarise(played(f"t{i}", float(i < 7)) for i in range(10))
    assert report.success == wilson(0.7, 10)
    assert (report.tasks, report.episodes, report.score) == (10, 10, 0.7)
    assert report.pass_at == report.pass_hat == {1: 0.7}


def test_pass_at_k_and_pass_hat_k_are_means_over_tasks() -> None:
    outcomes = {"a": [1, 1, 1, 0], "b": [0, 0, 0, 0]}
    report = summarise(played(t, float(v), sample=k) for t, values in outcomes.items() for k, v in enumerate(values))
    assert report.pass_at == {1: 0.375, 2: 0.5, 4: 0.5}
    assert report.pass_hat == {1: 0.375, 2: pytest.approx(0.25), 4: 0.0}


def test_not_scored_is_not_zero() -> None:
    report = summarise([played("a", 1.0), played("b", None), played("c", 1.0, stop=Stop.FAULT)])
    assert report.success is not None
    assert report.success.mean == report.score == 1.0
    assert (report.tasks, report.unscored, report.broken, report.episodes) == (1, 1, 1, 3)
    assert report.stops == {"done": 2, "fault": 1}


def test_a_task_that_lost_a_sample_counts_as_much_as_the_others() -> None:
    report = summarise([played("a", 1.0), played("a", None, sample=1), played("b", 0.0), played("b", 0.0, sample=1)])
    assert report.success is not None
    assert report.success.mean == report.pass_at[1] == 0.5
    assert report.pass_at[2] == pass_at_k(2, 0, 2), "only b has two scored samples"


def test_a_score_reaches_the_threshold_or_it_is_no_success() -> None:
    half = [played("a", 0.5), played("b", 0.99), played("c", 1.0)]
    strict, lax = summarise(half), summarise(half, threshold=0.5)
    assert strict.success is not None and lax.success is not None
    assert (strict.success.mean, lax.success.mean) == (pytest.approx(1 / 3), 1.0)


def test_costs_are_means_over_episodes_that_are_whole() -> None:
    report = summarise(
        [
            played("a", turns=(turn(None), turn()), cost=Cost(sampled_tokens=10, tool_calls=1, seconds=2, money=0.5)),
            played("b", turns=(turn(),), cost=Cost(sampled_tokens=20, seconds=4, money=0.25)),
            played("c", stop=Stop.ENV_LOST, cost=Cost(sampled_tokens=1000, seconds=900, money=1)),
        ]
    )
    assert (report.turns, report.sampled_tokens, report.tool_calls, report.seconds) == (1.5, 15.0, 0.5, 3.0)
    assert report.money == 1.75, "what broke was paid for too"


def test_faults_of_calls_are_counted_by_kind() -> None:
    report = summarise([played(turns=(turn(None, "denied"), turn("denied", "bad_arguments")))])
    assert report.tool_faults == {"denied": 2, "bad_arguments": 1}


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_measured_is_none_not_zero(broken: bool) -> None:
    report = summarise([played(stop=Stop.FAULT)] if broken else [])
    assert report.success is report.score is report.turns is None
    assert report.pass_at == {}
    assert "not measured" in shown(comparison({"base": {"greedy": report}}))
    json.dumps(report.as_dict(), allow_nan=False)


def test_a_report_is_plain_json() -> None:
    report = summarise([played("a"), played("b", 0.0)])
    tree = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert tree["success"] == {"mean": 0.5, "low": report.success.low, "high": report.success.high}  # type: ignore[union-attr]
    assert tree["pass_at"] == {"1": 0.5}


def test_the_comparison_shows_base_and_trained_greedy_and_sampled() -> None:
    base, trained = summarise([played("a", 0.0), played("b")]), summarise([played("a"), played("b")])
    text = shown(comparison({"base": {"greedy": base, "sampled": base}, "trained": {"greedy": trained}}))
    assert "2 held-out tasks" in text
    assert "50.0 % (9.5 to 90.5)" in text
    assert "100.0 % (34.2 to 100.0)" in text
    assert text.index("greedy") < text.index("sampled")


def test_details_name_what_was_left_out_and_how_episodes_ended() -> None:
    report = summarise([played("a", turns=(turn("timeout"),), stop=Stop.MAX_TURNS), played("b", None)])
    text = shown(details({"sampled": report}))
    for line in ("ended: max_turns", "ended: done", "calls: timeout", "left out: unscored"):
        assert line in text
    assert "left out: broken" not in text
