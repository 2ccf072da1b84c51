"""The way there, turn by turn."""

from dataclasses import replace

import pytest

from envs import InputError, Stop, ToolResult, Turn
from rewards import (
    Score,
    build,
    call_bonus,
    flagged,
    in_order,
    information_gain,
    no_repeats,
    policy_kept,
    progress,
    valid_calls,
)
from rewards.process import Gold
from rewards.spec import golds


def step(call_id, tool, **facts):
    return {"call_id": str(call_id), "tool": tool, "order": "4711", "progress": False} | facts


def test_valid_calls_deducts_for_each_fault_of_the_model(played):
    turns = [
        ["look", ("refund", {}, "bad_arguments")],
        [("sell", {}, "unknown_tool"), ("refund", {}, "denied")],
        [("look", {}, "timeout")],
        [("look", {}, "raised")],
    ]
    assert valid_calls(played("Done.", calls=turns)) == Score(
        value=0.0, turns=(-1.0, -2.0, 0.0, -1.0, None), parts={"valid_calls": -4.0}
    )
    assert valid_calls(played(calls=turns), faults=["timeout"]).turns == (0.0, 0.0, -1.0, 0.0)


def test_the_call_bonus_pays_for_every_call_that_went_well(played):
    turns = [["look", "look"], [("look", {}, "denied")], ["look", ("sell", {}, "raised")]]
    assert call_bonus(played("Done.", calls=turns)) == Score(
        value=0.0, turns=(2.0, 0.0, 1.0, None), parts={"call_bonus": 3.0}
    )


def believed(played, *beliefs, **item):
    """An episode with a turn for each belief."""
    made = played("4", calls=[["look"]] * (len(beliefs) - 1), item=item or {"answer": "4"})
    turns = zip(made.turns, beliefs, strict=True)
    made.turns = [replace(turn, completion=replace(turn.completion, belief=belief)) for turn, belief in turns]
    return made


def test_information_gain_pays_what_a_turn_made_the_answer_likelier(played):
    found = information_gain(believed(played, 0.125, 0.5, 0.25))
    assert found == Score(value=0.0, turns=(0.375, -0.25, None), parts={"information_gain": 0.125})
    assert information_gain(believed(played, 0.5)).turns == (None,)


def test_all_turns_together_pay_the_last_likelihood_minus_the_first_however_many_they_are(played):
    for beliefs in ((0.25, 0.75), (0.25, 0.5, 0.75), (0.25, 1.0, 0.0, 0.5, 0.75)):
        assert information_gain(believed(played, *beliefs)).total == 0.5


def test_a_turn_that_could_not_be_looked_at_pays_nothing_nor_does_the_one_before(played):
    found = information_gain(believed(played, 0.25, 0.5, None, 0.5, 0.75))
    assert found.turns == (0.25, None, None, 0.25, None)


def test_information_gain_without_an_answer_or_without_an_engine_is_refused(played):
    for item in ({"answer": ["4"]}, {"answer": True}, {"answer": ""}, {"goal": "4"}):
        with pytest.raises(InputError, match=r"item\.answer is no text and no number"):
            information_gain(believed(played, 0.5, 0.5, **item))
    with pytest.raises(InputError, match="nobody noted"):
        information_gain(believed(played, None, None))
    assert information_gain(believed(played, 0.5, 0.75, goal=4), field="goal").turns == (0.25, None)


def test_the_answers_that_a_config_wants_looked_at_are_known_before_it_runs():
    inner = {"use": "information_gain", "field": "goal", "lead": "So: "}
    spec = {"a": "exact", "b": {"use": "gated", "first": "exact", "then": {**inner}}, "c": {**inner, "weight": 0.5}}
    build(spec)
    assert golds(spec) == {Gold(field="goal", lead="So: ")}
    assert golds({"use": "information_gain"}) == golds("information_gain") == {Gold()}
    assert golds("exact") == golds({}) == set()


def test_a_turn_without_calls_is_not_judged(played):
    state = {"steps": []}
    for function in (valid_calls, no_repeats, progress, policy_kept):
        assert function(played("Done.", state=state)).turns == (None,)
        assert function(played(state=state)).turns == ()


def test_progress_pays_for_each_step_further(played):
    steps = [step(0, "look", progress=True), step(1, "look"), step(3, "refund", progress=True)]
    episode = played("Done.", calls=[["look", "look"], [("refund", {}, "denied"), "refund"]], state={"steps": steps})
    assert progress(episode) == Score(value=0.0, turns=(1.0, 1.0, None), parts={"progress": 2.0})


def test_progress_pays_the_share_that_an_environment_notes(played):
    steps = [step(0, "test", progress=0.25), step(1, "test", progress=0.0), step(2, "test", progress=0.5)]
    episode = played("Done.", calls=[["test"]] * 3, state={"steps": steps})
    assert progress(episode).turns == (0.25, 0.0, 0.5, None)


def test_calls_made_at_once_pay_what_they_pay_one_by_one(played):
    steps = [step(n, "look", progress=True) for n in range(3)]
    at_once = progress(played("Done.", calls=[["look"] * 3], state={"steps": steps}))
    one_by_one = progress(played("Done.", calls=[["look"]] * 3, state={"steps": steps}))
    assert at_once.total == one_by_one.total == 3.0


def test_policy_kept_deducts_for_each_violation(played):
    steps = [step(0, "look"), step(1, "refund", violation=True), step(2, "refund", violation=True)]
    episode = played("Done.", calls=[["look"], ["refund", "refund"]], state={"steps": steps})
    assert policy_kept(episode).turns == (0.0, -2.0, None)


def test_calls_that_share_an_id_each_take_their_own_note(played):
    steps = [step(0, "look", progress=True), step(0, "look"), step(0, "look", progress=True)]
    episode = played(calls=[["look"], ["look"], [("look", {}, "bad_arguments")], ["look"]], state={"steps": steps})
    for turn in episode.turns:
        object.__setattr__(turn.completion.message.tool_calls[0], "id", "0")
    assert progress(episode).turns == (1.0, 0.0, 0.0, 1.0)


def test_without_notes_progress_and_policy_can_not_be_judged(played):
    for function in (progress, policy_kept):
        with pytest.raises(InputError, match="'hand' notes no steps"):
            function(played(calls=[["look"]]))


def test_a_fact_that_the_environment_notes_can_be_deducted_for(played):
    steps = [step(0, "ask", needless=True), step(1, "ask", needless=False), step(2, "look")]
    score = flagged(played("Done.", calls=[["ask"], ["ask", "look"]], state={"steps": steps}), fact="needless")
    assert (score.turns, score.parts) == ((-1.0, 0.0, None), {"needless": -1.0})


def test_a_repeat_is_the_same_call_again_however_it_is_written(played):
    calls = [
        [("look", {"a": 1, "b": 2})],
        [("look", '{ "b": 2, "a": 1 }'), ("find", {"a": 1, "b": 2})],
        [("look", {"a": 2, "b": 2}), ("look", "")],
        [("look", "{}")],
    ]
    assert no_repeats(played("Done.", calls=calls)).turns == (0.0, -1.0, 0.0, -1.0, None)


def test_asking_again_for_what_failed_is_no_repeat(played):
    calls = [[("look", {}, "timeout")], ["look"], [("look", "{", "bad_arguments")], ["look"]]
    assert no_repeats(played(calls=calls)).turns == (0.0, 0.0, 0.0, -1.0)


def test_what_a_repeat_is_the_environment_knows_best(played):
    steps = [step(0, "look"), step(1, "look", repeat=False), step(2, "find", repeat=True)]
    assert no_repeats(played(calls=[["look"], ["look"], ["find"]], state={"steps": steps})).turns == (0.0, 0.0, -1.0)


ORDER = ["look", "check", "refund"]


@pytest.mark.parametrize(
    ("calls", "turns"),
    [
        ([["look"], ["check"], ["refund"]], (0.0, 0.0, 0.0)),
        ([["look", "check", "refund"]], (0.0,)),
        ([["refund", "look", "check"]], (-1.0,)),
        ([["check"], ["look"], ["refund"]], (-1.0, 0.0, 0.0)),
        ([[("look", {}, "timeout")], ["check"]], (0.0, -1.0)),
        ([["other"], ["refund"]], (None, -1.0)),
        ([["look"], ["look"], ["check"]], (0.0, 0.0, 0.0)),
    ],
)
def test_in_order_deducts_for_what_came_too_early(played, calls, turns):
    assert in_order(played(calls=calls), order=ORDER).turns == turns


def test_a_last_turn_whose_calls_were_not_carried_out_is_not_judged(played):
    episode = played(calls=[["look"], ["look", "look"]], stop=Stop.TIMEOUT)
    full = episode.turns[1]
    episode.turns[1] = Turn(completion=full.completion, results=())
    assert valid_calls(episode).turns == (0.0, None)
    first = ToolResult(call_id="1", name="look", content="", fault="raised")
    episode.turns[1] = Turn(completion=full.completion, results=(first,))
    assert valid_calls(episode).turns == (0.0, -1.0)
