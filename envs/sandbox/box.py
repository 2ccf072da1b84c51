"""A sandbox to run commands in: `exec`, `read`, `write`, `close`."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from envs.sandbox.client import Broker
from envs.sandbox.inside import calls, wire
from envs.sandbox.link import Capture, Link, sealed
from envs.sandbox.records import Ended, InfraError, Limits, PolicyError, Result

_GRACE = 4.0
"""Seconds beyond a call's time after which its keeper is given up: it kills by itself, within two."""

_FAULTS = {
    calls.NOT_FOUND: ("not_found", "no such file"),
    calls.NO_FILE: ("not_a_file", "not a regular file"),
    calls.TOO_LARGE: ("too_large", "the file is larger than may be read at once"),
    calls.BAD_PATH: ("path", "the path leads over a link or out of the workspace, or is too long"),
    calls.FULL: ("disk", "the workspace is full"),
}
_UNLIMITED = 1 << 62


class Keeper:
    """One keeper and its calls, one at a time. `Sandbox` and the grader pool are made of it."""

    def __init__(self, broker: Broker, slot: int, control: socket.socket, limits: Limits) -> None:
        self.broker, self.slot, self.limits = broker, slot, limits
        self.workspace = ""
        self.closed = False
        self._link = Link(control)
        self._turn = asyncio.Lock()
        self._number = 0
        self._kills: dict[str, int] = {}

    @classmethod
    async def open(cls, broker: Broker, kind: str, limits: Limits) -> Keeper:
        """Start one and wait until it is ready.

        Raises:
            InfraError: it does not come up; nothing of it is left.
        """
        slot, control = await broker.open(kind, limits)
        keeper = cls(broker, slot, control, limits)
        try:
            answer, _ = await asyncio.wait_for(keeper._link.receive(), 30.0)
            if answer is None or not answer.get("ready"):
                raise InfraError(f"a sandbox did not start: {(await broker.usage(slot))['said'] or 'no reason given'}")
            keeper.workspace = answer["workspace"]
        except (TimeoutError, ValueError) as error:
            await keeper.close()
            raise InfraError(f"a sandbox did not start: {error or 'no answer'}") from error
        except BaseException:
            await keeper.close()
            raise
        return keeper

    async def call(
        self, request: dict[str, Any], stdin: bytes, captures: Sequence[Capture], wall: float
    ) -> dict[str, Any]:
        """Have one call carried out; how its child ended, by the keeper's account.

        Raises:
            PolicyError: the sandbox was destroyed by what ran in it; or the request is too long.
            InfraError: it is gone, or its keeper does not answer.
        """
        async with self._turn:
            if self.closed:
                raise InfraError("the sandbox is closed")
            self._number += 1
            data = await asyncio.to_thread(sealed, stdin) if len(stdin) > 1 << 20 else sealed(stdin)
            try:
                message = {**request, "call": self._number, "wall": wall}
                await self._link.send(message, [data, *(capture.write for capture in captures)])
            except wire.TooLong as error:
                raise PolicyError("arguments", "the command is too long; write it to a file and run that") from error
            except OSError as error:
                raise await self._lost() from error
            finally:
                os.close(data)
            for capture in captures:
                capture.sent()
            return await self._answer(wall)

    async def _answer(self, wall: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(wall + _GRACE):
                while True:
                    answer, descriptors = await self._link.receive()
                    for descriptor in descriptors:
                        os.close(descriptor)
                    if answer is None:
                        raise await self._lost()
                    if answer.get("call") == self._number:
                        return _ending(answer)
        except asyncio.CancelledError:
            self.kill()
            raise
        except (TimeoutError, ValueError) as error:
            await self.close()
            raise InfraError(f"a sandbox was ended: {error or 'its keeper did not answer'}") from error

    def kill(self) -> None:
        """Have everything that runs in the sandbox killed."""
        with suppress(OSError):  # gone, or so far behind that its time is over anyway
            wire.send(self._link.peer, {"op": "kill"})

    async def _lost(self) -> Exception:
        """End what is left, and say whose fault it was."""
        usage = await self.broker.usage(self.slot)
        await self.close()
        if usage["why"] == "lifetime":
            return PolicyError("destroyed", f"the sandbox was up for its {self.limits.lifetime:g} s and has ended")
        if any(usage["kills"].values()):
            return PolicyError("destroyed", "the sandbox used up its memory and has ended")
        return InfraError(f"a sandbox is gone: {usage['said'] or usage['why'] or 'its keeper ended'}")

    def abandon(self) -> None:
        """Let go of the socket. The keeper then ends by itself, whether or not there still is a broker to end it."""
        self.closed = True
        self._link.close()

    async def over(self) -> str | None:
        """The limit, `memory` or `disk`, for which something was killed since this was last asked."""
        kills = (await self.broker.usage(self.slot))["kills"]
        known, self._kills = self._kills, kills
        return next((name for name, count in kills.items() if count > known.get(name, 0)), None)

    async def close(self) -> None:
        """End the sandbox; when this returns, nothing of it is left.

        Raises:
            InfraError: something is left.
        """
        if self.closed:
            return
        self.abandon()
        await asyncio.shield(self.broker.stop(self.slot))


class Sandbox:
    """A place to run commands in, used for one episode and never again.

    One command runs at a time; more wait their turn. A command that goes over a limit is killed with everything else
    that runs in the sandbox, and the files stay.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    @property
    def limits(self) -> Limits:
        return self._keeper.limits

    @property
    def workspace(self) -> str:
        """Where commands start and files lie, as seen from inside."""
        return self._keeper.workspace

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        wall: float | None = None,
    ) -> Result:
        """Run a command to its end. What it leaves running in the background goes on until `close`.

        Args:
            argv: the program and its arguments; for a shell line `["bash", "-c", line]`.
            stdin: what it reads; a file, as with `< file` in a shell.
            env: variables beside the sandbox's own few.
            cwd: where to start, relative to the workspace.
            wall: seconds it may take, at most and unless given `limits.wall`.

        Raises:
            PolicyError: the command can't be one (empty, NUL bytes, too long), or the sandbox was destroyed.
            InfraError: the sandbox is gone, or is closed.
        """
        limits = self.limits
        texts = [*argv, *(env or {}), *(env or {}).values(), cwd]
        if not argv or not argv[0] or any("\0" in text for text in texts) or any("=" in name for name in env or {}):
            raise PolicyError("arguments", "a command is a program and its arguments, without NUL bytes")
        request = {"op": "exec", "argv": list(argv), "env": dict(env or {}), "cwd": cwd}
        out, err = (Capture(limits.output, limits.flood, self._keeper.kill) for _ in range(2))
        try:
            answer = await self._keeper.call(request, stdin, (out, err), min(wall or limits.wall, limits.wall))
            _confined(answer)
            ended = await self._ended(answer, out.flooded or err.flooded)
            status = answer["status"]
            return Result(
                ended=ended, exit_code=status if status >= 0 else None, signal=-status if status < 0 else None,
                stdout=out.finish(), stderr=err.finish(),
                stdout_truncated=out.truncated, stderr_truncated=err.truncated,
                seconds=answer["seconds"], cpu_seconds=answer["cpu"], peak_memory=answer["peak"],
            )  # fmt: skip
        finally:
            out.close()
            err.close()

    async def _ended(self, answer: Mapping[str, Any], flooded: bool) -> Ended:
        if answer["how"] == "timeout":
            return "timeout"
        if flooded and answer["how"] == "killed":
            return "output"
        if answer["status"] == 0:
            return "exit"
        limit = await self._keeper.over()
        if limit is not None:
            return "memory" if limit == "memory" else "disk"
        if over_cpu(answer, self.limits):
            return "cpu"
        return "signal" if answer["status"] < 0 else "exit"

    async def read(self, path: str, max_bytes: int | None = None) -> bytes:
        """The content of a regular file in the workspace.

        Args:
            path: relative to the workspace, or absolute and below it.
            max_bytes: refuse a longer file; `limits.output` unless given.

        Raises:
            PolicyError: no such file, no regular file, too large, or a path that leads over a link or out.
            InfraError: the sandbox is gone.
        """
        most = self.limits.output if max_bytes is None else max_bytes
        request = {"op": "read", "path": self._beneath(path), "max_bytes": most}
        return await self._file(request, b"", path, keep=most)

    async def write(self, path: str, data: bytes | str) -> None:
        """Make or replace a file in the workspace, and the directories above it.

        Raises:
            PolicyError: the workspace is full, or the path is no place for a file.
            InfraError: the sandbox is gone.
        """
        content = data.encode() if isinstance(data, str) else data
        await self._file({"op": "write", "path": self._beneath(path)}, content, path, keep=0)

    async def _file(self, request: dict[str, Any], stdin: bytes, path: str, keep: int) -> bytes:
        out, err = Capture(keep, _UNLIMITED, self._keeper.kill), Capture(4096, _UNLIMITED, self._keeper.kill)
        try:
            answer = await self._keeper.call(request, stdin, (out, err), self.limits.wall)
            _confined(answer)
            if answer["status"] == 0:
                return out.finish()
            if answer["how"] == "timeout":
                raise PolicyError("timeout", f"{path}: took longer than {self.limits.wall:g} s")
            if answer["status"] == -signal.SIGXFSZ:
                raise PolicyError("disk", f"{path}: the file is larger than a file may be")
            said = err.finish().decode(errors="replace")
            kind, reason = _FAULTS.get(answer["status"], ("refused", said or "refused"))
            raise PolicyError(kind, f"{path}: {reason}")
        finally:
            out.close()
            err.close()

    def _beneath(self, path: str) -> str:
        """A path relative to the workspace.

        Raises:
            PolicyError: it is none.
        """
        inner = path[len(self.workspace) + 1 :] if path.startswith(f"{self.workspace}/") else path
        parts = [part for part in inner.split("/") if part not in ("", ".")]
        if not parts or inner.startswith(("/", "~")) or ".." in parts or "\0" in path or inner.endswith("/"):
            raise PolicyError("path", f"{path[:200]!r} is not a path of a file in the workspace")
        if len(inner.encode(errors="surrogatepass")) > 4000:
            raise PolicyError("path", "the path is too long")
        return "/".join(parts)

    async def close(self) -> None:
        """End the sandbox and everything in it. Closing twice is closing once.

        Raises:
            InfraError: something of it is left.
        """
        await self._keeper.close()


def _ending(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer of a keeper, which runs beside foreign code and is believed in nothing but its form.

    Raises:
        ValueError: it has not that form.
    """
    numbers: list[Any] = [answer.get(name) for name in ("cpu", "peak", "seconds")]
    formed = (
        type(answer.get("status")) is int
        and -64 <= answer["status"] <= 255
        and answer.get("how") in ("ended", "timeout", "killed", "unconfined")
        and isinstance(answer.get("reason"), str)
        and all(type(number) in (int, float) and 0 <= number < math.inf for number in numbers)
    )
    if not formed:
        raise ValueError("its keeper gave an answer that is none")
    return answer


def _confined(answer: Mapping[str, Any]) -> None:
    if answer["how"] == "unconfined":
        raise InfraError(f"a sandbox refused to run unprotected: {answer['reason']}")


def over_cpu(answer: Mapping[str, Any], limits: Limits) -> bool:
    # The limit counts ticks, which on a crowded machine are more than the time that was had.
    killed = answer["status"] in (-signal.SIGXCPU, -signal.SIGKILL)
    return killed and answer["cpu"] >= 0.5 * max(1, round(limits.cpu or limits.wall))
