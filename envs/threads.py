"""Blocking code beside an event loop, without a pool that a hanging call could exhaust."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

GRACE = 0.2
"""Seconds that an abandoned thread gets to stop before its caller goes on without it."""


class Abandoned(SystemExit):
    """Raised inside a thread whose caller has given up on it.

    A `SystemExit`, because that is what `threading` lets pass without a traceback on stderr: it may
    arrive a moment after the function returned.
    """


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a daemon thread of its own and await what it returns or raises.

    The function sees the caller's context variables. If the awaiting task is cancelled, the thread is
    told to stop at its next bytecode and given `GRACE` seconds for it. A thread that is blocked inside
    C (a long `sleep`, a socket without a timeout) lives until that call returns and stops then; one
    that catches `BaseException` in a loop can't be stopped at all. Neither holds up anybody, nor keeps
    the process from ending.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    ended = loop.create_future()
    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((context.run(function), None))
        except BaseException as error:
            outcome.append((None, error))
        with contextlib.suppress(RuntimeError):  # the loop may have closed while we were abandoned
            loop.call_soon_threadsafe(ended.set_result, None)

    thread = threading.Thread(target=run, name="tool", daemon=True)
    thread.start()
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError:
        _abandon(thread)
        await asyncio.wait([ended], timeout=GRACE)
        raise
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # without an error it is what the function returned


def _abandon(thread: threading.Thread) -> None:
    if thread.ident is not None and thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Abandoned))
