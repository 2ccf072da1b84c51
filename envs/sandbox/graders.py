"""Grader calls: each in a process, namespaces and files of its own, from a pool of keepers that have Python loaded.

Who judges never shares a process with what is judged: a sample is data here. Code that a policy wrote is run with
`Sandbox.exec` first, and what it printed is then judged.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from envs.sandbox import strict
from envs.sandbox.box import Keeper, over_cpu
from envs.sandbox.client import Broker
from envs.sandbox.link import Capture
from envs.sandbox.records import Graded, GraderError, InfraError, Limits, Outcome, PolicyError

SOURCE = 256 * 1024
"""Characters of the longest grader."""

PAYLOAD = 64 << 20
"""Bytes of the largest sample and item together, as JSON."""

_CALLS = 1000
"""After so many a keeper is replaced."""


class Graders:
    """A pool of grader keepers, started as they are needed and replaced when they are old."""

    def __init__(self, broker: Broker, limits: Limits, size: int) -> None:
        self.broker, self.limits = broker, limits
        self._free: list[tuple[Keeper, int, float]] = []
        self._places = asyncio.Semaphore(size)

    async def grade(
        self, source: str, sample: Any, item: Mapping[str, Any], low: float = 0.0, high: float = 1.0
    ) -> Outcome:
        """What `grade(sample, item)` of a grader's source is: a score between `low` and `high`, or whose fault.

        Never raises for anything the source or the sample does. A keeper that is lost is replaced and the call repeated
        once; lost again, it is what was judged that did it.
        """
        if len(source) > SOURCE:
            return GraderError("bad_source", f"a grader has at most {SOURCE} characters, this one {len(source)}")
        try:
            payload = json.dumps({"source": source, "sample": sample, "item": dict(item)}).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return GraderError("bad_sample", f"sample and item must be JSON values: {error}")
        if len(payload) > PAYLOAD:
            return PolicyError("too_large", f"sample and item are longer than {PAYLOAD} bytes")
        async with self._places:
            lost: Outcome = InfraError("never tried")
            for _ in range(2):
                try:
                    keeper, used, born = await self._take()
                except InfraError as error:
                    return error
                lost = await self._once(keeper, payload, low, high)
                aged = used + 1 >= _CALLS or time.monotonic() - born > self.limits.lifetime - 2 * self.limits.wall
                if not isinstance(lost, InfraError) and not aged:
                    self._free.append((keeper, used + 1, born))
                    return lost
                gone = keeper.closed  # and not just refusing
                try:
                    await keeper.close()
                except InfraError as error:
                    return error
                if not isinstance(lost, InfraError) or not gone or self.broker.gone:
                    return lost
            return PolicyError("destroyed", f"the grader's sandbox was lost twice over this sample: {lost}")

    async def _once(self, keeper: Keeper, payload: bytes, low: float, high: float) -> Outcome:
        captures = [Capture(self.limits.output, self.limits.flood, keeper.kill) for _ in range(2)]
        captures.append(Capture(strict.RESULT + 1, strict.RESULT * 16, keeper.kill))
        try:
            answer = await keeper.call({"op": "grade"}, payload, captures, self.limits.wall)
            out, err, result = (capture.finish() for capture in captures)
            await self._judge(keeper, answer, captures)
            value = strict.score(result, low, high)
            log = (out + err)[: self.limits.output].decode(errors="replace")
            return Graded(value=value, log=log, seconds=answer["seconds"])
        except (PolicyError, GraderError, InfraError) as outcome:
            return outcome
        finally:
            for capture in captures:
                capture.close()

    async def _judge(self, keeper: Keeper, answer: Mapping[str, Any], captures: list[Capture]) -> None:
        """Raises:
        PolicyError: a limit stopped the call.
        InfraError: it never ran.
        """
        if answer["how"] == "unconfined":
            raise InfraError(f"a grader refused to run unprotected: {answer['reason']}")
        if answer["how"] == "timeout":
            raise PolicyError("timeout", f"the grader took longer than {self.limits.wall:g} s")
        if any(capture.flooded for capture in captures):
            raise PolicyError("output", "the grader wrote too much")
        if answer["status"] == 0:
            return
        if (limit := await keeper.over()) is not None:
            raise PolicyError(limit, f"the grader used up its {limit}")
        if over_cpu(answer, self.limits):
            raise PolicyError("cpu", "the grader used up its CPU time")

    async def _take(self) -> tuple[Keeper, int, float]:
        while self._free:
            keeper, used, born = self._free.pop()
            if not keeper.closed and not self.broker.ended(keeper.slot):
                return keeper, used, born
            await keeper.close()
        return await Keeper.open(self.broker, "grader", self.limits), 0, time.monotonic()

    async def close(self) -> None:
        """End the keepers that are not at work.

        Raises:
            InfraError: something of one is left.
        """
        while self._free:
            await self._free.pop()[0].close()

    def abandon(self) -> None:
        """Let go of them, for who closes the broker next."""
        while self._free:
            self._free.pop()[0].abandon()
