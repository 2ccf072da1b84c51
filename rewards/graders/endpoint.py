"""The endpoint grader: a server of the user's, asked over HTTP as the hosted service asks it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from rewards.graders.errors import Blame, GradingError
from rewards.graders.pace import Pace
from rewards.graders.sample import read_json
from rewards.graders.spec import Endpoint

INPUT_BYTES = 1_000_000
"""The most that is sent: 1 MB."""
TIMEOUT = 600.0
RETRIES = 3
_OF_THE_SAMPLE = (400, 413, 422)
"""Answers that say something about what was sent; others are about the server, the key or the address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds: of one try, and before the first retry, doubled at each further one."""

    timeout: float = TIMEOUT
    backoff: float = 0.5


class Server:
    """One endpoint grader's server, with its rate limit. Belongs to the event loop it is first used on."""

    def __init__(self, grader: Endpoint, waits: Waits | None = None) -> None:
        self._grader, self._waits = grader, waits or Waits()
        self._client = httpx.AsyncClient(headers=grader.headers, timeout=self._waits.timeout)
        self._pace = Pace(grader.rate_limit)

    async def score(self, *, sample: Mapping[str, Any], item: Mapping[str, Any], trace_id: str) -> float:
        """What the server says the sample is worth.

        Raises:
            GradingError: no score could be had: the machinery's, unless the server refused this sample.
        """
        body = json.dumps({"sample": sample, "item": item, "trace_id": trace_id}, default=str).encode()
        if len(body) > INPUT_BYTES:
            said = f"sample and item come to {len(body):,} bytes; an endpoint takes {INPUT_BYTES:,}"
            raise GradingError("endpoint_grader_internal_error", said, blame="sample")
        error = None
        for attempt in range(RETRIES + 1):
            if attempt:
                await asyncio.sleep(self._waits.backoff * 2 ** (attempt - 1))
            await self._pace.wait()
            try:
                return await self._post(body)
            except GradingError as failed:
                error = failed
                if failed.blame == "sample":
                    break
        assert error is not None
        raise error

    async def _post(self, body: bytes) -> float:
        try:
            answer = await self._client.post(
                self._grader.url, content=body, headers={"Content-Type": "application/json"}
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failed(f"{self._grader.url}: {type(error).__name__} {error}".strip(), "machinery") from error
        if answer.status_code != 200:
            blame: Blame = "sample" if answer.status_code in _OF_THE_SAMPLE else "machinery"
            raise _failed(f"{self._grader.url}: HTTP {answer.status_code} {answer.text[:200]}".strip(), blame)
        tree = read_json(answer.text)
        score = tree.get("score") if isinstance(tree, Mapping) else None
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise _failed(f"{self._grader.url}: expected {{'score': number}}, found {answer.text[:200]!r}", "machinery")
        return float(score)


def _failed(said: str, blame: Blame) -> GradingError:
    return GradingError("endpoint_grader_server_error", said, blame=blame)
