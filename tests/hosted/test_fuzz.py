"""The server against its own description: whatever is sent, it answers in the hosted shape, and never with a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis")

from hosting import UNSAFE, Hosting, reinforcement, rows  # noqa: E402

FEW, MANY = 5, 200
"""Requests to each path."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    made = Hosting(tmp_path_factory.mktemp("fuzz") / "home", working=False, unsafe_python=UNSAFE)
    train, valid = made.upload(rows("train", 4)), made.upload(rows("valid", 2))
    made.client.post("/fine_tuning/jobs", cast_to=dict, body=reinforcement(train, valid))
    yield made
    made.close()


@pytest.mark.parametrize("requests", [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_nothing_that_fits_or_misfits_the_description_breaks_the_server(server: Hosting, requests: int) -> None:
    asked = set()
    for found in schemathesis.openapi.from_url(f"{server.url}/openapi.json").get_all_operations():
        operation = found.ok()
        asked.add((operation.method.upper(), operation.path))

        @given(case=operation.as_strategy())
        @settings(max_examples=requests, suppress_health_check=list(HealthCheck), deadline=None, database=None)
        def holds(case: Any) -> None:
            _holds(case)

        holds()
    assert len(asked) == 18


def _holds(case: Any) -> None:
    body = case.body
    if isinstance(body, dict) and body.get("model") == "tiny" and "messages" in body:
        return  # a chat that could be had would start an engine
    answer = case.call(timeout=60)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}, answer.text
