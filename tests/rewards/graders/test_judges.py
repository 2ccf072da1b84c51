"""Models as judges, spoken to over real HTTP."""

import asyncio
import json
import time

import pytest

from envs import InputError
from rewards.graders import Grader, Judge, JudgeConfig, Services, parse, sample

SCORE = {
    "type": "score_model",
    "name": "judge",
    "model": "o3-mini-2025-01-31",
    "input": [
        {"role": "developer", "content": "Judge."},
        {"role": "user", "content": "Was {{ item.a }} asked, and {{ sample.output_text }} said?"},
    ],
}
LABEL = SCORE | {"type": "label_model", "labels": ["good", "fair", "bad"], "passing_labels": ["good", "fair"]}
LABELLED = {"type": "multi", "graders": {"l": LABEL}, "calculate_output": "l"}


def at(server, **config):
    return {"base_url": server.url, "retries": 0, **config}


def test_the_number_a_judge_comes_to_is_the_score_and_its_tokens_are_counted(server, grade, judged):
    server.answer = lambda request: (200, judged(0.75))
    judge = at(server, models={"o3-mini-2025-01-31": "local-judge"})
    found = grade(SCORE, "4", {"a": "2 + 2"}, judge=judge)
    assert (found.reward, found.error) == (0.75, None)
    (heard,) = server.heard
    assert (heard["path"], heard["model"]) == ("/v1/chat/completions", "local-judge")
    assert heard["messages"] == [
        {"role": "system", "content": "Judge."},
        {"role": "user", "content": "Was 2 + 2 asked, and 4 said?"},
    ]
    body = found.response()
    assert body["model_grader_token_usage_per_model"] == {
        "o3-mini-2025-01-31": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16, "cached_tokens": 0}
    }
    assert (body["metadata"]["token_usage"], body["metadata"]["sampled_model_name"]) == (16, "o3-mini-2025-01-31")


def test_a_judge_is_asked_for_steps_and_a_result(server, grade, judged):
    server.answer = lambda request: (200, judged(1))
    grade(SCORE, "4", {"a": "?"}, judge=at(server))
    asked = server.heard[0]["response_format"]
    assert asked["type"] == "json_schema"
    assert (asked["json_schema"]["name"], asked["json_schema"]["strict"]) == ("float_score_classification", True)
    schema = asked["json_schema"]["schema"]
    assert schema["required"] == ["steps", "result"]
    assert schema["properties"]["result"] == {"type": "number"}
    assert schema["properties"]["steps"]["items"]["required"] == ["description", "conclusion"]


def test_sampling_parameters_go_along_under_the_names_of_chat_completions(server, grade, judged):
    server.answer = lambda request: (200, judged(1))
    params = {"temperature": 0.0, "top_p": 0.5, "seed": 3, "max_completions_tokens": 99, "reasoning_effort": "low"}
    grade(SCORE | {"sampling_params": params}, "4", {"a": "?"}, judge=at(server))
    heard = server.heard[0]
    assert {name: heard.get(name) for name in ("temperature", "top_p", "seed", "reasoning_effort")} == {
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 3,
        "reasoning_effort": "low",
    }
    assert heard["max_completion_tokens"] == 99
    assert "max_completions_tokens" not in heard


def test_parts_go_along_in_the_shape_of_chat_completions(server, grade, judged):
    server.answer = lambda request: (200, judged(1))
    content = [
        {"type": "input_text", "text": "See {{ item.a }}"},
        {"type": "input_image", "image_url": "{{ item.url }}", "detail": "low"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]
    tree = SCORE | {"input": [{"role": "user", "content": content}]}
    grade(tree, "", {"a": "this", "url": "data:x"}, judge=at(server))
    assert server.heard[0]["messages"][0]["content"] == [
        {"type": "text", "text": "See this"},
        {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    ("result", "limits", "value"),
    [(2, None, 1.0), (-1, None, 0.0), (7, [1, 10], 7.0), (99, [1, 10], 10.0), (0, [1, 10], 1.0), (10**400, None, 1.0)],
)
def test_a_result_is_cut_off_at_the_ends_of_the_range(server, grade, judged, result, limits, value):
    server.answer = lambda request: (200, judged(result))
    tree = SCORE if limits is None else SCORE | {"range": limits}
    assert grade(tree, "", {"a": "?"}, judge=at(server)).reward == value


@pytest.mark.parametrize(
    ("answer", "flag"),
    [
        ({"result": "0.5"}, "model_grader_parse_error"),
        ({"result": True}, "model_grader_parse_error"),
        ({"result": None}, "model_grader_parse_error"),
        ({"result": 1, "content": "I say 1."}, "model_grader_parse_error"),
        ({"result": 1, "content": '{"steps": [], "result": NaN}'}, "model_grader_parse_error"),
        ({"result": 1, "content": '{"steps": []}'}, "model_grader_parse_error"),
        ({"result": 1, "content": "[" * 50_000}, "model_grader_parse_error"),
        ({"result": 1, "content": ""}, "model_grader_parse_error"),
        ({"result": 1, "refusal": "I can't judge that."}, "model_grader_refusal_error"),
        ({"result": 1, "finish": "content_filter"}, "model_grader_refusal_error"),
        ({"result": 1, "finish": "length"}, "model_grader_exceeded_max_tokens_error"),
    ],
)
def test_what_a_sample_may_bring_a_judge_to_scores_the_error_score(server, grade, judged, answer, flag):
    server.answer = lambda request: (200, judged(**answer))
    found = grade(SCORE | {"range": [1, 10]}, "", {"a": "?"}, judge=at(server))
    assert (found.reward, found.error) == (0.0, None), "0 even where the range begins at 1, as documented"
    assert [error.flag for error in found.errors] == [flag]
    assert found.response()["metadata"]["token_usage"] == 16, "they were used all the same"


@pytest.mark.parametrize(
    ("error", "flag"),
    [
        ({"code": "context_length_exceeded", "message": "too long"}, "model_grader_exceeded_max_tokens_error"),
        ({"message": "This model's maximum context length is 9"}, "model_grader_exceeded_max_tokens_error"),
        ({"code": "content_filter", "message": "no"}, "model_grader_refusal_error"),
    ],
)
def test_a_sample_that_no_judge_takes_is_no_way_out(server, grade, error, flag):
    server.answer = lambda request: (400, {"error": error})
    found = grade(SCORE, "x" * 1000, {"a": "?"}, judge=at(server))
    assert (found.reward, found.error, [e.flag for e in found.errors]) == (0.0, None, [flag])


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}),
        (400, {"error": {"message": "unknown parameter"}}),
        (401, {"error": {"message": "bad key"}}),
        (404, {}),
        (200, "<html>a proxy</html>"),
        (200, {"choices": []}),
    ],
)
def test_a_judge_that_can_not_be_had_is_an_error_and_never_a_zero(server, grade, answer):
    server.answer = lambda request: answer
    found = grade(SCORE, "", {"a": "?"}, judge=at(server))
    assert found.error.startswith("model_grader_server_error: ")
    assert server.url in found.error
    assert found.response()["metadata"]["errors"]["model_grader_server_error"] is True


def test_a_judge_that_is_down_is_an_error(server, grade, played):
    server.close()
    judge = Judge(JudgeConfig.read(at(server)))
    score = asyncio.run(Grader(parse(SCORE), services=Services(judge=judge))(played("4", item={"a": "?"})))
    assert score.error.startswith("judge: model_grader_server_error")


def test_a_busy_judge_is_asked_again(server, grade, judged):
    answers = iter([(429, {}), (503, {}), (200, judged(0.5))])
    server.answer = lambda request: next(answers)
    assert grade(SCORE, "", {"a": "?"}, judge=at(server, retries=2)).reward == 0.5
    assert len(server.heard) == 3


@pytest.mark.parametrize(("label", "value"), [("good", 1.0), ("fair", 1.0), ("bad", 0.0)])
def test_a_label_that_passes_is_1(server, grade, judged, label, value):
    server.answer = lambda request: (200, judged(label))
    assert grade(LABELLED, "", {"a": "?"}, judge=at(server)).reward == value
    enum = server.heard[0]["response_format"]["json_schema"]["schema"]["properties"]["result"]["enum"]
    assert enum == ["good", "fair", "bad"]


@pytest.mark.parametrize("label", ["great", 1, None])
def test_a_label_that_is_none_is_the_judges_mistake(server, grade, judged, label):
    server.answer = lambda request: (200, judged(label))
    found = grade(LABELLED, "", {"a": "?"}, judge=at(server))
    assert [error.flag for error in found.errors] == ["model_grader_parse_error"]


def test_what_was_asked_before_is_read_from_the_cache_and_costs_nothing(server, grade, judged, tmp_path):
    server.answer = lambda request: (200, judged(0.5))
    judge = at(server, cache=str(tmp_path / "cache"))
    first, second = (grade(SCORE, "4", {"a": "?"}, judge=judge) for _ in range(2))
    assert (first.reward, second.reward, len(server.heard)) == (0.5, 0.5, 1)
    assert second.response()["metadata"]["token_usage"] == 0
    grade(SCORE, "5", {"a": "?"}, judge=judge)
    assert len(server.heard) == 2, "another sample is another question"


def test_equal_samples_asked_about_at_once_are_one_question(server, judged, tmp_path):
    server.answer = lambda request: time.sleep(0.05) or (200, judged(0.5))

    async def run():
        made = Grader(parse(SCORE), services=Services(judge=Judge(JudgeConfig.read(at(server, cache=str(tmp_path))))))
        return await asyncio.gather(*(made.grade({"a": "?"}, sample.of_text("4")) for _ in range(8)))

    assert [found.reward for found in asyncio.run(run())] == [0.5] * 8
    assert len(server.heard) == 1


def test_a_damaged_cache_entry_is_asked_again_and_mended(server, grade, judged, tmp_path):
    server.answer = lambda request: (200, judged(0.5))
    judge = at(server, cache=str(tmp_path))
    grade(SCORE, "4", {"a": "?"}, judge=judge)
    (entry,) = tmp_path.iterdir()
    entry.write_text('{"text": ')
    assert grade(SCORE, "4", {"a": "?"}, judge=judge).reward == 0.5
    assert json.loads(entry.read_text())["model"] == SCORE["model"]


def test_failures_are_not_cached(server, grade, judged, tmp_path):
    judge = at(server, cache=str(tmp_path))
    server.answer = lambda request: (500, {})
    assert grade(SCORE, "4", {"a": "?"}, judge=judge).error
    server.answer = lambda request: (200, judged(0.5))
    assert grade(SCORE, "4", {"a": "?"}, judge=judge).reward == 0.5


def many(server, count, **config):
    async def run():
        judge = Judge(JudgeConfig.read(at(server, **config)))
        made = Grader(parse(SCORE), services=Services(judge=judge))
        grades = await asyncio.gather(*(made.grade({"a": i}, sample.of_text("x")) for i in range(count)))
        return judge, grades

    return asyncio.run(run())


def test_a_rate_limit_is_kept(server, judged):
    server.answer = lambda request: (200, judged(0.5))
    started = time.perf_counter()
    many(server, 6, requests_per_second=20)
    assert time.perf_counter() - started >= 5 / 20


def test_no_more_than_so_many_are_asked_at_once(server, judged):
    now, most = [0], [0]

    def answer(request):
        now[0] += 1
        most[0] = max(most[0], now[0])
        time.sleep(0.02)
        now[0] -= 1
        return 200, judged(0.5)

    server.answer = answer
    many(server, 9, concurrency=3)
    assert 1 < most[0] <= 3


def test_money_is_counted_where_there_is_a_price(server, judged):
    server.answer = lambda request: (200, judged(0.5))
    judge, _ = many(server, 4, models={SCORE["model"]: "local"}, prices={"local": {"input": 1.0, "output": 10.0}})
    assert judge.usage["local"]["prompt_tokens"] == 44
    assert judge.money == pytest.approx((44 * 1 + 20 * 10) / 1e6)


def test_without_a_judge_a_grader_that_asks_one_is_refused():
    with pytest.raises(InputError, match="asks the model 'o3-mini-2025-01-31'; say where it is"):
        Grader(parse(SCORE))


@pytest.mark.parametrize("config", [{}, {"base_url": "x", "retires": 1}, {"base_url": "x", "concurrency": 0}])
def test_a_judge_config_that_makes_no_sense_is_refused(config):
    with pytest.raises(InputError, match=r"^judge: "):
        JudgeConfig.read(config)
