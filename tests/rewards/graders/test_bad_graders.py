"""Whatever is given as a grader, a template, a formula or a row: it is read, or refused as bad input."""

import asyncio
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import InputError
from rewards.graders import Formula, FormulaError, Grader, Services, Settings, Template, parse, rows, sample

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
CHECK = {
    "type": "string_check",
    "name": "c",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.a }}",
    "operation": "eq",
}
GRADER = {
    "type": "multi",
    "name": "all",
    "graders": {
        "a": CHECK,
        "b": {
            "type": "text_similarity",
            "input": "{{ sample.output_tools[0].function.name }}",
            "reference": "{{ item['b'] }}",
            "evaluation_metric": "fuzzy_match",
            "pass_threshold": 0.5,
        },
        "c": {
            "type": "score_model",
            "model": "m",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "{{ item.a }}"}]}],
            "range": [0, 1],
            "sampling_params": {"temperature": 0.0},
        },
        "d": {"type": "python", "source": "def grade(sample, item): return 1"},
    },
    "calculate_output": "a * b + c / (1 + d)",
    "invalid_grade": 0,
}


def places(tree, path=()):
    """Every place in a tree, the tree itself aside."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))


PLACES = list(places(GRADER))


@settings(max_examples=400)
@given(st.sampled_from(PLACES), st.sampled_from(["replace", "remove", "rename"]), JSON, st.text(max_size=8))
def test_a_grader_with_something_odd_anywhere_is_read_or_refused(place, how, value, name):
    tree = copy.deepcopy(GRADER)
    inside = tree
    for key in place[:-1]:
        inside = inside[key]
    old = inside.pop(place[-1])
    if how == "replace":
        inside.insert(place[-1], value) if isinstance(inside, list) else inside.update({place[-1]: value})
    elif how == "rename" and isinstance(inside, dict):
        inside[name] = old
    try:
        json.dumps(parse(tree).model_dump())
    except InputError as error:
        assert str(error).startswith("grader"), error


@settings(max_examples=300)
@given(JSON)
def test_anything_at_all_is_read_or_refused(tree):
    for read in (parse, lambda tree: list(rows.of_tree(tree, "row")), sample.of_json, Settings.read):
        try:
            read(tree)
        except InputError as error:
            assert str(error)


@settings(max_examples=500)
@given(st.text(alphabet="ab1.eE+-*/^(), \n_é$\x00minabslog", max_size=20))
def test_any_text_is_a_formula_or_refused(text):
    try:
        Formula.parse(text)
    except FormulaError as error:
        assert str(error).startswith("calculate_output: ")


@settings(max_examples=500)
@given(st.text(alphabet="{} item.sample[0]'\"a-é\x00", max_size=30))
def test_any_text_is_a_template_or_refused(text):
    try:
        Template.parse(text)
    except InputError as error:
        assert str(error).startswith("template: ")


class Any:
    async def grade(self, source, *, sample, item):
        raise AssertionError("not reached")


@settings(max_examples=200)
@given(st.text(max_size=20) | st.sampled_from(["\ud800", "{}", "NaN", "[" * 5000]), st.dictionaries(st.just("a"), JSON))
def test_any_sample_of_any_row_gets_a_grade_and_a_response(text, item):
    made = Grader(
        parse(GRADER | {"graders": {k: GRADER["graders"][k] for k in "ab"}, "calculate_output": "a / b"}),
        services=Services(pool=Any()),
    )
    grade = asyncio.run(made.grade(item, sample.of_text(text)))
    assert (grade.error is None) == all(error.blame == "sample" for error in grade.errors)
    json.dumps(grade.response(), allow_nan=False).encode()


def test_a_formula_for_a_grader_that_is_a_function_too_is_told_apart_by_its_parenthesis():
    tree = {"type": "multi", "graders": {"min": CHECK}, "calculate_output": "min(min, 1)"}
    grade = asyncio.run(Grader(parse(tree)).grade({"a": "x"}, sample.of_text("x")))
    assert grade.reward == 1.0


@pytest.mark.parametrize("depth", [50, 3000])
def test_a_deep_tree_is_refused_not_followed(depth):
    tree = inner = {"type": "multi"}
    for _ in range(depth):
        inner["graders"] = {"a": {"type": "multi"}}
        inner = inner["graders"]["a"]
    with pytest.raises(InputError):
        parse(tree)
