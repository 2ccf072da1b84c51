"""Which system calls foreign code may make: a filter for seccomp(2), written out as cBPF. x86_64.

What is refused is what isolation from the kernel's larger surfaces needs: other processes' memory, mounts and
namespaces, keys, modules, tracing, clocks, io_uring, and socket families. Calls that did not exist when this was
written answer ENOSYS, as on an older kernel; the calls of other ABIs (x32, i386) kill. clone3 answers ENOSYS, because
its flags lie behind a pointer that a filter can't follow: the C library then uses clone, whose flags are checked.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10

DENIED = {
    "uselib": 134, "personality": 135, "ustat": 136, "sysfs": 139, "modify_ldt": 154, "pivot_root": 155,
    "_sysctl": 156, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166,
    "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173,
    "create_module": 174, "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180,
    "ptrace": 101, "syslog": 103, "vhangup": 153, "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237,
    "mq_open": 240, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256,
    "unshare": 272, "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425,
    "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "memfd_secret": 447, "statmount": 457, "listmount": 458,
}  # fmt: skip
"""Answered with EPERM, whatever the arguments."""

SHARED_IPC = {"shmget": 29, "semget": 64, "msgget": 68}
"""Refused where there is no IPC namespace: what they make outlives the process."""

OUTSIDE = {
    "setxattr": 188, "lsetxattr": 189, "removexattr": 197, "lremovexattr": 198, "inotify_add_watch": 254,
    "setxattrat": 463, "removexattrat": 466,
}  # fmt: skip
"""Refused where there are no mounts of its own: Landlock does not mediate them, and other files are in sight."""

UNCOUNTED = {"memfd_create": 319}
"""Refused where memory is counted by process: it holds memory that belongs to none."""

KNOWN = 470
"""The first system call number that this table has no opinion on."""

_MMAP, _IOCTL, _SOCKET, _SOCKETPAIR, _CLONE, _CLONE3 = 9, 16, 41, 53, 56, 435
_NAMESPACES = 0x7E020080
"""Every CLONE_NEW* flag."""
_TERMINAL = (0x5412, 0x541C, 0x5423)
"""TIOCSTI types for somebody else, TIOCLINUX pastes, TIOCSETD loads line disciplines."""
_SHARED_ANONYMOUS = 0x21
_X32 = 0x40000000
_AUDIT_ARCH_X86_64 = 0xC000003E
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

Instruction = tuple[int, int, int, int]


def program(families: Iterable[int], *, namespaces: bool, uncounted_memory: bool) -> bytes:
    """The filter as bytes for `kernel.filter_calls`.

    Args:
        families: the socket families that may be opened.
        namespaces: allow what an IPC and a mount namespace of its own make harmless.
        uncounted_memory: allow memfds and shared anonymous maps; only where a cgroup counts them.
    """
    denied = dict(DENIED)
    denied |= {} if namespaces else SHARED_IPC | OUTSIDE
    denied |= {} if uncounted_memory else UNCOUNTED
    code = [
        _load(4), _equal(_AUDIT_ARCH_X86_64, 1, 0), _return(_KILL),
        _load(0), _at_least(_X32, 0, 1), _return(_KILL),
        _at_least(KNOWN, 0, 1), _return(_ERRNO | errno.ENOSYS),
        _equal(_CLONE3, 0, 1), _return(_ERRNO | errno.ENOSYS),
    ]  # fmt: skip
    for number in denied.values():
        code += [_equal(number, 0, 1), _return(_ERRNO | errno.EPERM)]
    code += _when(_CLONE, 0, [_any(_NAMESPACES, 0, 1), _return(_ERRNO | errno.EPERM), _return(_ALLOW)])
    refused = [i for request in _TERMINAL for i in (_equal(request, 0, 1), _return(_ERRNO | errno.EPERM))]
    code += _when(_IOCTL, 1, [*refused, _return(_ALLOW)])
    code += _when(_SOCKET, 0, _only(families))
    code += _when(_SOCKETPAIR, 0, _only([AF_UNIX]))
    if not uncounted_memory:
        mask = (0x54, 0, 0, _SHARED_ANONYMOUS)
        refuse = [mask, _equal(_SHARED_ANONYMOUS, 0, 1), _return(_ERRNO | errno.EPERM), _return(_ALLOW)]
        code += _when(_MMAP, 3, refuse)
    code.append(_return(_ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _only(families: Iterable[int]) -> list[Instruction]:
    allowed = [i for family in families for i in (_equal(family, 0, 1), _return(_ALLOW))]
    return [*allowed, _return(_ERRNO | errno.EAFNOSUPPORT)]


def _when(call: int, argument: int, then: list[Instruction]) -> list[Instruction]:
    """For this call, decide by the low 32 bits of an argument; `then` ends in a return."""
    return [_equal(call, 0, len(then) + 1), _load(16 + 8 * argument), *then]


def _load(offset: int) -> Instruction:
    return (0x20, 0, 0, offset)


def _equal(value: int, yes: int, no: int) -> Instruction:
    return (0x15, yes, no, value)


def _at_least(value: int, yes: int, no: int) -> Instruction:
    return (0x35, yes, no, value)


def _any(bits: int, yes: int, no: int) -> Instruction:
    return (0x45, yes, no, bits)


def _return(value: int) -> Instruction:
    return (0x06, 0, 0, value)
