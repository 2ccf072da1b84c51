"""Where the code of a python grader runs: a pool of the caller's choice, or a plain process that must be asked for.

A `GraderPool` is what a sandbox plugs in. `UnsafeSubprocess` has limits of time, memory, files and output, and an
environment without secrets, but the code in it can read this machine's files and reach its network.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from envs.errors import InputError

CHILD = Path(__file__).with_name("child.py")
RESULT_BYTES = 64_000


class PoolError(RuntimeError):
    """The machinery could not run a grader: nobody's score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one call of `grade` came to: a finite number, or why there is none."""

    value: float | None
    error: str | None = None
    """The grader's own failure: an exception, a value that is no number, a limit it ran into."""
    output: str = ""
    """What it printed, cut off."""
    seconds: float = 0.0


class GraderPool(Protocol):
    """Anything that runs `grade(sample, item)` of a source, apart from this process.

    Raises:
        PoolError: it could not be run; it says nothing about source or sample.
    """

    async def grade(self, source: str, *, sample: Mapping[str, Any], item: Mapping[str, Any]) -> Ran: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may use. The defaults are the hosted ones."""

    seconds: float = 120.0
    memory: int = 2 * 2**30
    disk: int = 2**30
    """Of one file."""
    output: int = 256_000
    """Bytes that are kept of what it prints; the rest is read and dropped."""


class UnsafeSubprocess:
    """A fresh interpreter a call, with limits but without a sandbox.

    Args:
        reason: why that is good enough here. Asked for so that nobody gets it by accident.
        limits: of each call.
        concurrency: how many at once; None is the number of cores.

    Raises:
        InputError: the reason is empty.
    """

    def __init__(self, reason: str, *, limits: Limits | None = None, concurrency: int | None = None) -> None:
        if not reason.strip():
            raise InputError("python graders outside a sandbox need a reason why that is safe here")
        self.reason, self._limits = reason, limits or Limits()
        self._slots = asyncio.Semaphore(concurrency or os.cpu_count() or 1)

    async def grade(self, source: str, *, sample: Mapping[str, Any], item: Mapping[str, Any]) -> Ran:
        request = json.dumps({"source": source, "sample": sample, "item": item}, default=str).encode()
        async with self._slots:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True) as place:
                result, output, problem = await self._run(request, place)
            seconds = time.perf_counter() - started
        value, error = (None, problem) if problem else read_result(result)
        return Ran(value=value, error=error, output=output, seconds=seconds)

    async def _run(self, request: bytes, place: str) -> tuple[bytes, str, str | None]:
        """What came over the private descriptor, what was printed, and which limit was run into."""
        process, reading = await self._start(place)
        assert process.stdin is not None and process.stdout is not None
        result, printed = bytearray(), bytearray()
        stream, pipe = await _reader(reading)
        talk = [
            asyncio.create_task(_feed(process.stdin, request)),
            asyncio.create_task(_collect(stream, result, RESULT_BYTES + 1)),
            asyncio.create_task(_collect(process.stdout, printed, self._limits.output)),
        ]
        late = None
        try:
            async with asyncio.timeout(self._limits.seconds):
                await _exit_of(process.pid)
        except TimeoutError:
            late = f"grade took longer than {self._limits.seconds:g} seconds"
        finally:
            # The group: a grader may have started processes, which would keep the pipes open.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await asyncio.wait(talk, timeout=1)
            for task in talk:
                task.cancel()
            pipe.close()
        output = printed.decode("utf-8", "replace")
        if late is None and not result:
            late = _ended(process.returncode or 0, output)
        return bytes(result), output, late

    async def _start(self, place: str) -> tuple[asyncio.subprocess.Process, int]:
        """The process, and the descriptor its result can be read from."""
        limits = [math.ceil(2 * self._limits.seconds), self._limits.memory, self._limits.disk]
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(CHILD), str(writing), *map(str, limits)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=place,
                env=_environment(place),
                pass_fds=(writing,),
                start_new_session=True,
            )
        except OSError as error:
            os.close(reading)
            raise PoolError(f"a process for a python grader could not be started: {error}") from error
        finally:
            os.close(writing)
        return process, reading


def read_result(line: bytes) -> tuple[float | None, str | None]:
    """Value or error of what a child wrote: one JSON line with one of the two, and nothing else."""
    if len(line) > RESULT_BYTES or not line.endswith(b"\n") or line.count(b"\n") != 1:
        return None, "the grader's process did not answer with one line"
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None, "the grader's process did not answer with JSON"
    match answer:
        case {"value": float() | int() as value} if not isinstance(value, bool) and len(answer) == 1:
            if math.isfinite(value):
                return float(value), None
        case {"error": str() as error} if len(answer) == 1:
            return None, error
    return None, "the grader's process did not answer with a value or an error"


async def _exit_of(pid: int) -> None:
    """Until the process itself has ended: asyncio's `wait` also waits for whoever still holds its pipes."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _environment(place: str) -> dict[str, str]:
    """None of this process's own: it may hold keys."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PATH": os.defpath, "HOME": place, "TMPDIR": place, "LANG": "C.UTF-8", "TZ": "UTC"} | threads


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader, transport


async def _feed(pipe: asyncio.StreamWriter, request: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.write(request)
        await pipe.drain()
        pipe.close()


async def _collect(stream: asyncio.StreamReader, kept: bytearray, most: int) -> None:
    """The first bytes up to `most`; the rest is read and dropped, so that the writer never waits."""
    while chunk := await stream.read(65536):
        kept += chunk[: max(0, most - len(kept))]


def _ended(code: int, output: str) -> str:
    said = f"; it said: {output[-500:].strip()}" if output.strip() else ""
    if code < 0:
        return f"the grader's process was ended by {signal.Signals(-code).name}{said}"
    return f"the grader's process ended with {code} and no score{said}"
