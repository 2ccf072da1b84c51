"""Tools that are known by a JSON schema alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import InputError, ToolError
from envs.schemas import PROBLEM_CHARS, PROBLEMS, JsonSchema

REFUND = {
    "type": "object",
    "title": "RefundArguments",
    "properties": {
        "order": {"type": "string", "pattern": "^[0-9]+$"},
        "amount": {"type": "number", "exclusiveMinimum": 0},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "required": ["order"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}},
}


@pytest.fixture
def refund():
    return JsonSchema(REFUND, "tool refund")


def test_a_schema_is_kept_as_it_is(refund):
    assert refund.schema == REFUND


def test_arguments_that_fit_arrive_as_they_were_written(refund):
    arguments = {"order": "17", "amount": 2.5, "lines": [{"sku": "a", "more": None}]}
    assert refund.parse(json.dumps(arguments)) == arguments
    assert JsonSchema({"type": "object"}, "t").parse("") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"order": "17"', "Invalid JSON"),
        ("order=17", "Invalid JSON"),
        ("[]", "is not of type 'object'"),
        ("", "'order' is a required property"),
        ('{"order": 17}', "order: 17 is not of type 'string'"),
        ('{"order": "x"}', "order: 'x' does not match"),
        ('{"order": "17", "amount": 0}', "amount: 0 is less than or equal to"),
        ('{"order": "17", "amount": NaN}', "Invalid JSON"),
        ('{"order": "17", "amount": 1e999}', "Invalid JSON: Out of range"),
        ('{"order": "17", "lines": [{"sku": "a"}, {}]}', "lines.1: 'sku' is a required property"),
        ('{"order": "17", "extra": 1}', "'extra' was unexpected"),
        ('{"order": "\\ud800"}', "Invalid JSON"),
        ('{"order": "\ud800"}', "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON: recursion limit"),
    ],
)
def test_arguments_that_do_not_fit_are_named_for_the_model(refund, text, said):
    with pytest.raises(ToolError, match=said) as caught:
        refund.parse(text)
    str(caught.value).encode()


def test_what_is_wrong_stays_short_however_much_is_wrong(refund):
    lines = [{"sku": 1, "junk": "x" * 1000}] * 1000
    with pytest.raises(ToolError) as caught:
        refund.parse(json.dumps({"order": "y" * 100_000, "lines": lines}))
    assert len(str(caught.value)) < PROBLEMS * (PROBLEM_CHARS + 50)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "objec"}, "tool t: its schema is none: 'objec'"),
        ({"type": "object", "properties": 3}, "its schema is none"),
        ({"type": "string"}, "not that of an object"),
        ({}, "not that of an object"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}, "refers to '#/\\$defs/gone'"),
        ({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/s"}}}, "refers to 'http://127.0.0.1:9/s'"),
    ],
)
def test_a_schema_that_can_not_be_used_is_refused(schema, said):
    with pytest.raises(InputError, match=said):
        JsonSchema(schema, "tool t")


@given(st.text(), st.floats(min_value=0.01, max_value=1e6))
def test_whatever_is_parsed_fits_and_whatever_fits_is_parsed(order, amount):
    fits = order.isdecimal() and order.isascii()
    text = json.dumps({"order": order, "amount": amount})
    schema = JsonSchema(REFUND, "tool refund")
    if fits:
        assert schema.parse(text) == {"order": order, "amount": amount}
    elif not order.rstrip("\n").isdecimal():
        with pytest.raises(ToolError):
            schema.parse(text)
