"""Criteria with weights, judged over real HTTP."""

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import InputError, Stop
from judging import episode, judge, turn
from rewards import build
from rewards.judging.rubric import Criterion, worth
from served import completion

LOOKS = {"name": "looks", "says": "It looks something up.", "weight": 2}
TALKS = {"name": "talks", "says": "It says something."}
CLAIMS = {"name": "claims", "says": "It claims an approval.", "weight": -1}

DESK = episode(turn("I look.", look="red"), turn(look="blue"), turn("approved"), turn())


def rubric(server, **options):
    asked = {"base_url": server.url, "retries": 0} | options.pop("judge", {})
    given = {} if "field" in options else {"criteria": [LOOKS, TALKS, CLAIMS]}
    return build({"use": "rubric", "model": "m", "judge": asked} | given | options)


def score(made, played=DESK):
    return asyncio.run(made(played))


def met(line):
    """What a turn meets, by what is seen of it."""
    text = line.get("text", "")
    return {"looks": "calls" in line, "talks": bool(text), "claims": "approved" in text}


def by_turn(seen):
    return {"turns": [{"turn": line["turn"], "why": "", "met": met(line)} for line in seen.lines if "turn" in line]}


def test_every_turn_is_worth_its_criteria_by_their_weights_in_one_request():
    with judge(by_turn) as server:
        made = rubric(server, per="step")
        found = score(made)
    assert found.turns == ((2 + 1) / 3, 2 / 3, (1 - 1) / 3, 0.0)
    assert (found.value, found.error) == (0.0, None)
    assert found.parts == {"looks": 0.5, "talks": 0.5, "claims": 0.25, "unjudged": 0.0}
    assert len(server.heard) == 1
    assert dict(made.asked.judge.usage["m"]) == {
        "prompt_tokens": 11,
        "completion_tokens": 5,
        "total_tokens": 16,
        "cached_tokens": 0,
    }


def test_a_whole_episode_is_worth_its_criteria_by_their_weights():
    with judge(lambda seen: {"why": "", "met": {"looks": True, "talks": False, "claims": True}}) as server:
        found = score(rubric(server))
    assert (found.value, found.turns) == ((2 - 1) / 3, None)
    assert found.parts == {"looks": 1.0, "talks": 0.0, "claims": 1.0}
    assert list(found.graders) == ["rubric"]


@given(st.lists(st.tuples(st.floats(-9, 9).filter(lambda w: abs(w) > 1e-3), st.booleans()), min_size=1, max_size=6))
def test_the_worth_is_that_of_the_paper_and_below_0_by_the_pitfalls_alone(given_):
    criteria = [Criterion(name=f"c{n}", says="So.", weight=weight) for n, (weight, _) in enumerate(given_)]
    found = worth(criteria, {f"c{n}": is_met for n, (_, is_met) in enumerate(given_)})
    paid = sum(weight * is_met for weight, is_met in given_)
    above, below = (sum(abs(w) for w, _ in given_ if (w > 0) is side) for side in (True, False))
    assert found == pytest.approx(paid / (above or below))
    assert (above or below) * found <= above + 1e-9 and (above or below) * found >= -below - 1e-9


def test_pitfalls_alone_deduct_and_never_pay():
    pitfalls = [CLAIMS, {**TALKS, "weight": -3}]
    criteria = [Criterion.model_validate(one) for one in pitfalls]
    assert worth(criteria, {"claims": False, "talks": False}) == 0.0
    assert worth(criteria, {"claims": True, "talks": False}) == -0.25
    assert worth(criteria, {"claims": True, "talks": True}) == -1.0


def test_a_turn_that_the_judge_left_out_is_unjudged_and_not_0():
    def forgets(seen):
        return {"turns": [one for one in by_turn(seen)["turns"] if one["turn"] in (1, 4)]}

    with judge(forgets) as server:
        found = score(rubric(server, per="step"))
    assert found.turns == (1.0, None, None, 0.0)
    assert found.parts == {"looks": 0.5, "talks": 0.5, "claims": 0.0, "unjudged": 0.5}
    assert len(server.heard) == 1


def test_the_judge_is_asked_in_a_strict_schema_and_sees_no_weights():
    with judge(by_turn) as server:
        score(rubric(server, per="step", params={"temperature": 0.0, "seed": 3}, judge={"models": {"m": "local"}}))
    (heard,) = server.heard
    assert (heard["model"], heard["temperature"], heard["seed"]) == ("local", 0.0, 3)
    asked = heard["response_format"]["json_schema"]
    assert asked["strict"] is True
    one = asked["schema"]["properties"]["turns"]["items"]
    assert one["required"] == ["turn", "why", "met"]
    assert one["properties"]["met"]["required"] == ["looks", "talks", "claims"]
    system = heard["messages"][0]["content"]
    assert "\n- looks: It looks something up.\n- talks:" in system
    assert "2" not in system.partition("The criteria:")[2]


GOOD = {"turn": 1, "why": "", "met": {"looks": True, "talks": True, "claims": False}}
NONSENSE = {
    "no JSON": "I say yes.",
    "empty": "",
    "a list": [GOOD],
    "no verdict": {"turns": []},
    "turn 0": {"turns": [{**GOOD, "turn": 0}]},
    "a turn too many": {"turns": [GOOD, {**GOOD, "turn": 5}]},
    "one turn twice": {"turns": [GOOD, {**GOOD, "met": {**GOOD["met"], "looks": False}}]},
    "a number": {"turns": [{**GOOD, "met": {**GOOD["met"], "looks": 1}}]},
    "a word": {"turns": [{**GOOD, "met": {**GOOD["met"], "looks": "yes"}}]},
    "a turn by name": {"turns": [{**GOOD, "turn": "1"}]},
    "a criterion missing": {"turns": [{**GOOD, "met": {"looks": True, "talks": True}}]},
    "a criterion too many": {"turns": [{**GOOD, "met": {**GOOD["met"], "more": True}}]},
    "a field too many": {"turns": [GOOD], "score": 1},
    "deep": "[" * 50_000,
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_asked_for_again_and_then_unscored(said):
    with judge(lambda seen: said) as server:
        found = score(rubric(server, per="step"))
    assert found.error is not None and "no answer of 3 by m could be used" in found.error
    assert len(server.heard) == 3


@pytest.mark.parametrize(
    "said", ["", {"why": ""}, {"why": "", "met": {"looks": 1, "talks": True, "claims": True}}, GOOD], ids=str
)
def test_nonsense_on_a_whole_episode_is_unscored_too(said):
    with judge(lambda seen: said) as server:
        assert score(rubric(server)).error is not None


def test_who_comes_to_their_senses_is_heard_and_told_nothing_that_they_said_themselves(tmp_path):
    def second_time(seen):
        return by_turn(seen) if seen.after else '{"turns": [{"turn": 99, "why": "IGNORE ALL", "IGNORE": 1}]}'

    with judge(second_time) as server:
        found = score(rubric(server, per="step", judge={"cache": str(tmp_path)}))
        assert score(rubric(server, per="step", judge={"cache": str(tmp_path)})) == found
    assert found.turns is not None and found.turns[0] == 1.0
    first, second = (heard["messages"][1]["content"] for heard in server.heard)
    assert second == first + (
        "\n\nYour answer number 1 could not be used: it is not of the form that was asked for. "
        "Answer again, in the given form."
    )


def test_a_judge_whose_nonsense_is_in_the_cache_is_asked_anew_each_time(tmp_path):
    with judge(lambda seen: "no") as server:
        score(rubric(server, judge={"cache": str(tmp_path)}))
    assert len({heard["messages"][1]["content"] for heard in server.heard}) == 3


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: (500, {"error": {"message": "down"}}),
        lambda request: (401, {"error": {"message": "no"}}),
        lambda request: (200, "<html>a proxy</html>"),
        lambda request: (200, {"choices": []}),
        lambda request: (time.sleep(0.5), (200, completion("{}")))[1],
        lambda request: (200, completion("", refusal="I can't judge that.")),
        lambda request: (200, completion(json.dumps(GOOD), finish="length")),
        lambda request: (400, {"error": {"code": "context_length_exceeded", "message": "too long"}}),
    ],
    ids=["500", "401", "html", "no choice", "slow", "refusal", "cut off", "too long"],
)
def test_a_judge_that_can_not_be_had_leaves_an_episode_unscored_and_never_0(answer):
    with judge(by_turn) as server:
        server.answer = answer
        found = score(rubric(server, judge={"timeout": 0.2}))
    assert found.error is not None and found.error.startswith("rubric: ")
    assert found.value != found.value


def test_a_server_that_was_down_for_a_moment_is_tried_again():
    with judge(by_turn) as server:
        good, tries = server.answer, []

        def flaky(request):
            tries.append(1)
            return good(request) if len(tries) > 1 else (500, {})

        server.answer = flaky
        assert score(rubric(server, per="step", judge={"retries": 2})).error is None
    assert len(tries) == 2


def test_a_part_that_is_not_judged_makes_the_sum_unscored():
    with judge(lambda seen: "no") as server:
        part = {"use": "rubric", "model": "m", "judge": {"base_url": server.url}, "criteria": [LOOKS]}
        found = score(build({"asked": {"use": "contains"}, "quality": part}))
    assert found.error is not None


def test_turns_add_up_with_those_of_others_under_the_name_of_the_part():
    with judge(by_turn) as server:
        part = {"use": "rubric", "per": "step", "model": "m", "judge": {"base_url": server.url}}
        part |= {"criteria": [LOOKS, TALKS, CLAIMS], "weight": 0.3}
        found = score(build({"tidy": "no_repeats", "quality": part}))
    assert found.turns == pytest.approx((0.3, 0.2 - 1, 0.0, 0.0))
    assert found.parts["quality"] == pytest.approx(1 + 2 / 3)
    assert found.parts["quality.looks"] == 0.5
    assert list(found.graders) == ["quality"]


def test_a_row_may_bring_its_own_criteria_and_one_without_is_unscored():
    with judge(lambda seen: {"why": "", "met": {"looks": True}}) as server:
        made = rubric(server, field="rubric")
        assert score(made, episode(turn("so"), rubric=[LOOKS])).value == 1.0
        assert "item.rubric" in (score(made).error or "")
        assert "says" in (score(made, episode(turn("so"), rubric=[{"name": "looks"}])).error or "")
    assert len(server.heard) == 1


def test_what_broke_or_never_began_is_not_judged():
    with judge(by_turn) as server:
        made = rubric(server)
        assert score(made, episode(turn("so"), stop=Stop.FAULT)).error is not None
        assert score(made, episode(stop=Stop.MAX_TOKENS)).error is not None
    assert server.heard == []


def test_the_hash_is_that_of_what_was_asked_and_of_whom():
    def hashed(**options):
        with judge(by_turn) as server:
            return rubric(server, **options).hash

    assert hashed() == hashed()
    others = [{"per": "step"}, {"chars": 9}, {"params": {"seed": 1}}, {"criteria": [LOOKS]}, {"model": "n"}]
    assert len({hashed(**options) for options in ({}, *others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one of 'criteria' and 'field'"),
        ({"criteria": [LOOKS], "field": "rubric"}, "give one of 'criteria' and 'field'"),
        ({"criteria": []}, "criteria"),
        ({"criteria": [LOOKS, LOOKS]}, "the name 'looks' is taken"),
        ({"criteria": [{**LOOKS, "name": "unjudged"}]}, "the name 'unjudged' is taken"),
        ({"criteria": [{**LOOKS, "name": "it looks"}]}, "criteria: 0.name"),
        ({"criteria": [{**LOOKS, "weight": 0}]}, "no criterion weighs anything"),
        ({"criteria": [{**LOOKS, "weight": float("nan")}]}, "weight"),
        ({"criteria": [{**LOOKS, "wieght": 1}]}, "wieght"),
        ({"criteria": [LOOKS], "per": "turn"}, "per"),
        ({"criteria": [LOOKS], "chars": 0}, "chars"),
        ({"criteria": [LOOKS], "params": {"messages": []}}, "params.messages is ours"),
        ({"criteria": [LOOKS], "judge": {"url": "x"}}, "url"),
        ({"criteria": [LOOKS], "weights": {}}, "unknown option 'weights'"),
    ],
)
def test_what_makes_no_sense_is_refused(options, said):
    with pytest.raises(InputError) as caught:
        build({"use": "rubric", "model": "m", "judge": {"base_url": "http://127.0.0.1:9/v1"}} | options)
    assert said in str(caught.value)
