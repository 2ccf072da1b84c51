"""A grader as a whole: what it answers, and whose fault is what."""

import asyncio
import json

import pytest
from openai.types.fine_tuning.alpha import GraderRunResponse

from envs import InputError, Stop
from rewards import Score, build, gated, weighted, whole
from rewards.graders import Grader, Settings, parse, sample
from rewards.graders.errors import DETAILS, FLAGS

EQ = {"type": "string_check", "input": "{{ sample.output_text }}", "reference": "{{ item.a }}", "operation": "eq"}
PYTHON = {"type": "python", "source": "def grade(sample, item): return 1"}
FUZZY = {"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "{{ item.a }}"}
FUZZY["evaluation_metric"] = "fuzzy_match"
CALLED = EQ | {"input": "{{ sample.output_tools[0].function.name }}", "reference": "look"}


def multi(formula, **graders):
    rest = {"invalid_grade": graders.pop("invalid_grade")} if "invalid_grade" in graders else {}
    return {"type": "multi", "name": "all", "graders": graders, "calculate_output": formula} | rest


@pytest.mark.parametrize(
    ("operation", "said", "wanted", "value"),
    [
        ("eq", "Yes", "Yes", 1.0),
        ("eq", "yes", "Yes", 0.0),
        ("ne", "yes", "Yes", 1.0),
        ("ne", "Yes", "Yes", 0.0),
        ("like", "Oh Yes!", "Yes", 1.0),
        ("like", "Oh yes!", "Yes", 0.0),
        ("like", "Yes", "Oh Yes!", 0.0),
        ("like", "100%", "1__%", 0.0),
        ("ilike", "Oh yES!", "YEs", 1.0),
        ("ilike", "STRASSE", "straße", 1.0),
    ],
)
def test_string_checks(grade, operation, said, wanted, value):
    assert grade(EQ | {"operation": operation}, said, {"a": wanted}).reward == value


def test_a_multi_grader_is_its_formula_over_its_graders(grade):
    found = grade(multi("0.9 * exact + 0.1 * fuzzy", exact=EQ, fuzzy=FUZZY), "abcd", {"a": "abcx"})
    assert found.sub_rewards == {"exact": 0.0, "fuzzy": 0.75}
    assert found.reward == pytest.approx(0.075)
    assert found.error is None


def test_nothing_clamps_a_formula_unless_it_is_asked_for(grade):
    tree = multi("3 * exact - 5", exact=EQ)
    assert grade(tree, "x", {"a": "x"}).reward == -2.0
    assert grade(tree, "x", {"a": "x"}, clamp=[0, 1]).reward == 0.0
    assert grade(tree, "x", {"a": "x"}, clamp=[0, 1]).sub_rewards == {"exact": 1.0}


def test_a_response_is_that_of_graders_run_and_the_official_client_reads_it(grade):
    body = grade(multi("exact", exact=EQ), "x", {"a": "x"}).response()
    read = GraderRunResponse.model_validate(json.loads(json.dumps(body)))
    assert (read.reward, read.metadata.type, read.metadata.name, read.sub_rewards) == (
        1.0,
        "multi",
        "all",
        {"exact": 1.0},
    )
    errors = body["metadata"]["errors"]
    assert set(errors) == {*FLAGS, *DETAILS.values()}
    assert not any(errors.values())
    assert body["metadata"]["execution_time"] >= 0
    assert len(body["metadata"]["grader_hash"]) == 64


def test_a_field_the_row_lacks_is_the_rows_fault_and_no_score(grade):
    found = grade(EQ, "x", {"b": 1})
    assert found.error.startswith("invalid_variable_error: the variable 'item.a' cannot be found")
    errors = found.response()["metadata"]["errors"]
    assert errors["invalid_variable_error"] is True
    assert "item.a" in errors["invalid_variable_error_details"]
    assert found.response()["reward"] == 0.0


def test_a_variable_the_sample_lacks_is_the_samples_fault_and_scores_the_error_score(grade):
    found = grade(CALLED, "no call", error_score=-0.25)
    assert (found.reward, found.error) == (-0.25, None)
    assert [error.flag for error in found.errors] == ["invalid_variable_error"]


def test_a_child_that_fails_on_the_sample_counts_its_error_score(grade):
    found = grade(multi("exact + called", exact=EQ, called=CALLED), "x", {"a": "x"})
    assert (found.reward, found.sub_rewards, found.error) == (1.0, {"exact": 1.0, "called": 0.0}, None)
    assert found.response()["metadata"]["errors"]["invalid_variable_error"] is True


def test_invalid_grade_is_what_the_whole_is_worth_where_a_child_failed(grade):
    tree = multi("1 - called", called=CALLED, invalid_grade=-1.0)
    assert grade(tree, "no call").reward == -1.0
    assert grade(multi("1 - called", called=CALLED), "no call").reward == 1.0, "the way out that invalid_grade closes"


def test_a_child_without_a_score_leaves_the_whole_without_one(grade):
    found = grade(multi("exact + called", exact=EQ, called=CALLED), "x", {})
    assert "invalid_variable_error" in found.error


@pytest.mark.parametrize("formula", ["1 / exact", "log(exact)", "exact ^ -1", "sqrt(exact - 1)", "exp(999 + exact)"])
def test_a_formula_without_a_value_scores_the_error_score_or_by_switch_nothing(grade, formula):
    found = grade(multi(formula, exact=EQ), "x", {"a": "y"}, error_score=-1.0)
    assert (found.reward, found.error) == (-1.0, None)
    assert [error.flag for error in found.errors] == ["other_error"]
    assert grade(multi(formula, exact=EQ), "x", {"a": "y"}, formula_fault="unscored").error.startswith("other_error")


FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["a"]}}}


@pytest.mark.parametrize(
    ("said", "flag"), [('{"a": 1}', None), ('{"b": 1}', "sample_parse_error"), ("a", "sample_parse_error")]
)
def test_with_a_response_format_a_sample_must_be_of_it(grade, said, flag):
    found = grade(EQ, said, {"a": '{"a": 1}'}, response_format=FORMAT)
    assert [error.flag for error in found.errors] == ([flag] if flag else [])
    assert (found.reward, found.error) == (float(flag is None), None)


@pytest.mark.parametrize("format", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {}}}])
def test_a_response_format_without_demands_asks_for_json(grade, format):
    assert grade(EQ, "4", {"a": "4"}, response_format=format).reward == 1.0
    assert grade(EQ, "four", {"a": "four"}, response_format=format).reward == 0.0


def test_a_response_format_that_is_no_schema_is_refused(grade):
    format = {"type": "json_schema", "json_schema": {"schema": {"type": "objct"}}}
    with pytest.raises(InputError, match=r"response_format: not a JSON schema: 'objct'"):
        grade(EQ, "4", {"a": "4"}, response_format=format)


RECURSIVE = {"type": "json_schema", "json_schema": {"schema": {"items": {"$ref": "#"}}}}


@pytest.mark.parametrize("depth", [150, 250, 900, 960, 990, 20_000])
def test_what_a_model_nests_breaks_no_grader(grade, depth):
    said = "[" * depth + "]" * depth
    shown = multi("a + b", a=EQ | {"input": "{{ sample.output_json }}"}, b={"type": "python", "source": COUNTS})
    found = grade(shown, said, {"a": said})
    assert (found.reward, found.error) == (2.0 if depth < 200 else 1.0, None)
    assert grade(EQ, said, {"a": said}, response_format=RECURSIVE).error is None


COUNTS = "def grade(sample, item): return sample['output_text'].count('[') > 0"


def test_how_values_are_written_is_a_switch(grade):
    assert grade(EQ, "true", {"a": True}).reward == 1.0
    assert grade(EQ, "True", {"a": True}, render="python").reward == 1.0


def test_the_hash_is_of_the_grader_and_of_how_it_is_read():
    made = lambda tree, **settings: Grader(parse(tree), settings=Settings(**settings)).hash  # noqa: E731
    assert made(EQ) == made(dict(reversed(EQ.items())))
    assert len({made(EQ), made(EQ | {"operation": "ne"}), made(EQ, error_score=-1.0)}) == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rendr": "json"}, "settings: unknown setting 'rendr'; did you mean 'render'"),
        ({"render": "yaml"}, "settings: render: "),
        ({"error_score": "0"}, "settings: error_score: "),
        ({"error_score": float("nan")}, "settings: error_score: "),
        ({"clamp": [1, 0]}, "clamp is empty"),
        ([1], "settings: expected an object"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        Settings.read(settings)


def test_settings_come_from_a_file_too(tmp_path):
    (tmp_path / "s.json").write_text('{"clamp": [0, 1]}')
    assert Settings.read(tmp_path / "s.json") == Settings(clamp=(0.0, 1.0))
    with pytest.raises(InputError, match=r"none\.json: can't read the settings"):
        Settings.read(tmp_path / "none.json")


def test_a_grader_is_a_reward(played):
    made = Grader(parse(multi("exact + called", exact=EQ, called=CALLED)))
    episode = played("4", calls=[[("look", {})]], item={"a": "4"})
    score = asyncio.run(made(episode))
    assert score == Score(value=2.0, parts={"exact": 1.0, "called": 1.0}, graders={"all": made.hash})


def test_an_error_that_the_policy_can_provoke_is_a_score_and_is_seen(played):
    score = asyncio.run(Grader(parse(CALLED | {"name": "c"}))(played("4")))
    noted = {"grader_error": 1.0, "grader_error.invalid_variable_error": 1.0}
    assert (score.error, score.value, score.parts) == (None, 0.0, {"c": 0.0, **noted})


def test_a_row_that_can_not_be_graded_is_unscored(played):
    assert asyncio.run(Grader(parse(EQ | {"name": "c"}))(played("4"))).error.startswith("c: invalid_variable_error")


def test_an_episode_that_broke_is_not_graded(played):
    score = asyncio.run(Grader(parse(EQ))(played("4", stop=Stop.FAULT, fault="the sandbox died")))
    assert score.error == "the episode broke: the sandbox died"


def test_a_config_names_a_grader_by_file_or_holds_it(played, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grader.json").write_text(json.dumps(EQ))
    for spec in ({"file": "grader.json"}, {"grader": EQ}):
        made = build({"right": {"use": "grader", "weight": 2.0, **spec}})
        score = asyncio.run(made(played("4", item={"a": "4"})))
        assert (score.value, list(score.parts), list(score.graders)) == (2.0, ["right"], ["right"])


def test_graders_side_by_side_keep_their_hashes_apart(played):
    a, b = Grader(parse(EQ | {"name": "a"})), Grader(parse(EQ | {"name": "b"}))
    both = weighted({"x": (a, 1.0), "y": (weighted({"p": (a, 1.0), "q": (b, 1.0)}), 1.0)})
    score = asyncio.run(both(played("4", item={"a": "4"})))
    assert score.graders == {"x": a.hash, "y.p": a.hash, "y.q": b.hash}
    score = asyncio.run(gated(first=a, then=whole(b))(played("4", item={"a": "4"})))
    assert score.graders == {"first": a.hash, "then": b.hash}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "give one of the options 'file' and 'grader'"),
        ({"file": "x", "grader": EQ}, "give one of the options"),
        ({"file": "none.json"}, r"none\.json: can't be read"),
        ({"grader": EQ, "settings": {"rendr": 1}}, "unknown setting"),
        ({"grader": EQ, "judge": {}}, "judge: base_url: Field required"),
        ({"grader": EQ, "judge": {"base_url": "http://x"}}, "judge would have no effect: the grader asks no model"),
        ({"grader": EQ, "sandbox": {}}, "sandbox would have no effect: no python grader runs in one"),
        ({"grader": PYTHON, "sandbox": {"pyton": "x"}}, "sandbox: pyton: Extra inputs are not permitted"),
        ({"grader": PYTHON, "sandbox": {"tier": "unsafe"}}, "say why code may run unprotected"),
        ({"grader": EQ, "unsafe_python": "why"}, "unsafe_python would have no effect: there is no python grader"),
    ],
)
def test_a_config_whose_grader_can_not_be_is_refused(spec, said):
    with pytest.raises(InputError, match=said):
        build({"use": "grader", **spec})


def test_the_trajectory_is_there_for_python_graders(played, grade):
    tree = {"type": "python", "source": "def grade(sample, item): return len(sample['trajectory']['turns'])"}
    made = build({"use": "grader", "grader": tree, "unsafe_python": "a test"})
    assert asyncio.run(made(played("4", calls=[["look"], ["look"]]))).value == 3.0


def test_a_sample_that_looks_like_a_template_is_text(grade):
    assert grade(EQ, "{{ item.a }}", {"a": "4"}).reward == 0.0
    assert sample.of_text("{{ item.a }}")["output_text"] == "{{ item.a }}"


@pytest.mark.parametrize(
    ("said", "wanted", "score"),
    [
        ("acute anterior uveitis", "recurring eye redness and pain", 0.3596153846153846),
        ("390 meq", "150 meq", 0.6071428571428571),
        ("adamts13 deficiency", "decreased adamts13 activity in serum", 0.5037037037037037),
        ("todd paralysis", "seizure", 0.16190476190476194),
        ("hypokalemia", "hypomagnesemia", 0.612),
    ],
)
def test_scores_that_were_published_come_out_to_the_last_digit(grade, said, wanted, score):
    """Of the vendor's guide to model graders, whose grader is 0.85 token_set_ratio + 0.15 equality, by both ways."""
    tree = multi("0.85 * fuzzy + 0.15 * exact", fuzzy=FUZZY, exact=EQ)
    assert grade(tree, said, {"a": wanted}, fuzzy_match="token_set_ratio").reward == pytest.approx(score, abs=1e-12)
    source = (
        "from rapidfuzz import fuzz\ndef grade(sample, item):\n    said, wanted = sample['output_text'], item['a']\n"
        "    return 0.85 * fuzz.token_set_ratio(said, wanted) / 100 + 0.15 * (said == wanted)\n"
    )
    python = {"type": "python", "source": source, "image_tag": "2025-05-08"}
    assert grade(python, said, {"a": wanted}).reward == pytest.approx(score, abs=1e-12)
