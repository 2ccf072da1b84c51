"""Endpoint graders: a server of the user's, over real HTTP."""

import asyncio
import time

import pytest

from rewards.graders import Grader, GradingError, parse
from rewards.graders.endpoint import RETRIES, Server, Waits


def endpoint(server, **more):
    return {"type": "endpoint", "name": "e", "url": server.url + "/score", **more}


def ask(server, *, said="x", timeout=5.0, **more):
    asked = Server(parse(endpoint(server, **more)), Waits(timeout=timeout, backoff=0.01))
    return asyncio.run(asked.score(sample={"output_text": said}, item={"a": 1}, trace_id="trace_7"))


def test_a_server_is_sent_sample_item_and_trace_and_its_score_is_the_score(server, grade):
    server.answer = lambda request: (200, {"score": 5})
    assert grade(endpoint(server), "hello", {"a": 1}).reward == 5.0
    (heard,) = server.heard
    assert set(heard) == {"path", "sample", "item", "trace_id"}
    assert (heard["path"], heard["item"], heard["trace_id"]) == ("/v1/score", {"a": 1}, "trace_1")
    assert heard["sample"]["output_text"] == "hello"


def test_the_trace_is_of_the_episode_and_of_no_other(server, played):
    server.answer = lambda request: (200, {"score": 1})
    made = Grader(parse(endpoint(server)))
    assert asyncio.run(made(played("4"))).value == 1.0
    assert server.heard[0]["trace_id"].startswith("trace_")
    assert len(server.heard[0]["trace_id"]) == len("trace_") + 32


def test_a_server_that_fails_is_asked_three_more_times(server):
    answers = iter([(500, {}), (200, "nonsense"), (200, {"score": "1"}), (200, {"score": 0.5})])
    server.answer = lambda request: next(answers)
    assert ask(server) == 0.5


@pytest.mark.parametrize(
    ("answer", "blame", "asked"),
    [
        ((500, {}), "machinery", RETRIES + 1),
        ((401, {}), "machinery", RETRIES + 1),
        ((200, {"score": None}), "machinery", RETRIES + 1),
        ((200, {"score": True}), "machinery", RETRIES + 1),
        ((200, '{"score": NaN}'), "machinery", RETRIES + 1),
        ((200, '{"score": 1e999}'), "machinery", RETRIES + 1),
        ((200, "[" * 50_000), "machinery", RETRIES + 1),
        ((400, {}), "sample", 1),
        ((413, {}), "sample", 1),
        ((422, {}), "sample", 1),
    ],
)
def test_who_is_to_blame_for_an_answer_without_a_score(server, answer, blame, asked):
    server.answer = lambda request: answer
    with pytest.raises(GradingError) as error:
        ask(server)
    assert (error.value.flag, error.value.blame) == ("endpoint_grader_server_error", blame)
    assert len(server.heard) == asked
    assert server.url in error.value.said


def test_a_sample_over_1_mb_is_not_sent(server):
    with pytest.raises(GradingError, match=r"come to 1,000,\d+ bytes; an endpoint takes 1,000,000") as error:
        ask(server, said="x" * 1_000_000)
    assert (error.value.blame, server.heard) == ("sample", [])


def test_a_server_that_hangs_is_given_up(server):
    server.answer = lambda request: time.sleep(0.5) or (200, {"score": 1})
    with pytest.raises(GradingError, match="Timeout") as error:
        ask(server, timeout=0.05)
    assert error.value.blame == "machinery"


def test_a_server_that_is_down_leaves_the_episode_unscored(server, monkeypatch, played):
    server.close()
    monkeypatch.setattr("rewards.graders.endpoint.RETRIES", 0)
    score = asyncio.run(Grader(parse(endpoint(server)))(played("4")))
    assert score.error.startswith("e: endpoint_grader_server_error")


def test_a_rate_limit_is_kept(server):
    server.answer = lambda request: (200, {"score": 1})

    async def six():
        asked = Server(parse(endpoint(server, rate_limit=20)))
        await asyncio.gather(*(asked.score(sample={}, item={}, trace_id="") for _ in range(6)))

    started = time.perf_counter()
    asyncio.run(six())
    assert time.perf_counter() - started >= 5 / 20
