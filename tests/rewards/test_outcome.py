"""What came out: right answers score 1, and near misses and tricks 0."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import InputError, Stop
from rewards import contains, exact, json_equal, numeric, state_equal


def test_exact_is_the_whole_answer_without_outer_space(played):
    item = {"answer": "Main St"}
    assert exact(played(" Main St\n", item=item)) == 1.0
    assert exact(played("main st", item=item)) == 0.0
    assert exact(played("main st", item=item), ignore_case=True) == 1.0
    assert exact(played("Main St 1", item=item)) == 0.0


def test_any_of_several_right_answers_is_right(played):
    item = {"answer": ["4", "four"]}
    assert [exact(played(a, item=item)) for a in ("four", "4", "['4', 'four']")] == [1.0, 1.0, 0.0]
    assert contains(played("It is four.", item=item)) == 1.0


def test_values_that_are_no_text_are_compared_as_json(played):
    assert exact(played("42", item={"answer": 42})) == 1.0
    assert exact(played("true", item={"answer": True})) == 1.0


def test_contains_finds_the_answer_anywhere(played):
    assert contains(played("So it is 42, I think", item={"answer": "42"})) == 1.0
    assert contains(played("So it is 43", item={"answer": "42"})) == 0.0


def test_only_the_last_turn_without_calls_is_an_answer(played):
    assert contains(played(calls=[["look"]], item={"answer": "4"})) == 0.0
    assert contains(played(item={"answer": "4"})) == 0.0


def test_the_field_may_be_elsewhere_in_the_item(played):
    item = {"truth": {"names": ["x", "42"]}}
    assert exact(played("42", item=item), field="truth.names.1") == 1.0


@pytest.mark.parametrize("function", [exact, contains, numeric, json_equal])
def test_a_missing_field_is_named_with_its_task_and_what_there_is(played, function):
    episode = played("4", item={"solution": "4"})
    with pytest.raises(InputError, match=f"task '{episode.task.id}' has no 'answer' in its item; there is: solution"):
        function(episode)


@pytest.mark.parametrize("empty", ["", "  ", None, [], ["4", ""]])
@pytest.mark.parametrize("function", [exact, contains])
def test_an_empty_right_answer_is_refused_since_everything_contains_it(played, function, empty):
    with pytest.raises(InputError, match="is empty"):
        function(played("anything", item={"answer": empty}))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("42", 1),
        ("The result is 42.", 1),
        ("6 * 7 = 42", 1),
        ("42.0", 1),
        ("4.2e1", 1),
        ("$42", 1),
        ("-42", 0),
        ("\u221242", 0),
        ("41 or 42 or 43", 0),
        ("42 or 43", 0),
        ("none", 0),
        ("", 0),
        ("1e99999999999999", 0),
        ("٤٢", 0),
    ],
)
def test_numeric_reads_the_last_number(played, answer, right):
    assert numeric(played(answer, item={"answer": 42})) == right
    assert numeric(played(answer, item={"answer": "42"})) == right


def test_numeric_reads_thousands_signs_and_points(played):
    assert numeric(played("It is -1,234,567.5", item={"answer": -1234567.5})) == 1.0
    assert numeric(played("\u22127", item={"answer": "-7"})) == 1.0
    assert numeric(played(".5", item={"answer": 0.5})) == 1.0


def test_numeric_tolerates_what_it_is_told_to(played):
    near = played("3.14", item={"answer": 3.14159})
    assert numeric(near) == 0.0
    assert numeric(near, tolerance=0.01) == 1.0
    assert numeric(near, relative=0.001) == 1.0
    assert numeric(near, relative=0.0001) == 0.0


@given(st.integers())
def test_numeric_compares_whole_numbers_exactly(played, number):
    assert numeric(played(f"= {number}", item={"answer": str(number)})) == 1.0
    assert numeric(played(f"= {number + 1}", item={"answer": str(number)})) == 0.0


@pytest.mark.parametrize("value", ["none", "1 or 2", True, None, [1]])
def test_numeric_needs_one_number_in_the_item(played, value):
    if value == [1]:
        assert numeric(played("1", item={"answer": value})) == 1.0
        return
    with pytest.raises(InputError, match="is not a number"):
        numeric(played("1", item={"answer": value}))


def test_numeric_reads_a_long_answer_in_no_time(played):
    started = time.monotonic()
    for text in ("1," * 50_000, "1" * 100_000, "1,234" * 50_000, "-+" * 50_000, ".1e" * 50_000):
        numeric(played(text, item={"answer": 1}))
    assert time.monotonic() - started < 5


ORDER = {"lines": [{"price": 2.5, "n": 1}], "paid": True, "note": None}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (json.dumps(ORDER), 1),
        ('{"note": null, "paid": true, "lines": [{"n": 1.0, "price": 2.50}]}', 1),
        (f"```json\n{json.dumps(ORDER)}\n```", 1),
        (f"```\n{json.dumps(ORDER, indent=2)}\n```\n", 1),
        (f"Here: {json.dumps(ORDER)}", 0),
        (json.dumps(ORDER | {"paid": 1}), 0),
        (json.dumps(ORDER | {"lines": []}), 0),
        (json.dumps(ORDER | {"lines": {"0": {"price": 2.5, "n": 1}}}), 0),
        (json.dumps(ORDER | {"more": 1}), 0),
        ('{"lines": [{"price": 2.5, "n": 1}], "paid": true}', 0),
        ("", 0),
        ("[" * 100_000, 0),
    ],
)
def test_json_equal_compares_values_and_not_text(played, answer, right):
    assert json_equal(played(answer, item={"answer": ORDER})) == right
    assert json_equal(played(answer, item={"answer": json.dumps(ORDER)})) == right


def test_json_equal_looks_only_where_it_is_told_to(played):
    said = played(json.dumps(ORDER | {"note": "x", "lines": [{"price": 2.51, "n": 1}]}), item={"answer": ORDER})
    assert json_equal(said) == 0.0
    assert json_equal(said, only=["lines.*.n", "paid"]) == 1.0
    assert json_equal(said, ignore=["note"], tolerance=0.02) == 1.0
    assert json_equal(said, ignore=["note", "lines.0.price"]) == 1.0
    assert json_equal(said, ignore=["note"]) == 0.0


@pytest.mark.parametrize(
    "answer", ["[" * 900 + "]" * 900, "1" * 400, "1" * 5000, "Infinity", "-1e999", '{"a": 1, "a": 2}']
)
def test_no_answer_however_odd_breaks_the_comparison(played, answer):
    assert json_equal(played(answer, item={"answer": 0.5}), tolerance=0.1) == 0.0


def test_nan_equals_nothing(played):
    assert json_equal(played("NaN", item={"answer": float("nan")})) == 0.0


def test_a_comparison_of_nothing_is_refused(played):
    with pytest.raises(InputError, match=r"nothing in item\.answer is left to compare"):
        json_equal(played("{}", item={"answer": ORDER}), only=["line"])
    with pytest.raises(InputError, match=r"nothing in state\.goal is left"):
        state_equal(played("ok", state={"database": {}, "goal": {}}), only=["*.status"])


GOAL = {"4711": {"status": "refunded", "log": ["a"]}}


def test_state_equal_compares_what_is_with_what_should_be(played):
    assert state_equal(played("Done.", state={"database": GOAL, "goal": GOAL})) == 1.0
    other = {"4711": {"status": "open", "log": ["a"]}}
    assert state_equal(played("Done.", state={"database": other, "goal": GOAL})) == 0.0
    assert state_equal(played("Done.", state={"database": {}, "goal": GOAL})) == 0.0
    assert state_equal(played("Done.", state={"database": {}, "goal": {}})) == 1.0


def test_state_equal_takes_paths(played):
    state = {"after": {"db": {"4711": {"status": "refunded", "log": []}}}, "want": {"db": GOAL}}
    episode = played("Done.", state=state)
    assert state_equal(episode, state="after.db", goal="want.db") == 0.0
    assert state_equal(episode, state="after.db", goal="want.db", ignore=["*.log"]) == 1.0
    assert state_equal(episode, state="after.db", goal="want.db", only=["*.status"]) == 1.0


def test_a_missing_state_is_named_with_what_there_is(played):
    with pytest.raises(InputError, match="'hand' left no 'goal' in its state; there is: database"):
        state_equal(played("Done.", state={"database": {}}))


def test_the_desk_is_solved_only_if_everything_required_holds(played):
    good = {"database": GOAL, "goal": GOAL, "violations": []}
    require = ["done", "answered", "no_violations"]
    assert state_equal(played("Done.", state=good), require=require) == 1.0
    assert state_equal(played(" ", state=good), require=require) == 0.0
    assert state_equal(played(calls=[["refund"]], state=good), require=require) == 0.0
    assert state_equal(played("Done.", state=good, stop=Stop.MAX_TURNS), require=require) == 0.0
    assert state_equal(played("Done.", state=good | {"violations": [{"tool": "refund"}]}), require=require) == 0.0
    with pytest.raises(InputError, match="left no 'violations'"):
        state_equal(played("Done.", state={"database": {}, "goal": {}}), require=require)


@pytest.mark.parametrize("function", [exact, contains, numeric, json_equal])
def test_each_outcome_may_require_a_proper_end(played, function):
    cut = played("4", item={"answer": 4}, stop=Stop.TRUNCATED)
    assert function(cut) == 1.0
    assert function(cut, require=["done"]) == 0.0
    assert function(played("4", item={"answer": 4}), require=["done", "answered"]) == 1.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_everything_equals_itself_through_json(played, value):
    assert json_equal(played(json.dumps(value), item={"answer": [value]}), field="answer.0") == 1.0 or (
        isinstance(value, str) and value.lstrip()[:1] in ("{", "[")
    )


@given(JSON, JSON)
def test_equality_is_symmetric(played, a, b):
    ways = [{"database": a, "goal": b}, {"database": b, "goal": a}]
    assert len({state_equal(played("ok", state=state)) for state in ways}) == 1
