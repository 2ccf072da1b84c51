"""`graders/run` and `graders/validate`: the same numbers as the public functions, and every refusal in one shape."""

import asyncio
import json

import openai
import pytest

from hosting import UNSAFE, Hosting
from rewards.graders import Grader, Judge, JudgeConfig, Services, UnsafeSubprocess, parse
from rewards.graders.sample import of_text
from served import Server

TEXT = "{{ sample.output_text }}"
ITEM = {"answer": "the quick brown fox", "n": 3}
SAID = "the quick red fox"
GRADERS = {
    "string_check": {"type": "string_check", "input": TEXT, "reference": "quick", "operation": "like"},
    "text_similarity": {
        "type": "text_similarity",
        "input": TEXT,
        "reference": "{{item.answer}}",
        "evaluation_metric": "fuzzy_match",
    },
    "python": {
        "type": "python",
        "source": "def grade(sample, item):\n    return len(sample['output_text']) / item['n']",
    },
    "score_model": {
        "type": "score_model",
        "model": "judge",
        "input": [{"role": "user", "content": TEXT}],
        "range": [0, 1],
    },
    "endpoint": {"type": "endpoint", "url": "ENDPOINT"},
}
GRADERS["multi"] = {
    "type": "multi",
    "graders": {key: GRADERS[key] for key in ("string_check", "text_similarity", "python")},
    "calculate_output": "0.5 * string_check + 0.25 * text_similarity + python / 100",
}


@pytest.fixture(scope="module")
def others():
    """A judge and a grader of somebody else's, both one server."""
    made = Server()

    def answer(request):
        if "score" in request["path"]:
            return 200, {"score": 0.625}
        text = json.dumps({"steps": [], "result": 0.375})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        return 200, {
            "id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage
        }  # fmt: skip

    made.answer = lambda request: answer(made.heard[-1])
    yield made
    made.close()


@pytest.fixture(scope="module")
def judged(tmp_path_factory, others):
    made = Hosting(
        tmp_path_factory.mktemp("graders") / "home", working=False, unsafe_python=UNSAFE, judge={"base_url": others.url}
    )
    yield made
    made.close()


@pytest.mark.parametrize("kind", GRADERS)
def test_over_http_a_grader_gives_the_number_of_the_function(kind, judged, others):
    tree = GRADERS[kind] | ({"url": f"{others.url}/score"} if kind == "endpoint" else {})
    services = Services(pool=UnsafeSubprocess(UNSAFE), judge=Judge(JudgeConfig(base_url=others.url)))
    here = asyncio.run(Grader(parse(tree), services=services).grade(ITEM, of_text(SAID))).response()
    there = judged.client.fine_tuning.alpha.graders.run(grader=tree, item=ITEM, model_sample=SAID)
    assert there.reward == here["reward"] != 0
    assert there.sub_rewards == here["sub_rewards"]
    assert there.metadata.type == kind and there.metadata.name == here["metadata"]["name"]
    assert there.metadata.token_usage == here["metadata"]["token_usage"]
    assert not any(value for value in there.metadata.errors.to_dict().values())


def test_a_grader_is_given_back_as_it_is_understood(judged):
    answer = judged.client.fine_tuning.alpha.graders.validate(grader=GRADERS["multi"])
    assert set(answer.grader.graders) == {"string_check", "text_similarity", "python"}
    assert answer.grader.name.startswith("grader-")


@pytest.mark.parametrize(
    ("source", "flag"),
    [
        ("def grade(sample, item):\n    raise ValueError('no')", "python_grader_runtime_error"),
        ("def grade(sample, item):\n    return float('nan')", "python_grader_runtime_error"),
        ("def grade(sample, item):\n    return 'text'", "python_grader_runtime_error"),
        ("def grade(sample, item):\n    return item['lacking']", "python_grader_runtime_error"),
    ],
)
def test_what_goes_wrong_in_grading_is_flagged_and_no_error_of_the_request(judged, source, flag):
    answer = judged.client.fine_tuning.alpha.graders.run(
        grader={"type": "python", "source": source}, item={}, model_sample="x"
    )
    assert answer.reward == 0 and getattr(answer.metadata.errors, flag)


def test_a_field_that_the_row_lacks_is_flagged(judged):
    grader = GRADERS["string_check"] | {"reference": "{{item.nowhere}}"}
    answer = judged.client.fine_tuning.alpha.graders.run(grader=grader, item={}, model_sample="x")
    assert answer.reward == 0 and answer.metadata.errors.invalid_variable_error


def test_a_formula_that_divides_by_zero_is_flagged(judged):
    grader = GRADERS["multi"] | {"calculate_output": "python / (string_check - 1)"}
    answer = judged.client.fine_tuning.alpha.graders.run(grader=grader, item=ITEM, model_sample=SAID)
    assert answer.reward == 0 and answer.metadata.errors.other_error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"operaton": "eq"}, "operation"),
        ({"operation": "equals"}, "operation"),
        ({"type": "string_chek"}, "string_check"),
        ({"reference": "{{ item.a"}, "reference"),
        ({"reference": "{{ items.a }}"}, "item"),
    ],
)
def test_what_is_no_grader_is_refused_in_the_hosted_shape(judged, change, said):
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        judged.client.fine_tuning.alpha.graders.validate(grader=GRADERS["string_check"] | change)
    assert (refused.value.type, refused.value.param, refused.value.code) == (
        "invalid_request_error",
        "grader",
        "invalid_grader",
    )


def test_an_unbalanced_formula_and_a_long_source_are_refused(judged):
    run = judged.client.fine_tuning.alpha.graders.run
    for grader in (
        GRADERS["multi"] | {"calculate_output": "(python"},
        GRADERS["python"] | {"source": "def grade(sample, item):\n    return 1\n#" + "x" * 256_000},
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            run(grader=grader, item={}, model_sample="")
        assert refused.value.code == "invalid_grader"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_request"),
        (b"\xff", "invalid_request"),
        (b'{"grader": {}, "model_sample": "", "item": {"x": NaN}}', "invalid_request"),
        (b'{"grader": {}, "model_sample": "", "item": {"x": 1e999}}', "invalid_request"),
        (b'{"grader": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_request"),
        (b'{"grader": {}}', "missing_required_parameter"),
        (b'{"grader": {}, "model_sample": "", "extra": 1}', "unknown_parameter"),
        (b'{"grader": 7, "model_sample": ""}', "invalid_value"),
        (b"[]", "invalid_value"),
        (b"", "missing_required_parameter"),
    ],
)
def test_a_body_that_can_not_be_read_is_refused_in_the_hosted_shape(judged, body, code):
    answer = judged.ask(
        "POST", "/v1/fine_tuning/alpha/graders/run", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)


@pytest.mark.parametrize("where", ["item", "text"])
def test_half_a_surrogate_breaks_nothing(judged, where):
    body = {
        "grader": {"type": "string_check", "input": "{{item.x}}", "reference": "a", "operation": "ne"},
        "item": {"x": "\ud800" if where == "item" else ""},
        "model_sample": "\ud800" if where == "text" else "",
    }
    answer = judged.ask(
        "POST",
        "/v1/fine_tuning/alpha/graders/run",
        content=json.dumps(body),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200, answer.text


def test_unknown_paths_and_methods_have_the_hosted_shape(judged):
    assert judged.ask("GET", "/v1/nowhere").json()["error"]["code"] == "not_found"
    assert judged.ask("PUT", "/v1/files").json()["error"]["code"] == "method_not_allowed"
