"""Grader JSON: what is taken, what is made of it, and what is refused how."""

import json

import pytest

from envs import InputError
from rewards.graders import load, parse
from rewards.graders.spec import SOURCE_BYTES, as_json, content_hash, walk

CHECK = {"type": "string_check", "name": "right", "input": "{{ sample.output_text }}", "reference": "{{ item.a }}"}
EQ = CHECK | {"operation": "eq"}
LIKE = CHECK | {"operation": "like", "name": "has"}
PYTHON = {"type": "python", "source": "def grade(sample, item):\n    return 1.0\n"}
JUDGE = {"type": "score_model", "name": "j", "model": "o3-mini", "input": [{"role": "user", "content": "Good?"}]}
MULTI = {"type": "multi", "name": "both", "graders": {"right": EQ, "has": LIKE}, "calculate_output": "right + has"}


@pytest.mark.parametrize(
    "tree",
    [
        EQ,
        EQ | {"pass_threshold": 0.5},
        {"type": "text_similarity", "name": "t", "input": "a", "reference": "b", "evaluation_metric": "rouge_l"},
        PYTHON | {"name": "p", "image_tag": "2025-05-08"},
        JUDGE | {"range": [1, 10], "sampling_params": {"temperature": 0, "max_completions_tokens": 100, "seed": 1}},
        JUDGE | {"input": [{"type": "message", "role": "developer", "content": {"type": "input_text", "text": "x"}}]},
        JUDGE
        | {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "x"},
                        {"type": "output_text", "text": "x"},
                        {"type": "input_image", "image_url": "{{ item.url }}", "detail": "low"},
                        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                    ],
                }
            ]
        },
        {"type": "endpoint", "name": "e", "url": "https://x.y/score", "headers": {"k": "v"}, "rate_limit": 5},
        MULTI,
        MULTI | {"invalid_grade": 0.0},
    ],
)
def test_what_hosted_services_take_is_read_and_given_back_as_it_was(tree):
    assert as_json(parse(tree)) == tree


def test_a_name_is_filled_in_by_key_or_by_content():
    both = parse({k: v for k, v in MULTI.items() if k != "name"} | {"graders": {"p": PYTHON}, "calculate_output": "p"})
    assert both.graders["p"].name == "p"
    assert parse(PYTHON).name == parse(dict(reversed(PYTHON.items()))).name
    assert parse(PYTHON).name.startswith("grader-") and len(parse(PYTHON).name) == len("grader-") + 12
    assert parse(PYTHON).name != parse(PYTHON | {"source": PYTHON["source"] + "#"}).name


def test_a_list_of_graders_and_the_one_grader_of_the_sdk_are_read_by_their_names():
    assert list(parse(MULTI | {"graders": [EQ, LIKE]}).graders) == ["right", "has"]
    assert list(parse(MULTI | {"graders": EQ, "calculate_output": "right"}).graders) == ["right"]


def test_a_child_called_type_is_not_taken_for_a_single_grader():
    assert list(parse(MULTI | {"graders": {"type": EQ}, "calculate_output": "type"}).graders) == ["type"]


def test_every_grader_is_walked_with_its_place():
    assert [place for place, _ in walk(parse(MULTI))] == ["grader", "grader.graders.right", "grader.graders.has"]


def test_the_hash_is_of_content_alone():
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1}) != content_hash({"a": 1, "b": 3})


NAMELESS = {k: v for k, v in LIKE.items() if k != "name"}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (None, "grader: "),
        ([], "grader: "),
        ({}, "grader: .*type"),
        ({"type": "string_chek"}, r"grader\.type: unknown type 'string_chek'; did you mean 'string_check'"),
        (EQ | {"refrence": "x"}, "grader: unknown field 'refrence'; did you mean 'reference'"),
        (CHECK, r"grader\.operation: the field is missing"),
        (EQ | {"operation": "neq"}, r"grader\.operation: Input should be 'eq', 'ne', 'like' or 'ilike'"),
        (EQ | {"input": 3}, r"grader\.input: Input should be a valid string"),
        (EQ | {"input": "{{ item.x"}, r"grader\.input: .* is never closed"),
        (EQ | {"input": "{{ row.x }}"}, r"grader\.input: .*starts with item\. or sample\."),
        (EQ | {"pass_threshold": float("nan")}, r"grader\.pass_threshold: "),
        ({"type": "label_model"} | JUDGE | {"type": "label_model"}, "label_model is accepted only inside a multi"),
        (JUDGE | {"range": [1, 0]}, r"range \[1.*0.*\] is empty"),
        (JUDGE | {"range": [0, float("inf")]}, r"grader\.range\.1: "),
        (JUDGE | {"input": []}, r"grader\.input: List should have at least 1 item"),
        (JUDGE | {"input": [{"role": "tool", "content": "x"}]}, r"grader\.input\.0\.role: "),
        (JUDGE | {"sampling_params": {"temprature": 1}}, "unknown field 'temprature'"),
        (PYTHON | {"source": "def grade(sample, item)\n  return 1"}, r"grader\.source: source is not Python: .*line 1"),
        (PYTHON | {"source": "def score(sample, item): return 1"}, "no function grade at its top level"),
        (PYTHON | {"source": "def grade(sample): return 1"}, "exactly two arguments"),
        (PYTHON | {"source": "def grade(sample, item, extra): return 1"}, "exactly two arguments"),
        (PYTHON | {"source": "def grade(sample, item, *, extra): return 1"}, "exactly two arguments"),
        (PYTHON | {"source": "async def grade(sample, item): return 1"}, "grade must be a plain function"),
        (PYTHON | {"source": "x = '\0'\ndef grade(s, i): return 1"}, "source is not Python"),
        (PYTHON | {"source": "(" * 5000}, "source is not Python"),
        (MULTI | {"graders": {}}, r"grader\.graders: Dictionary should have at least 1 item"),
        (MULTI | {"graders": {"a-b": EQ}}, r"grader\.graders\.a-b: .* use 'a_b'"),
        (MULTI | {"graders": {"m": MULTI}}, r"grader\.graders\.m: a multi grader can't hold another"),
        (MULTI | {"graders": {"right": EQ | {"refrence": 1}}}, r"graders\.right: unknown field 'refrence'"),
        (MULTI | {"graders": [EQ, NAMELESS]}, "in a list every grader needs a name"),
        (MULTI | {"graders": [EQ, EQ]}, "two graders of the list have one name"),
        (MULTI | {"calculate_output": "right + hsa"}, "calculate_output: unknown grader 'hsa'; did you mean 'has'"),
        (MULTI | {"calculate_output": "(right"}, "a parenthesis is never closed"),
        (MULTI | {"graders": {"right": EQ | {"input": "{{ x }}"}, "has": LIKE}}, r"graders\.right\.input: "),
        ({"type": "endpoint", "url": "ftp://x"}, r"grader\.url: "),
    ],
)  # fmt: skip
def test_a_grader_that_can_not_be_is_refused_and_says_where(tree, said):
    with pytest.raises(InputError, match=said):
        parse(tree)


LABELS = JUDGE | {"type": "label_model", "labels": ["good", "bad"], "passing_labels": ["good"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"passing_labels": ["god"]}, "passing_labels: unknown label 'god'; did you mean 'good'"),
        ({"labels": ["good", "good"]}, "labels: one is there twice"),
        ({"labels": ["good"]}, "labels: List should have at least 2 items"),
        ({"passing_labels": []}, "passing_labels: List should have at least 1 item"),
    ],
)
def test_labels_that_make_no_sense_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        parse(MULTI | {"graders": {"l": LABELS | change}, "calculate_output": "l"})


def test_a_source_of_256_kb_is_one_byte_too_long():
    rest = PYTHON["source"]
    parse(PYTHON | {"source": rest + "#" * (SOURCE_BYTES - len(rest) - 1)})
    with pytest.raises(InputError, match="source has 256,000 bytes; a grader must stay under 256,000"):
        parse(PYTHON | {"source": rest + "#" * (SOURCE_BYTES - len(rest))})


def test_a_grader_is_read_from_its_file_with_or_without_a_wrapping(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(EQ))
    (tmp_path / "b.json").write_text(json.dumps({"grader": EQ}))
    assert load(tmp_path / "a.json") == load(tmp_path / "b.json") == parse(EQ)


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[" * 100_000, "not JSON"), ('{"type": 1}', "type")])
def test_a_file_that_holds_no_grader_is_named(tmp_path, text, said):
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(InputError, match=rf"g\.json.*{said}"):
        load(tmp_path / "g.json")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        load(tmp_path / "none.json")
