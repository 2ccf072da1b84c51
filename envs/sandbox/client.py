"""The broker as the trainer sees it: a child process that starts and ends sandboxes."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envs.sandbox.inside import layers, wire
from envs.sandbox.inside.bwrap import AGENT
from envs.sandbox.inside.layers import ALL
from envs.sandbox.inside.plan import ENVIRONMENT, Limits
from envs.sandbox.link import Link
from envs.sandbox.records import InfraError

_START = """
import sys
sys.path[0] = {place!r}
from envs.sandbox.inside.broker import main
del sys.path[0]
main({descriptor}, {parent})
"""
_PATIENCE = 30.0
"""Seconds the broker may take for anything."""

PREFIX: tuple[str, ...] = ()
"""What the broker is started through. Nothing, but for tests that put it into a container."""


def lay_out(python: str, tmp: str) -> str:
    """A new directory that every sandbox may read: the package `inside`, compiled for who runs it there.

    Raises:
        OSError, subprocess.SubprocessError: it could not be made; nothing of it is left.
    """
    path = tempfile.mkdtemp(prefix="localrft-sandbox-", dir=tmp)
    try:
        here = Path(layers.__file__).parent
        inside = Path(path, "envs", "sandbox", here.name)
        inside.mkdir(parents=True)
        for package in (inside.parent.parent, inside.parent):
            (package / "__init__.py").touch()
        for file in here.glob("*.py"):
            shutil.copyfile(file, inside / file.name)
        Path(path, "passwd").write_text(f"agent:x:{AGENT}:{AGENT}::/work:/bin/sh\n")
        command = [python, "-I", "-m", "compileall", "-q", path]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, env={}, timeout=60)
        for file in (Path(path), *Path(path).rglob("*")):
            file.chmod(0o755 if file.is_dir() else 0o644)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a broker is started with, found out by the doctor."""

    tier: str
    python: str
    """An interpreter that every user may run."""
    bwrap: str = ""
    readable: tuple[str, ...] = ()
    """Trees that code in a sandbox may read beside /usr."""
    tmp: str = "/tmp"
    layers: frozenset[str] = ALL


class Broker:
    """One broker process. Start it once in an event loop, and close it there."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.runtime: str | None = None
        self.counted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._number = 0
        self._ended: set[int] = set()
        self._starting: set[asyncio.Task[tuple[dict[str, Any], list[int]]]] = set()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Raises:
        InfraError: the broker does not come up.
        """
        try:
            self.runtime = await asyncio.to_thread(lay_out, self.machine.python, self.machine.tmp)
        except (OSError, subprocess.SubprocessError) as error:
            raise InfraError(f"the sandbox broker could not be laid out: {error}") from error
        ours, theirs = wire.pair()
        with theirs:
            descriptor = theirs.fileno()
            code = _START.format(place=self.runtime, descriptor=descriptor, parent=os.getpid())
            environment = dict(ENVIRONMENT)
            if "environment" not in self.machine.layers:
                environment |= os.environ
            try:
                self._process = subprocess.Popen(
                    [*PREFIX, self.machine.python, "-s", "-c", code],
                    env=environment, cwd="/", pass_fds=[descriptor], start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                )  # fmt: skip
            except OSError as error:
                ours.close()
                shutil.rmtree(self.runtime, ignore_errors=True)
                raise InfraError(f"the sandbox broker could not be started: {error}") from error
        self._link = Link(ours)
        machine = self.machine
        orders = {"tier": machine.tier, "layers": sorted(machine.layers), "python": machine.python}
        orders |= {"bwrap": machine.bwrap, "readable": machine.readable, "runtime": self.runtime}
        try:
            await self._link.send(orders)
            answer, _ = await asyncio.wait_for(self._link.receive(), _PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            raise InfraError(f"the sandbox broker did not start: {error or 'no answer'}") from error
        if answer is None or "error" in answer:
            raise InfraError(f"the sandbox broker did not start: {(answer or {}).get('error', 'it ended')}")
        self.counted = answer["counted"]
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        """Hand answers to who waits for them, until there will be none."""
        while True:
            try:
                message, descriptors = await self._link.receive()
            except ValueError:
                break
            if message is None:
                break
            waiting = self._calls.pop(message.get("call", 0), None)
            if waiting is not None and not waiting.done():
                waiting.set_result((message, descriptors))
                continue
            for descriptor in descriptors:  # of a sandbox that nobody waits for any more
                os.close(descriptor)
            if message.get("event") == "ended":
                self._ended.add(message["slot"])
        for waiting in self._calls.values():
            if not waiting.done():
                waiting.set_exception(InfraError("the sandbox broker is gone"))
        self._calls.clear()

    async def _ask(self, op: str, **fields: Any) -> tuple[dict[str, Any], list[int]]:
        if self.gone:
            raise InfraError("the sandbox broker is gone")
        self._number += 1
        number = self._number
        self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            await self._link.send({"op": op, "call": number, **fields})
            answer, descriptors = await asyncio.wait_for(self._calls[number], _PATIENCE)
        except TimeoutError:
            raise InfraError("the sandbox broker does not answer") from None
        except (OSError, wire.TooLong) as error:
            raise InfraError(f"the sandbox broker can't be asked: {error}") from error
        finally:
            self._calls.pop(number, None)
        if "error" in answer:
            raise InfraError(f"sandbox: {answer['error']}")
        return answer, descriptors

    async def open(self, kind: str, limits: Limits) -> tuple[int, socket.socket]:
        """Start a sandbox; its number, and the socket to its keeper.

        Raises:
            InfraError: it could not be started.
        """
        asked = asyncio.get_running_loop().create_task(self._ask("start", kind=kind, limits=asdict(limits)))
        try:
            answer, descriptors = await asyncio.shield(asked)
        except asyncio.CancelledError:
            self._starting.add(asked)
            asked.add_done_callback(self._unwanted)
            raise
        return answer["slot"], socket.socket(fileno=descriptors[0])

    def _unwanted(self, asked: asyncio.Task[tuple[dict[str, Any], list[int]]]) -> None:
        """A sandbox came up when nobody waited for it any more."""
        self._starting.discard(asked)
        if not asked.cancelled() and asked.exception() is None:
            answer, descriptors = asked.result()
            for descriptor in descriptors:
                os.close(descriptor)
            stopping = asyncio.get_running_loop().create_task(self._ask("stop", slot=answer["slot"]))
            self._starting.add(stopping)
            stopping.add_done_callback(self._starting.discard)

    async def usage(self, slot: int) -> dict[str, Any]:
        """Why a sandbox ended, how often it was over a limit, and its last words."""
        return (await self._ask("usage", slot=slot))[0]

    async def renew(self, slot: int) -> None:
        """Let a sandbox's lifetime begin now."""
        await self._ask("renew", slot=slot)

    async def stop(self, slot: int) -> dict[str, Any]:
        """End a sandbox and remove what it left.

        Raises:
            InfraError: something of it is still there.
        """
        return (await self._ask("stop", slot=slot))[0]

    @property
    def gone(self) -> bool:
        return self._process is None or self._listening.done()

    def ended(self, slot: int) -> bool:
        return slot in self._ended

    async def close(self) -> None:
        """End the broker and with it every sandbox. Waits until it is gone.

        Raises:
            InfraError: something of a sandbox is left.
        """
        if self._process is None:
            return
        if hasattr(self, "_listening"):
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
        self._link.close()
        try:
            status = await asyncio.to_thread(self._process.wait, _PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait() and 1
        finally:
            self._process = None
            if self.runtime is not None:  # it does that itself, unless it was killed
                shutil.rmtree(self.runtime, ignore_errors=True)
        if status == 1:
            raise InfraError("a sandbox could not be removed to the last; see what processes and files of it are left")
