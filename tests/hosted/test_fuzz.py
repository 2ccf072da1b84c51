"""The server against its own description: whatever is sent, it answers in the hosted shape, and never with a 500."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

schemathesis = pytest.importorskip("schemathesis")

from hosting import UNSAFE, Hosting, reinforcement, rows  # noqa: E402

EXAMPLES = 12
MANY = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    made = Hosting(tmp_path_factory.mktemp("fuzz") / "home", working=False, unsafe_python=UNSAFE)
    train, valid = made.upload(rows("train", 4)), made.upload(rows("valid", 2))
    made.client.post("/fine_tuning/jobs", cast_to=dict, body=reinforcement(train, valid))
    yield made
    made.close()


@pytest.fixture
def described(server: Hosting) -> object:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("described")


def _holds(case: object) -> None:
    # A stream of a job that waits has no end to read to, and a chat that is asked for in full starts an engine.
    if case.query.get("stream") is not None or _answerable(case):  # type: ignore[attr-defined]
        return
    answer = case.call(timeout=60)  # type: ignore[attr-defined]
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}, answer.text


def _answerable(case: object) -> bool:
    body = case.body  # type: ignore[attr-defined]
    return isinstance(body, dict) and body.get("model") == "tiny" and "messages" in body


@schema.parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
def test_nothing_that_fits_or_misfits_the_description_breaks_the_server(case: object) -> None:
    _holds(case)


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=MANY, suppress_health_check=list(HealthCheck), deadline=None)
def test_nor_does_much_of_it(case: object) -> None:
    _holds(case)
