"""The client's ends: packets over a socket and output over pipes, both without blocking an event loop."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from envs.sandbox.inside import wire

_CHUNK = 1 << 16
_PIPE = 1 << 20
"""More than a pipe holds."""


class Link:
    """Packets with descriptors, one way at a time."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self.peer = peer

    async def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Raises:
        wire.TooLong: the message does not fit into a packet.
        OSError: nobody is there any more.
        """
        while True:
            try:
                return wire.send(self.peer, message, descriptors)
            except BlockingIOError:
                await self._ready(asyncio.get_running_loop().add_writer, asyncio.get_running_loop().remove_writer)

    async def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """The next message; None where nobody is there any more.

        Raises:
            ValueError: what came is no message.
        """
        while True:
            try:
                return wire.receive(self.peer)
            except BlockingIOError:
                await self._ready(asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)
            except ConnectionResetError:
                return None, []

    async def _ready(self, add: Callable[..., None], remove: Callable[[int], object]) -> None:
        ready = asyncio.get_running_loop().create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        add(self.peer.fileno(), tell)
        try:
            await ready
        finally:
            remove(self.peer.fileno())

    def close(self) -> None:
        self.peer.close()


class Capture:
    """A pipe whose reading end is drained as it fills, and of which so much is kept."""

    def __init__(self, keep: int, flood: int, on_flood: Callable[[], None]) -> None:
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._keep, self._flood, self._on_flood = keep, flood, on_flood
        self._kept = bytearray()
        self.total = 0
        asyncio.get_running_loop().add_reader(self._read, self._drain)

    @property
    def flooded(self) -> bool:
        return self.total > self._flood

    @property
    def truncated(self) -> bool:
        return self.total > len(self._kept)

    def _drain(self) -> bool:
        """Read once; whether there may be more."""
        try:
            chunk = os.read(self._read, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._read)
            return False
        before = self.flooded
        self.total += len(chunk)
        self._kept += chunk[: max(0, self._keep - len(self._kept))]
        if self.flooded and not before:
            self._on_flood()
        return True

    def sent(self) -> None:
        """The writing end now belongs to somebody else."""
        os.close(self.write)
        self.write = -1

    def finish(self) -> bytes:
        """What was kept, with what still lies in the pipe. Does not wait for who may still hold the other end."""
        with suppress(OSError):
            for _ in range(_PIPE // _CHUNK):
                if not self._drain():
                    break
        self.close()
        return bytes(self._kept)

    def close(self) -> None:
        if self._read >= 0:
            asyncio.get_running_loop().remove_reader(self._read)
            os.close(self._read)
            self._read = -1
        if self.write >= 0:
            self.sent()


def sealed(data: bytes) -> int:
    """A descriptor that holds these bytes, at their start, and can't be written to."""
    descriptor = os.memfd_create("data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
