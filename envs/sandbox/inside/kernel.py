"""System calls that Python has no name for, as functions that raise `OSError`. x86_64 Linux."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from typing import Any

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 2, 4, 8

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SUBREAPER, _PR_SET_NNP, _PR_CAP_AMBIENT = (
    1,
    4,
    24,
    36,
    38,
    47,
)
_OPENAT2, _SECCOMP, _LANDLOCK = 437, 317, 444
_LIBC = ctypes.CDLL(None, use_errno=True)


def supported() -> bool:
    """Whether the system-call numbers in this package are this machine's."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


def syscall(number: int, *arguments: Any) -> int:
    ctypes.set_errno(0)
    words = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    return _checked(_LIBC.syscall(ctypes.c_long(number), *words))


def unshare(flags: int) -> None:
    _checked(_LIBC.unshare(flags))


def mount(kind: str, target: str, flags: int, options: str = "") -> None:
    _checked(_LIBC.mount(kind.encode(), target.encode(), kind.encode(), flags, options.encode()))


def hide_from_peers(hide: bool = True) -> None:
    """Make this process undumpable: one of the same uid can then neither read its memory nor its descriptors."""
    _checked(_LIBC.prctl(_PR_SET_DUMPABLE, int(not hide), 0, 0, 0))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    _checked(_LIBC.prctl(_PR_SET_SUBREAPER, 1, 0, 0, 0))


def die_with(parent: int) -> None:
    """Be killed when the parent dies, which must still be the one named. Holds until the uid changes."""
    _checked(_LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        raise OSError("the parent is gone")


def no_new_privileges() -> None:
    _checked(_LIBC.prctl(_PR_SET_NNP, 1, 0, 0, 0))


def drop_capabilities() -> None:
    """Give up every capability, for good: bounding, ambient, inheritable, permitted and effective set."""
    for capability in range(64):
        if _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # beyond the last one that this kernel knows, or no right to shrink the bounding set
    _LIBC.prctl(_PR_CAP_AMBIENT, 4, 0, 0, 0)
    header = struct.pack("Ii", 0x20080522, 0)
    _checked(_LIBC.capset(header, bytes(24)))


def filter_calls(program: bytes) -> None:
    """Install a seccomp filter: cBPF instructions of eight bytes each."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]

    buffer = ctypes.create_string_buffer(program, len(program))
    whole = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    no_new_privileges()
    syscall(_SECCOMP, 1, 0, ctypes.byref(whole))


def landlock_abi() -> int:
    """Which Landlock ABI the kernel offers; 0 where it has none. Source: landlock_create_ruleset(2)."""
    try:
        return syscall(_LANDLOCK, None, ctypes.c_size_t(0), 1)
    except OSError:
        return 0


def landlock_ruleset(attributes: bytes) -> int:
    return syscall(_LANDLOCK, attributes, ctypes.c_size_t(len(attributes)), 0)


def landlock_add(ruleset: int, rule: bytes) -> None:
    syscall(_LANDLOCK + 1, ruleset, 1, rule, 0)


def landlock_restrict(ruleset: int) -> None:
    no_new_privileges()
    syscall(_LANDLOCK + 2, ruleset, 0)


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a path below a directory, without following any symbolic link. Source: openat2(2).

    Raises:
        OSError: ELOOP for a link on the way, EXDEV for a path that leads out of the directory.
    """
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    return syscall(_OPENAT2, directory, os.fsencode(path), how, ctypes.c_size_t(len(how)))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
