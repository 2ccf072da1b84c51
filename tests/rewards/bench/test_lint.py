"""What reading a grader finds, and what it must not complain of."""

import asyncio

import pytest

from rewards.bench.lint import lint, range_of
from rewards.graders import Grader, Ran, Services, Settings, parse, rows

TEXT = "{{ sample.output_text }}"
EQ = {"type": "string_check", "input": TEXT, "reference": "{{ item.a }}", "operation": "eq"}
HAS = EQ | {"operation": "like"}
CALLED = EQ | {"input": "{{ sample.output_tools[0].function.name }}"}
ROWS = list(rows.of_tree({"item": {"a": "x"}, "samples": ["x", "y"]}, "row"))


def multi(formula, **graders):
    rest = {"invalid_grade": graders.pop("invalid_grade")} if "invalid_grade" in graders else {}
    return {"type": "multi", "graders": graders, "calculate_output": formula} | rest


def python(body):
    return {"type": "python", "source": f"import datetime, json, random\ndef grade(sample, item):\n    {body}\n"}


class Nowhere:
    async def grade(self, source, *, sample, item):
        return Ran(value=0.0)


def findings(made):
    return lint(made, ROWS, asyncio.run(rows.grade_all(made, ROWS)))


def kinds(tree, **settings):
    made = Grader(parse(tree), settings=Settings.read(settings), services=Services(pool=Nowhere()))
    return {finding.kind for finding in findings(made)}


@pytest.mark.parametrize(
    "tree",
    [
        EQ,
        multi("2 * a * b / max(a + b, 1e-9)", a=EQ, b=HAS),
        multi("(a + b) / 2", a=EQ, b=HAS),
        multi("max(a, 0.5 * b)", a=EQ, b=HAS),
        multi("a * (0.5 + 0.5 * b)", a=EQ, b=HAS),
        multi("a ^ 2", a=EQ),
        multi("0.5 * a + 0.5 * called", a=EQ, called=CALLED),
        multi("1 - a", a=EQ | {"operation": "ne"}),
        python("return float(sample['output_text'] == str(datetime.datetime.strptime(item['a'], '%Y')))"),
        python("random.seed(0); return random.random() * len(sample['output_text'])"),
        python("return len(json.loads(sample['output_text']))"),
    ],
)
def test_a_sound_grader_gives_no_cause_for_complaint(tree):
    assert kinds(tree) == set()


@pytest.mark.parametrize(
    ("tree", "kind", "settings"),
    [
        (multi("a + b", a=EQ, b=HAS), "leaves_range", {"clamp": [0, 1]}),
        (multi("1 - called", called=CALLED, invalid_grade=0.0), "failing_pays", {}),
        (EQ | {"input": "{{ sample.output_json }}"}, "unformatted_json", {"response_format": {"type": "json_object"}}),
    ],
)
def test_what_was_seen_to_is_not_complained_of(tree, kind, settings):
    bare = {key: value for key, value in tree.items() if key != "invalid_grade"}
    assert kind in kinds(bare)
    assert kind not in kinds(tree, **settings)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("import subprocess; return len(subprocess.run(sample['output_text'], shell=True).stdout)", "runs_the_sample"),
        ("exec(sample['output_text']); return 1", "runs_the_sample"),
        ("return float(str(datetime.datetime.now()) in sample['output_text'])", "random_source"),
        ("from random import random; return random() * len(sample)", "random_source"),
        ("return float(item['a'] == 'x')", "ignores_sample"),
    ],
)
def test_a_source_is_read(body, kind):
    assert kind in kinds(python(body))


@pytest.mark.parametrize(
    ("field", "kind"),
    [({"a": "x"}, None), ({"a": ""}, "sparse_field"), ({"a": None}, "sparse_field"), ({}, "sparse_field")],
)
def test_a_row_without_a_reference_is_no_row_to_compare_with(field, kind):
    """Every text contains the empty one."""
    own = [*ROWS, *rows.of_tree({"item": field, "sample": "x"}, "the last row")]
    made = Grader(parse(HAS))
    found = lint(made, own, asyncio.run(rows.grade_all(made, own)))
    assert [finding.kind for finding in found] == ([kind] if kind else [])
    assert all("1 of 3 rows" in finding.said and "the last row" in finding.said for finding in found)


def test_a_witness_is_named():
    made = Grader(parse(multi("a + b", a=EQ, b=HAS)))
    (finding,) = [finding for finding in findings(made) if finding.kind == "leaves_range"]
    assert finding.said == "'a + b' is 2 at a = 1, b = 1"


@pytest.mark.parametrize(
    ("tree", "ends"),
    [
        (EQ, (0, 1)),
        (multi("3 * a - 1", a=EQ), (-1, 2)),
        (multi("a * b", a=EQ, b=HAS), (0, 1)),
        (python("return 1"), (float("-inf"), float("inf"))),
        (multi("p", p=python("return 1")), (float("-inf"), float("inf"))),
    ],
)
def test_the_range_of_a_grader(tree, ends):
    assert range_of(parse(tree)) == ends
