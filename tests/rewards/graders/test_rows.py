"""Samples and labels, as files hold them."""

import json

import pytest

from envs import InputError
from rewards.graders import rows


@pytest.fixture
def read(tmp_path):
    def make(*lines):
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (tmp_path / "rows.jsonl").write_text(text)
        return rows.read(tmp_path / "rows.jsonl")

    return make


def test_a_line_is_a_sample_or_several_of_one_prompt(read):
    found = read({"item": {"a": 1}, "sample": "x"}, {"item": {"a": 2}, "samples": ["y", {"output_text": "z"}]})
    assert [row.sample["output_text"] for row in found] == ["x", "y", "z"]
    assert [row.item["a"] for row in found] == [1, 2, 2]
    assert found[0].group != found[1].group == found[2].group


def test_samples_of_equal_items_are_of_one_prompt_unless_it_is_said(read):
    a, b, c = read({"sample": "x"}, {"sample": "y"}, {"sample": "z", "group": "other"})
    assert (a.group == b.group, c.group) == (True, "other")


@pytest.mark.parametrize(
    ("said", "labels", "mean"),
    [
        ({}, {}, None),
        ({"label": 0.5}, {"expert": 0.5}, 0.5),
        ({"label": True}, {"expert": 1.0}, 1.0),
        ({"labels": [1, 0]}, {"expert 1": 1.0, "expert 2": 0.0}, 0.5),
        ({"labels": {"ann": 1, "bob": None}}, {"ann": 1.0}, 1.0),
    ],
)
def test_what_experts_said_stands_beside_the_sample(read, said, labels, mean):
    (one,) = read({"sample": "x"} | said)
    (among,) = read({"samples": [{"sample": "x"} | said]})
    assert one.labels == among.labels == labels
    assert one.label == mean


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: expected an object, found list"),
        ({"sampel": "x"}, "line 1: unknown field 'sampel'; did you mean 'sample'"),
        ({"item": 1, "sample": "x"}, "line 1: item: expected an object"),
        ({"item": {}}, "line 1: expected one of 'sample' and 'samples'"),
        ({"sample": "x", "samples": ["x"]}, "line 1: expected one of 'sample' and 'samples'"),
        ({"samples": []}, "line 1: samples: expected a list"),
        ({"samples": ["x", 1]}, "line 1, sample 2: expected a text"),
        ({"sample": "x", "label": "good"}, "line 1: label: expected a number, true or false, found 'good'"),
        ({"sample": "x", "label": 1, "labels": [1]}, "line 1: expected one of 'label' and 'labels'"),
        ({"sample": "x", "labels": "1"}, "line 1: labels: expected a list"),
        ({"samples": [{"sample": "x", "label": None}]}, "line 1, sample 1: label: expected a number"),
    ],
)
def test_a_line_that_is_no_row_is_named(read, line, said):
    with pytest.raises(InputError, match=said):
        read(line)


def test_a_file_without_rows_is_refused(read):
    with pytest.raises(InputError, match="holds no samples"):
        read()
