"""Which files foreign code may touch where there are no namespaces: landlock(7).

What the kernel does not mediate at a given ABI is closed elsewhere: sockets and extended attributes by the system-call
filter, other people's files and processes by the uid of the slot.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from envs.sandbox.inside import kernel

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11

_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""ABI -> how many file rights it knows; 16 from ABI 5 on."""


def restrict(readable: Iterable[str], writable: Iterable[str], devices: Iterable[str] = ()) -> None:
    """Keep this process and its descendants to these trees, for good. Paths that do not exist are left out.

    Args:
        readable: trees to read and execute from.
        writable: trees to do anything in, but for device nodes.
        devices: files to read and write.
    """
    abi = kernel.landlock_abi()
    if abi < 1:
        raise OSError("this kernel offers no Landlock")
    everything = (1 << _RIGHTS.get(abi, 16)) - 1
    both_tcp = 3 if abi >= 4 else 0
    signals_and_abstract_sockets = 3 if abi >= 6 else 0
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = kernel.landlock_ruleset(struct.pack("QQQ", everything, both_tcp, signals_and_abstract_sockets)[:size])
    rights = [(path, EXECUTE | READ_FILE | READ_DIR) for path in readable]
    rights += [(path, everything & ~(MAKE_CHAR | MAKE_BLOCK)) for path in writable]
    rights += [(path, (READ_FILE | WRITE_FILE) & everything) for path in devices]
    for path, right in rights:
        _allow(ruleset, path, right & everything)
    kernel.landlock_restrict(ruleset)
    os.close(ruleset)


def _allow(ruleset: int, path: str, right: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        right &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
    kernel.landlock_add(ruleset, struct.pack("=Qi", right, place))
    os.close(place)
