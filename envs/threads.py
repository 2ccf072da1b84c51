"""Blocking code beside an event loop, without a pool that a hanging call could exhaust."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Abandoned(BaseException):
    """Raised inside a thread whose caller has given up on it."""


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a daemon thread of its own and await what it returns.

    If the awaiting task is cancelled, the thread is told to stop at its next bytecode. A thread that
    is blocked inside C (a long `sleep`, a socket without a timeout) can't be stopped: it lives until
    that call returns, holds up nobody, and does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Abandoned:
            return
        except BaseException as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    thread = threading.Thread(target=run, name="tool", daemon=True)
    thread.start()
    try:
        return await future
    except asyncio.CancelledError:
        if thread.is_alive() and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Abandoned))
        raise
