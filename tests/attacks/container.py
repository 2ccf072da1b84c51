"""Run a command as in an unprivileged container: root, but with a container's capabilities and system calls.

    python container.py COMMAND...

What Docker gives a container by default, as far as sandboxes meet it: fourteen capabilities, no new namespaces, no
mounts, no keys, no tracing, and a cgroup file system that can't be written to.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
"""chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
audit_write, setfcap."""

DENIED = (
    *(101, 103, 135, 153, 155, 161 + 2, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 174, 175, 176, 179, 212, 227),
    *(237, 238, 239, 246, 248, 249, 250, 256, 272, 279, 298, 300, 303, 304, 305, 308, 310, 311, 312, 313, 320, 321),
    *(323, 425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 440, 442, 443),
)
"""System calls (x86_64) that Docker's profile refuses without further capabilities: acct, bpf, clock_settime, keyctl, mount,
perf_event_open, ptrace, setns, umount2, unshare, io_uring_setup, pidfd_getfd and their kin."""

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NAMESPACE, CLONE, CLONE3 = 0x7E020080, 56, 435
NEWNS, PRIVATE = 0x00020000, 1 << 18 | 1 << 14


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def hide_cgroups() -> None:
    check(LIBC.unshare(NEWNS))
    check(LIBC.mount(b"none", b"/", None, PRIVATE, None))
    check(LIBC.mount(b"tmpfs", b"/sys/fs/cgroup", b"tmpfs", 1, b"size=4k"))  # 1: read-only


def keep_capabilities() -> None:
    for capability in range(64):
        if capability not in CAPABILITIES and LIBC.prctl(24, capability, 0, 0, 0) != 0:
            break
    kept = sum(1 << capability for capability in CAPABILITIES)
    check(LIBC.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", kept, kept, kept, 0, 0, 0)))


def filter_calls() -> None:
    def refuse(number: int) -> list[tuple[int, int, int, int]]:
        return [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | errno.EPERM)]

    code = [(0x20, 0, 0, 0), (0x15, 0, 1, CLONE3), (0x06, 0, 0, 0x50000 | errno.ENOSYS)]
    for number in DENIED:
        code += refuse(number)
    code += [(0x15, 0, 3, CLONE), (0x20, 0, 0, 16), (0x45, 0, 1, NEW_NAMESPACE), (0x06, 0, 0, 0x50000 | errno.EPERM)]
    code.append((0x06, 0, 0, 0x7FFF0000))
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in code)

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]

    buffer = ctypes.create_string_buffer(program, len(program))
    whole = Program(len(code), ctypes.cast(buffer, ctypes.c_void_p))
    check(LIBC.syscall(ctypes.c_long(317), ctypes.c_long(1), ctypes.c_long(0), ctypes.byref(whole)))


if __name__ == "__main__":
    hide_cgroups()
    filter_calls()  # while CAP_SYS_ADMIN still allows it without no_new_privs, as Docker does
    keep_capabilities()
    os.execvp(sys.argv[1], sys.argv[1:])
