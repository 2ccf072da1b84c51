"""An event loop in a thread of its own, for a trainer that is synchronous."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from multiprocessing import resource_tracker
from typing import Any, TypeVar

T = TypeVar("T")

CLEAN_UP_SECONDS = 30.0
"""How long an interrupted coroutine may take to clean up."""


class BackgroundLoop:
    """Runs coroutines for synchronous code: `loop.run(coroutine)` blocks until it is done.

    SIGINT is blocked in the thread, and so in every process started from it: a Ctrl-C that asks the
    trainer to finish its step must not kill the engine that the step needs.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing = False
        self._thread = threading.Thread(target=self._main, name="rollout-loop", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        # First: who starts Python's resource tracker, as a first child process does, has SIGINT unblocked after it.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        asyncio.set_event_loop(self._loop)
        while not self._closing:
            # A task that raises SystemExit ends `run_forever` too; whoever waits for the task gets it.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return the result; what it raises, this raises.

        Interrupting the waiting thread cancels the coroutine and waits for its clean-up.
        """
        ended, started = threading.Event(), list[asyncio.Task[T]]()

        def start() -> None:
            task = self._loop.create_task(coroutine)
            started.append(task)
            task.add_done_callback(lambda _: ended.set())

        self._loop.call_soon_threadsafe(start)
        try:
            ended.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: started[0].cancel())
            ended.wait(CLEAN_UP_SECONDS)
            raise
        return started[0].result()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin it and return at once; cancelling the future cancels the coroutine."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Stop the loop and its thread. Idempotent."""
        if self._thread.is_alive():
            self.run(self._loop.shutdown_asyncgens())  # what lives as long as the loop, as `asyncio.run` has it
            self._closing = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
