"""An event loop in a thread of its own, for a trainer that is synchronous."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for synchronous code: `loop.run(coroutine)` blocks until it is done.

    SIGINT is blocked in the thread, and so in every process started from it: a Ctrl-C that asks the
    trainer to finish its step must not kill the engine that the step needs.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="rollout-loop", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return the result; what it raises, this raises.

        Interrupting the waiting thread cancels the coroutine and waits for its clean-up.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                self._drain()
            raise

    def _drain(self, seconds: float = 10.0) -> None:
        async def others() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if tasks:
                await asyncio.wait(tasks, timeout=seconds)

        asyncio.run_coroutine_threadsafe(others(), self._loop).result()

    def close(self) -> None:
        """Stop the loop and its thread. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
