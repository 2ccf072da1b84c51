"""An event loop for synchronous code."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rl.loop import BackgroundLoop


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    made = BackgroundLoop()
    yield made
    made.close()
    made.close()
    assert not made._thread.is_alive()


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def test_results_and_errors_come_back(loop: BackgroundLoop) -> None:
    assert loop.run(double(4)) == 8
    with pytest.raises(KeyError, match="gone"):
        loop.run(fail(KeyError("gone")))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_error_that_ends_loops_does_not_end_this_one(loop: BackgroundLoop, error: type[BaseException]) -> None:
    with pytest.raises(error):
        loop.run(fail(error("stop")))
    assert loop.run(double(4)) == 8


def test_an_interrupt_cancels_waits_for_the_clean_up_and_for_nothing_else(loop: BackgroundLoop) -> None:
    seen: list[str] = []
    forever: list[asyncio.Task[Any]] = []

    async def background() -> None:
        forever.append(asyncio.create_task(asyncio.Event().wait()))

    async def episode() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            seen.append("closed")

    async def stop() -> None:
        forever[0].cancel()

    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a script starts with &
    loop.run(background())
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        loop.run(episode())
    assert seen == ["closed"]
    assert time.monotonic() - started < 5, "a task that never ends, as an engine has, was waited for"
    assert loop.run(double(1)) == 2
    loop.run(stop())


def test_processes_it_starts_do_not_hear_ctrl_c(loop: BackgroundLoop) -> None:
    async def start() -> int:
        process = await asyncio.create_subprocess_exec("sleep", "0.4")
        os.kill(process.pid, signal.SIGINT)
        return await process.wait()

    assert loop.run(start()) == 0


CHILD = """
import asyncio, multiprocessing, signal
from rl.loop import BackgroundLoop

def blocked(pipe):
    pipe.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))

async def start():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=blocked, args=(theirs,))
    process.start()
    told = await asyncio.to_thread(ours.recv)
    process.join()
    return told

if __name__ == "__main__":
    loop = BackgroundLoop()
    print(loop.run(start()))
    loop.close()
"""


def test_a_ctrl_c_does_not_reach_the_first_process_that_is_started_from_it(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(CHILD)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "True\n", ran.stderr
