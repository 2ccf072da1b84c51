"""Environments whose model works in a sandbox: one for each episode, with the task's files in it."""

from __future__ import annotations

import asyncio
import os
from typing import ClassVar

from envs.environment import Environment
from envs.errors import ToolError
from envs.guard import Guard
from envs.sandbox import PolicyError, Result, Sandbox, Sandboxes, shared
from envs.sandbox.text import for_model
from envs.types import Task, ToolCall, ToolResult


class Workspace(Environment):
    """A sandbox, opened at the start and closed at the end. Calls are carried out one after the other.

    A model that destroys its sandbox (with its memory, or its lifetime) has ended its episode: that is no fault of the
    machinery's, which would be played again.
    """

    sandboxed = True
    shell_seconds: ClassVar[float] = 20.0
    """How long a command may take."""
    shown: ClassVar[int] = 4000
    """Characters of output that the model is shown."""

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        super().__init__(task, guard)
        self._sandboxes: Sandboxes | None = None
        self._sandbox: Sandbox | None = None
        self._destroyed = False
        self._order = asyncio.Lock()

    async def setup(self) -> None:
        """Open a sandbox with the task's files.

        Raises:
            InputError: no tier of sandbox holds on this machine; says what to install.
            InfraError: none could be had.
        """
        self._sandboxes = await shared()
        self._sandbox = await self._sandboxes.open(self.task.files)

    async def close(self) -> None:
        """End the sandbox and everything in it."""
        if self._sandbox is not None:
            await self._sandbox.close()

    async def call(self, call: ToolCall) -> ToolResult:
        """Carry out one call, when those before it have been."""
        async with self._order:
            return await super().call(call)

    @property
    def sandboxes(self) -> Sandboxes:
        """Where more of them come from.

        Raises:
            ToolError: the episode has not begun.
        """
        if self._sandboxes is None:
            raise ToolError("there is no sandbox yet.")
        return self._sandboxes

    async def bash(self, command: str) -> Result:
        """Carry out a shell line where the files are.

        Raises:
            ToolError: it can't be one, or the sandbox is gone.
        """
        python = os.path.dirname(self.sandboxes.python)
        env = {"PATH": ":".join(dict.fromkeys(["/usr/local/bin", "/usr/bin", "/bin", python]))}
        return await self.exec(["bash", "-c", command], env=env)

    async def exec(self, argv: list[str], *, env: dict[str, str] | None = None, wall: float | None = None) -> Result:
        """As `Sandbox.exec`, for `shell_seconds` unless it is said.

        Raises:
            ToolError: the command can't be one, or the sandbox is gone.
        """
        sandbox = self._there()
        try:
            return await sandbox.exec(argv, env=env, wall=wall or self.shell_seconds)
        except PolicyError as error:
            raise self._noted(error) from error

    async def halt(self) -> None:
        """Kill everything that runs in the sandbox, so that its files stay as they are."""
        await self.exec(["sleep", "60"], wall=0.01)  # what goes over its time takes all that runs with it

    async def read_text(self, path: str) -> str:
        """A file's text.

        Raises:
            ToolError: there is no such file, it is no text in UTF-8, or the sandbox is gone.
        """
        sandbox = self._there()
        try:
            return (await sandbox.read(path)).decode()
        except UnicodeDecodeError as error:
            raise ToolError(f"{path}: not text in UTF-8.") from error
        except PolicyError as error:
            raise self._noted(error) from error

    async def write_text(self, path: str, text: str) -> None:
        """Write a file, its directories with it.

        Raises:
            ToolError: the path leads out of the workspace, the text does not fit, or the sandbox is gone.
        """
        sandbox = self._there()
        try:
            await sandbox.write(path, text)
        except PolicyError as error:
            raise self._noted(error) from error

    def _there(self) -> Sandbox:
        if self._sandbox is None:
            raise ToolError("there is no sandbox yet.")
        if self._destroyed:
            raise ToolError("the sandbox is gone.")
        return self._sandbox

    def _noted(self, error: PolicyError) -> PolicyError:
        if error.kind == "destroyed":
            self._destroyed = self.done = True
        return error


def as_output(result: Result, limit: int) -> str:
    """What a command came to, for a model: what it wrote, and how it ended if that was not well."""
    text = "\n".join(for_model(part, limit).rstrip("\n") for part in (result.stdout, result.stderr) if part)
    if result.ended != "exit" and result.ended != "signal":
        how = f"[stopped: over its {'time' if result.ended == 'timeout' else result.ended}]"
    elif result.ok:
        how = ""
    else:
        how = f"[exit code {result.exit_code}]" if result.signal is None else f"[ended by signal {result.signal}]"
    return "\n".join(filter(None, (text, how)))
