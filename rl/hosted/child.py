"""A `rl.hosted.work` process, from the server's side: started, asked to stop, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

AGAIN = 1.5
"""Seconds between the signal that asks a run to finish its step and the one that ends it."""
LEAVE = 60.0
"""Seconds that an ended run may take to stop its engine."""
SHOWN = 2000
"""Bytes at the end of a log in which the reason of a failure is looked for."""


class Child:
    """Make it with `start`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log

    @classmethod
    async def start(cls, log: Path, command: str, *arguments: str) -> Self:
        """Run a command of `rl.hosted.work`; what it prints is added to `log`."""
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "rl.hosted.work",
                command,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,  # a Ctrl-C at the server's terminal is the server's to pass on
            )
        return cls(process, log)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Until it has ended; its exit code."""
        return await self._process.wait()

    def interrupt(self) -> None:
        """Ask it to finish its step, save and stop."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    async def end(self, patience: float = LEAVE) -> None:
        """Have it stop at once: in order if it can within `patience` seconds, else by force."""
        for _ in range(2):
            self.interrupt()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), AGAIN)
        try:
            await asyncio.wait_for(self.wait(), patience)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self.wait()

    def reason(self) -> str:
        """Why it failed, in its own words: the last line that it printed."""
        with self._log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - SHOWN))
            said = file.read().decode("utf-8", "replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        told = [line.removeprefix("rft: ") for line in lines if line.startswith("rft: ")]
        return (told or lines or [f"the process ended with {self.code}"])[-1]
