"""Sandboxes that all share: one set an event loop, opened once and ended with it."""

from __future__ import annotations

import asyncio
import os

import pytest

from envs.errors import InputError
from envs.sandbox import Limits, Sandboxes, SandboxSettings, doctor, share, shared
from envs.sandbox.client import Broker

UNSAFE = SandboxSettings(tier="unsafe", reason="a test of who shares them")
"""Nothing of it is probed, so that it is there at once."""


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_whoever_asks_in_an_event_loop_gets_the_same_and_they_end_with_it() -> None:
    async def scene() -> tuple[Sandboxes, int]:
        share(UNSAFE)
        first, *others = await asyncio.gather(*(shared() for _ in range(3)))
        assert all(other is first for other in others) and first.findings is not None
        assert await shared(UNSAFE) is first
        async with first.episode({"a": "x"}) as sandbox:
            assert await sandbox.read("a") == b"x"
        return first, first.broker.pid

    one, pid = asyncio.run(scene())
    assert not alive(pid)
    other, _ = asyncio.run(scene())
    assert other is not one


def test_who_needs_others_gets_others() -> None:
    async def scene() -> None:
        share(UNSAFE)
        small = UNSAFE.model_copy(update={"limits": Limits(wall=5.0)})
        usual, own = await shared(), await shared(small)
        assert usual is not own
        async with own.episode() as sandbox:
            assert sandbox.limits.wall == 5.0

    asyncio.run(scene())


def test_a_start_that_was_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        share(UNSAFE)
        with monkeypatch.context() as patch:
            patch.setattr(doctor.kernel, "supported", lambda: False)
            with pytest.raises(InputError, match="no sandbox holds on this machine"):
                await shared()
        assert (await shared()).record()["tier"] == "unsafe"

    asyncio.run(scene())


def test_an_interrupted_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = list[int]()
    start = Broker.start

    async def started(self: Broker) -> None:
        await start(self)
        pids.append(self.pid)
        await asyncio.sleep(60)

    async def scene() -> None:
        share(UNSAFE)
        waiting = asyncio.ensure_future(shared())
        while not pids:
            await asyncio.sleep(0.01)
        waiting.cancel()

    monkeypatch.setattr(Broker, "start", started)
    asyncio.run(scene())
    assert pids and not alive(pids[0])
