"""No more than so many requests a second."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """Lets one caller through after another, evenly; None is no limit."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._turn, self._next = asyncio.Lock(), 0.0

    async def wait(self) -> None:
        """Until it is this caller's turn."""
        if not self._gap:
            return
        async with self._turn:
            now = time.monotonic()
            await asyncio.sleep(max(0.0, self._next - now))
            self._next = max(now, self._next) + self._gap
