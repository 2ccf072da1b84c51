"""Messages between the three processes: one JSON object a packet, descriptors beside it."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

PACKET = 160 * 1024
"""Bytes of the largest message; the kernel's own limit for a packet is a little above."""

_DESCRIPTORS = 8


class TooLong(ValueError):
    """A message that does not fit into a packet."""


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(peer: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    packet = json.dumps(message, separators=(",", ":")).encode()
    if len(packet) > PACKET:
        raise TooLong(f"a message of {len(packet)} bytes; {PACKET} is the most")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    peer.sendmsg([packet], ancillary)


def receive(peer: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; None where the other side is gone.

    Raises:
        ValueError: what came is no message.
    """
    packet, ancillary, flags, _ = peer.recvmsg(PACKET, socket.CMSG_SPACE(_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if not packet:
        return None, list(descriptors)
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("a packet that was cut off")
        message = json.loads(packet)
        if not isinstance(message, dict):
            raise ValueError("a packet that is no object")
    except (ValueError, RecursionError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ValueError(f"not a message: {error}") from error
    return message, list(descriptors)
