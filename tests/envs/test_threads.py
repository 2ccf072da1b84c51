"""A blocking function beside an event loop: its result, its errors, and what becomes of it when nobody waits."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time

import pytest

from envs import threads
from envs.threads import GRACE, in_thread

WHO = contextvars.ContextVar("who", default="nobody")


def run(function):
    return asyncio.run(in_thread(function))


async def give_up(function, seconds=0.05):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await in_thread(function)


def test_the_result_comes_back_from_another_thread():
    assert run(lambda: 1) == 1
    assert run(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(2), KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_error_comes_back_as_it_is(error):
    def fails():
        raise error

    async def catches():
        with pytest.raises(type(error)) as caught:
            await in_thread(fails)
        return caught.value

    assert asyncio.run(catches()) is error


def test_stop_iteration_comes_back_as_an_error():
    with pytest.raises(RuntimeError, match="StopIteration"):
        run(lambda: next(iter([])))


def test_the_loop_goes_on_meanwhile():
    gate = threading.Event()

    async def opens():
        waiting = asyncio.create_task(in_thread(lambda: gate.wait(10)))
        await asyncio.sleep(0)
        gate.set()
        return await waiting

    assert asyncio.run(opens())


def test_a_hundred_hanging_calls_do_not_keep_another_from_starting():
    gate = threading.Event()

    async def crowd():
        hanging = [asyncio.create_task(in_thread(lambda: gate.wait(10))) for _ in range(100)]
        await asyncio.sleep(0)
        assert await in_thread(lambda: "through") == "through"
        gate.set()
        return await asyncio.gather(*hanging)

    assert all(asyncio.run(crowd()))


def test_the_function_sees_the_callers_context_variables():
    async def asks():
        WHO.set("caller")
        return await in_thread(WHO.get)

    assert asyncio.run(asks()) == "caller"


def test_a_spinning_thread_has_stopped_when_its_caller_goes_on(monkeypatch):
    monkeypatch.setattr(threads, "GRACE", 30)  # a busy machine needs its time
    cleaned = []

    def spins():
        try:
            while True:
                pass
        finally:
            cleaned.append(True)

    async def check():
        await give_up(spins)
        assert cleaned

    asyncio.run(check())


def test_a_thread_blocked_in_c_holds_up_its_caller_no_longer_than_the_grace():
    gate = threading.Event()

    async def check():
        started = time.monotonic()
        await give_up(lambda: gate.wait(30))
        return time.monotonic() - started

    assert asyncio.run(check()) < 0.05 + GRACE + 5
    gate.set()


def test_an_abandoned_thread_prints_nothing_and_does_not_keep_the_process():
    code = """
import asyncio, time
from envs.threads import in_thread

def spins():
    while True:
        pass

async def main():
    for function in [spins] * 5 + [lambda: time.sleep(600)]:
        try:
            async with asyncio.timeout(0.02):
                await in_thread(function)
        except TimeoutError:
            pass

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, timeout=60, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_result_that_comes_too_late_is_dropped_quietly(caplog):
    gate = threading.Event()

    async def check():
        await give_up(lambda: gate.wait(30))
        gate.set()
        for thread in threading.enumerate():
            if thread.name == "tool":
                await asyncio.to_thread(thread.join, 5)
        await asyncio.sleep(0)

    asyncio.run(check())
    assert not caplog.records
