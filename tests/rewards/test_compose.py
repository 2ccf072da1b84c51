"""Sums, gates, caps and shapes."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import InputError
from rewards import Score, build, capped, gated, min_form, reward, shaped, weighted, whole
from rewards.compose import shaping


def fixed(score):
    """A reward that is this score, whatever was played."""

    async def scored(episode, /):
        return score

    return scored


def run(made, episode=None):
    return asyncio.run(made(episode))


def sum_of(**parts):
    return run(weighted({name: (fixed(score), weight) for name, (score, weight) in parts.items()}))


def test_values_add_with_values_and_turns_with_turns():
    score = sum_of(
        outcome=(Score(value=1.0), 1.0),
        progress=(Score(value=0.0, turns=(1.0, None, None)), 0.5),
        repeats=(Score(value=0.0, turns=(-1.0, -2.0, None)), 0.25),
    )
    assert score.value == 1.0
    assert score.turns == (0.25, -0.5, None)
    assert score.parts == {"outcome": 1.0, "progress": 1.0, "repeats": -3.0}


def test_turns_that_nobody_judges_are_none():
    assert sum_of(a=(Score(value=1.0), 1.0), b=(Score(value=2.0), 1.0)).turns is None


def test_a_weight_of_nothing_leaves_the_value_of_the_rest_bit_for_bit():
    odd = 0.1 + 0.2
    score = sum_of(outcome=(Score(value=odd), 1.0), process=(Score(value=0.0, turns=(1 / 3, None)), 0.0))
    assert (score.value, score.turns) == (odd, (0.0, None))


def test_a_part_that_is_not_scored_makes_the_whole_unscored_and_is_named():
    score = sum_of(outcome=(Score(value=1.0), 1.0), judge=(Score.unscored("timed out"), 0.0))
    assert score.error == "judge: timed out"
    assert math.isnan(score.value)


def test_every_part_that_failed_is_named():
    assert sum_of(a=(Score.unscored("x"), 1.0), b=(Score.unscored("y"), 1.0)).error == "a: x; b: y"


def test_what_a_part_consists_of_is_kept_below_its_name():
    inner = Score(value=3.0, parts={"x": 1.0, "y": 2.0})
    assert sum_of(all=(inner, 1.0)).parts == {"all": 3.0, "all.x": 1.0, "all.y": 2.0}
    assert sum_of(one=(Score(value=1.0, parts={"x": 1.0}), 1.0)).parts == {"one": 1.0}


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least one part"):
        weighted({})


def test_parts_run_at_once():
    async def run_both():
        both = asyncio.Barrier(2)

        async def meets(episode, /):
            await asyncio.wait_for(both.wait(), 5)
            return Score(value=1.0)

        return await weighted({"a": (meets, 1.0), "b": (meets, 1.0)})(None)

    assert asyncio.run(run_both()).value == 2.0


def test_a_part_that_raises_stops_the_others_and_is_seen():
    ended = []

    async def waits(episode, /):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def fails(episode, /):
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        run(weighted({"a": (waits, 1.0), "b": (fails, 1.0)}))
    assert ended == [True]


def test_a_function_is_a_part_once_it_is_a_reward(played):
    made = weighted({"right": (reward(lambda episode: episode.answer == "4"), 2.0)})
    assert asyncio.run(made(played("4"))) == Score(value=2.0, parts={"right": 1.0})


THEN = Score(value=0.5, turns=(0.25, None))


def test_an_open_gate_adds_the_second_to_the_first():
    score = run(gated(first=fixed(Score(value=1.0)), then=fixed(THEN)))
    assert (score.value, score.turns) == (1.5, (0.25, None))
    assert score.parts == {"first": 1.0, "then": 0.75, "open": 1.0}


def test_a_closed_gate_does_not_even_ask_the_second():
    async def never(episode, /):
        raise AssertionError("asked")

    score = run(gated(first=fixed(Score(value=0.5)), then=never))
    assert (score.value, score.turns) == (0.5, None)
    assert score.parts == {"first": 0.5, "open": 0.0}


@pytest.mark.parametrize(("value", "is_open"), [(0.49, 0.0), (0.5, 1.0), (0.51, 1.0)])
def test_the_gate_opens_at_its_threshold(value, is_open):
    made = gated(first=fixed(Score(value=value)), then=fixed(THEN), threshold=0.5)
    assert run(made).parts["open"] == is_open


def test_the_total_of_a_process_reward_can_open_a_gate():
    made = gated(first=fixed(Score(value=0.0, turns=(1.0, 1.0))), then=fixed(THEN), threshold=2.0)
    assert run(made).turns == (1.25, 1.0)


def test_a_gate_names_the_side_that_is_not_scored():
    bad = fixed(Score.unscored("x"))
    assert run(gated(first=bad, then=fixed(THEN))).error == "first: x"
    assert run(gated(first=fixed(Score(value=1.0)), then=bad)).error == "then: x"
    assert run(gated(first=fixed(Score(value=0.0)), then=bad)).error is None


def test_whole_moves_the_turns_into_the_value():
    score = run(whole(fixed(Score(value=1.0, turns=(0.5, None, -0.25), parts={"x": 1.0}))))
    assert score == Score(value=1.25, parts={"x": 1.0})
    assert run(whole(fixed(Score.unscored("x")))).error == "x"


def test_a_closed_gate_that_judges_pays_nothing_where_something_was_judged():
    made = gated(first=fixed(Score(value=0.5)), then=fixed(THEN), zero=True)
    score = run(made)
    assert (score.value, score.turns) == (0.5, (0.0, None))
    assert score.parts == {"first": 0.5, "then": 0.75, "open": 0.0}
    open_gate = {"first": fixed(Score(value=1.0)), "then": fixed(THEN)}
    assert run(gated(**open_gate, zero=True)) == run(gated(**open_gate))
    assert run(gated(first=fixed(Score(value=0.0)), then=fixed(Score.unscored("x")), zero=True)).error == "then: x"


def turns_of(made):
    return run(made).turns


def test_a_cap_pays_until_it_is_reached_and_lets_deductions_be_earned_again():
    made = capped(part=fixed(Score(value=1.0, turns=(0.3, None, 0.3, -0.1, 0.3, 0.3))), limit=0.5)
    assert run(made).value == 1.0
    assert turns_of(made) == pytest.approx((0.3, None, 0.2, -0.1, 0.1, 0.0))


def test_shaping_equals_the_numbers_worked_out_by_hand():
    assert shaping([0.2, 0.5], 0.9) == pytest.approx((0.25, -0.5))
    made = shaped(potential=fixed(Score(value=1.0, turns=(1.0, None, 1.0))))
    assert (run(made).value, turns_of(made)) == (1.0, (1.0, 0.0, -1.0))
    assert turns_of(shaped(potential=fixed(Score(value=0.0, turns=(1.0, None, 1.0))), gamma=0.5)) == (0.5, -0.5, -1.0)


def test_the_min_form_equals_the_numbers_worked_out_by_hand():
    score = run(min_form(part=fixed(Score(value=1.0, turns=(0.9, 0.2, None, 0.7))), temperature=0.1))
    weights = (0.000905, 0.992408, 0.006687)
    assert score.turns == (
        *(pytest.approx(w * r, abs=1e-6) for w, r in zip(weights[:2], (0.9, 0.2), strict=True)),
        None,
        pytest.approx(weights[2] * 0.7, abs=1e-6),
    )
    assert score.total - score.value == pytest.approx(0.203977, abs=1e-6)


CHANGES = [
    lambda part: capped(part=part, limit=0.5),
    lambda part: shaped(potential=part),
    lambda part: min_form(part=part),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_no_turns_or_no_score_stays_as_it_is(change):
    assert run(change(fixed(Score(value=1.0)))) == Score(value=1.0)
    assert run(change(fixed(Score.unscored("x")))).error == "x"
    assert turns_of(change(fixed(Score(value=0.0, turns=())))) == ()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: capped(part=fixed(THEN), limit=0.0), "capped: limit is what the turns may come to, above 0, not 0.0"),
        (lambda: capped(part=fixed(THEN), limit=math.nan), "capped: limit"),
        (lambda: min_form(part=fixed(THEN), temperature=0), "min_form: temperature is above 0"),
    ],
)
def test_limits_without_a_meaning_are_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_they_are_made_from_a_config(played):
    steps = {"steps": [{"call_id": str(k), "tool": "look", "progress": True} for k in range(3)]}
    episode = played("done", calls=[["look"], ["look"], ["look"]], state=steps)
    built = {
        name: build({"use": name, **options})
        for name, options in {
            "capped": {"part": "progress", "limit": 1.5},
            "shaped": {"potential": "progress"},
            "min_form": {"part": "progress", "temperature": 0.5},
        }.items()
    }
    assert turns_of_episode(built["capped"], episode) == (1.0, 0.5, 0.0, None)
    assert turns_of_episode(built["shaped"], episode) == (1.0, 1.0, 1.0, -3.0)
    assert turns_of_episode(built["min_form"], episode)[:3] == pytest.approx((1 / 3,) * 3)


def turns_of_episode(made, episode):
    return run(made, episode).turns


NUMBERS = st.integers(-8, 8).map(lambda n: n / 4)  # sums of these are exact
TURNS = st.none() | st.tuples(st.none() | NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS)
SCORES = st.builds(lambda value, turns: Score(value=value, turns=turns), NUMBERS, TURNS)
PARTS = st.lists(st.tuples(SCORES, NUMBERS), min_size=1, max_size=4)


@given(PARTS)
def test_a_weighted_sum_is_linear(parts):
    score = sum_of(**{f"p{n}": part for n, part in enumerate(parts)})
    assert score.total == sum(weight * part.total for part, weight in parts)
    assert score.value == sum(weight * part.value for part, weight in parts)


@given(PARTS, NUMBERS)
def test_scaling_all_weights_scales_the_sum(parts, factor):
    once = sum_of(**{f"p{n}": part for n, part in enumerate(parts)})
    scaled = sum_of(**{f"p{n}": (part, weight * factor) for n, (part, weight) in enumerate(parts)})
    assert scaled.value == once.value * factor
    assert scaled.turns == (once.turns and tuple(t if t is None else t * factor for t in once.turns))


@given(PARTS)
def test_a_turn_is_judged_if_any_part_judges_it(parts):
    turns = sum_of(**{f"p{n}": part for n, part in enumerate(parts)}).turns
    for index in range(3):
        judged = any(part.turns and part.turns[index] is not None for part, _ in parts)
        assert judged == (turns is not None and turns[index] is not None)


@given(SCORES)
def test_whole_keeps_the_total(score):
    assert run(whole(fixed(score))).total == score.total


@given(SCORES, st.integers(1, 8).map(lambda n: n / 4))
def test_a_cap_is_kept_by_every_beginning_of_an_episode_and_never_adds(score, limit):
    found = run(capped(part=fixed(score), limit=limit))
    before, after = ([turn or 0.0 for turn in made.turns or ()] for made in (score, found))
    assert all(sum(after[: k + 1]) <= limit for k in range(len(after)))
    assert all(a <= b for a, b in zip(after, before, strict=True))
    if all(sum(before[: k + 1]) <= limit for k in range(len(before))):
        assert found == score


@given(SCORES, st.sampled_from([1.0, 0.5, 0.25]))
def test_what_shaping_pays_comes_to_nothing_by_the_end(score, gamma):
    turns = run(shaped(potential=fixed(score), gamma=gamma)).turns
    assert sum(gamma**k * turn for k, turn in enumerate(turns or ())) == 0.0


@given(SCORES)
def test_the_min_form_lies_between_the_worst_turn_and_the_mean(score):
    made = run(min_form(part=fixed(score)))
    judged = [turn for turn in score.turns or () if turn is not None]
    if judged:
        assert min(judged) - 1e-9 <= made.total - made.value <= sum(judged) / len(judged) + 1e-9
