"""Variables in texts, against hand-made cases and against a reader of another make."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import InputError
from rewards.graders import MissingVariable, Template

NAMES = {
    "item": {
        "answer": "4",
        "number": 1.0,
        "yes": True,
        "none": None,
        "list": [1, {"a": "ü"}],
        "deep": {"date": "1 May", "a b": 3, "0": "zero"},
        "my-key": "k",
    },
    "sample": {
        "output_text": "It is {{ item.answer }}",
        "output_tools": [{"function": {"name": "look", "arguments": '{"id": 1}'}}],
        "output_json": None,
    },
}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("plain { text }", "plain { text }"),
        ("{{item.answer}}", "4"),
        ("{{  item.answer  }}!", "4!"),
        ("{{ item.number }}", "1.0"),
        ("{{ item.yes }} {{ item.none }}", "true null"),
        ("{{ item.list }}", '[1, {"a": "ü"}]'),
        ("{{ item.list[1].a }}", "ü"),
        ("{{ item.list.1.a }}", "ü"),
        ("{{ item.deep.date }} {{ item.deep['a b'] }} {{ item.deep.0 }}", "1 May 3 zero"),
        ('{{ item["my-key"] }}{{ item.my-key }}', "kk"),
        ("{{ sample.output_tools[0].function.name }}", "look"),
        ("{{ sample.output_json }}", "null"),
    ],
)
def test_a_variable_is_replaced_by_what_it_stands_for(text, rendered):
    assert Template.parse(text).render(NAMES) == rendered


def test_values_can_be_written_as_python_writes_them():
    assert Template.parse("{{ item.yes }} {{ item.none }} {{ item.list }}").render(NAMES, "python") == (
        "True None [1, {'a': 'ü'}]"
    )


def test_what_the_model_said_is_never_read_as_a_template():
    assert Template.parse("<{{ sample.output_text }}>").render(NAMES) == "<It is {{ item.answer }}>"


@pytest.mark.parametrize(
    "variable",
    ["item.missing", "item.list[2]", "item.answer.x", "sample.output_json.a", "item.deep[0]", "sample.output_audio"],
)
def test_a_variable_that_is_not_there_is_named(variable):
    with pytest.raises(MissingVariable, match="cannot be found either in the current datapoint") as error:
        Template.parse(f"{{{{ {variable} }}}}").render(NAMES)
    assert repr(variable) in str(error.value)
    assert error.value.variable.namespace == variable.split(".")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a {{ item.x", r"input: '{{ item.x' is never closed"),
        ("{{ row.x }}", r"a variable starts with item\. or sample\."),
        ("{{ item }}", r"name a variable in item, as in item\.x"),
        ("{{ }}", "a variable starts with"),
        ("{{ item.x | upper }}", r"' \| upper' is no path"),
        ("{{ item.x[-1] }}", r"'\[-1\]' is no path"),
        ("{{ item..x }}", "is no path"),
        ("{{ item.x() }}", r"'\(\)' is no path"),
    ],
)
def test_a_template_that_is_none_says_why(text, said):
    with pytest.raises(InputError, match=said):
        Template.parse(text, "input")


KEYS = ("a", "b_1", "c-d")


class Writer:
    """Writes rows, and templates that mostly fit them, at random."""

    def __init__(self, seed):
        self.dice = random.Random(seed)

    def value(self, depth=3):
        kind = self.dice.randrange(4) if depth else 0
        if kind == 1:
            return [self.value(depth - 1) for _ in range(self.dice.randrange(4))]
        if kind >= 2:
            return {key: self.value(depth - 1) for key in KEYS if self.dice.random() < 0.7}
        return self.dice.choice([None, True, 0, -3, 1.5, "", "x", "{{ item.a }}", "}}", "{", '"', "ü\n"])

    def literal(self):
        return "".join(self.dice.choices(["a", "b", "}", "}}", "{ ", "%", " ", "ü", "\n"], k=self.dice.randrange(5)))

    def steps(self, value):
        """A path into the value; one in ten steps goes astray."""
        found = []
        while not found or (len(found) < 4 and self.dice.random() < 0.6):
            inside = (
                list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
            )
            if not inside or self.dice.random() < 0.1:
                inside, value = [*KEYS, 0, 1], None
            found.append(self.dice.choice(inside))
            value = None if value is None else value[found[-1]]
        return found

    def written(self, step):
        if isinstance(step, int):
            return f"[{step}]"
        return self.dice.choice([f".{step}", f"['{step}']", f'["{step}"]'])


def found(value, steps):
    """What lies at the end of a path, or KeyError: written as a person would try it."""
    for step in steps:
        if not isinstance(value, dict if isinstance(step, str) else list):
            raise KeyError(step)
        value = value[step] if isinstance(step, str) else dict(enumerate(value))[step]
    return value


def by_hand(item, pieces, end):
    """The text a template becomes, put together from its pieces; None where a variable is not there."""
    try:
        values = [found(item, steps) for _, steps in pieces]
    except KeyError:
        return None
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    return "".join(before + text for (before, _), text in zip(pieces, texts, strict=True)) + end


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_every_template_reads_as_its_pieces_do(seed):
    """100 templates an example: 5,000 in all."""
    writer = Writer(seed)
    for _ in range(100):
        item = {key: writer.value() for key in KEYS}
        pieces = [(writer.literal(), writer.steps(item)) for _ in range(writer.dice.randrange(4))]
        end = writer.literal()
        paths = ["".join(map(writer.written, steps)) for _, steps in pieces]
        text = "".join(f"{before}{{{{ item{path} }}}}" for (before, _), path in zip(pieces, paths, strict=True)) + end
        try:
            rendered = Template.parse(text).render({"item": item, "sample": {}})
        except MissingVariable:
            rendered = None
        assert rendered == by_hand(item, pieces, end), text
