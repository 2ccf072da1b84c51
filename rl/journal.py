"""Files that only grow: one JSON object a line, each line sealed by a hash that chains it to the one before.

    {"step":3,"loss":0.12,"sha256":"9c1f..."}

The hash covers the hash of the line before and the line's own text, so a changed, lost or added line
in the middle is found and named. It is not a signature: who can write the file can write it all anew,
unless its `head` is also kept elsewhere. A last line without its end is what a killed process leaves:
it was never acknowledged, and is cut off when the file is next written to.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import InputError
from rl.whole import needs_space, sync

ROOT = "0" * 64
"""The hash before the first line."""
_SEAL = ',"sha256":"{}"}}\n'
_SEAL_BYTES = len(_SEAL.format(ROOT))


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was read and found to be as it was written."""

    start: int
    """Byte offset in the file."""
    end: int
    body: bytes
    """Its JSON text, without the hash."""
    sha256: str

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.body)
        return record


class Journal:
    """An append-only file of records. One process writes it; any number may read it meanwhile."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path, self._writable = path, writable
        self._file: int | None = None
        self._end = 0
        self._head = ROOT

    def read(self) -> Iterator[dict[str, Any]]:
        """The records, in the order they were written.

        Raises:
            InputError: a line is not what was written; names the file and the line.
        """
        return (line.record for line in self.lines())

    def lines(self) -> Iterator[Line]:
        """Like `read`, with where each line stands; parses nothing."""
        if not self.path.exists():
            return
        head, start = ROOT, 0
        with self.path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    return
                line = _opened(text, head, start)
                if line is None:
                    raise InputError(
                        f"{self.path}:{number}: this line is not what was written (its hash does not fit); the lines "
                        "before it are intact. Restore the file from a backup, or start a new run"
                    )
                yield line
                head, start = line.sha256, line.end

    @property
    def head(self) -> str:
        """The hash of the last line: it stands for everything written so far."""
        if self._file is None:
            return next(reversed([ROOT, *(line.sha256 for line in self.lines())]))
        return self._head

    @property
    def size(self) -> int:
        """Bytes written so far: where the next line will start. For the writer."""
        self._open()
        return self._end

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records, all of them or none. After this returns they survive a kill of the process.

        Raises:
            InputError: there is no space left; the file is as it was before.
            TypeError, ValueError: a record is not plain JSON; nothing was written.
        """
        file = self._open()
        texts, head = [], self._head
        for record in records:
            text, head = _sealed(record, head)
            texts.append(text)
        self._write(file, b"".join(texts))
        self._head = head

    def flush(self) -> None:
        """Bring everything to the disk itself: after this returns it survives a loss of power."""
        if self._file is not None:
            with needs_space(self.path):
                os.fsync(self._file)

    def mend(self) -> None:
        """Check every line, and cut off what a killed process left of its last one.

        Raises:
            InputError: a line is not what was written.
        """
        if self.path.exists():
            self._open()

    def cut(self, start: int) -> None:
        """Take back every line from the byte offset `start` (a `Line.start`) on."""
        file = self._open()
        head = ROOT
        for line in self.lines():
            if line.start >= start:
                break
            head = line.sha256
        os.ftruncate(file, start)
        self._end, self._head = start, head

    def close(self) -> None:
        """Bring everything to disk and let go of the file. Idempotent."""
        if self._file is not None:
            self.flush()
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        """The file, ready for appending: checked from its first line, an interrupted last line cut off."""
        if not self._writable:
            raise RuntimeError(f"{self.path} was opened for reading")
        if self._file is None:
            for line in self.lines():
                self._end, self._head = line.end, line.sha256
            with needs_space(self.path):
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                sync(self.path.parent)
            os.ftruncate(self._file, self._end)
        return self._file

    def _write(self, file: int, data: bytes) -> None:
        rest = memoryview(data)
        try:
            with needs_space(self.path):
                while rest:
                    rest = rest[os.write(file, rest) :]
        except BaseException:
            os.ftruncate(file, self._end)
            raise
        self._end += len(data)


def _sealed(record: Mapping[str, Any], head: str) -> tuple[bytes, str]:
    if not record:
        raise ValueError("an empty record says nothing")
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    sha256 = _hash(head, body)
    return body[:-1] + _SEAL.format(sha256).encode(), sha256


def _opened(text: bytes, head: str, start: int) -> Line | None:
    body, seal = text[:-_SEAL_BYTES] + b"}", text[-_SEAL_BYTES:]
    sha256 = _hash(head, body)
    if seal != _SEAL.format(sha256).encode():
        return None
    return Line(start, start + len(text), body, sha256)


def _hash(head: str, body: bytes) -> str:
    return hashlib.sha256(head.encode() + body).hexdigest()
