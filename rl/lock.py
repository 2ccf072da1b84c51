"""One writer at a time: a lock that the kernel lets go of when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from envs.errors import InputError


class Lock:
    """Held from when it is made until `close`, or until the process that made it is gone."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            InputError: another process holds it.
        """
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 20, 0).decode().strip() or "unknown"
            self.close()
            raise InputError(
                f"{path.parent} is being written by another process (pid {holder}); "
                "wait for it, or name another output_dir"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        _held.add(self)

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def held(path: Path) -> bool:
    """True if some process holds the lock at `path`."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget() -> None:
    """A forked child would keep the lock alive after its parent is killed: an engine that takes a
    moment to notice must not keep the run from being resumed."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_forget)
