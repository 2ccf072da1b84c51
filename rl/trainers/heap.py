"""Memory of large tensors, kept for the next ones.

glibc gives memory that a large tensor freed back to the kernel, and asks for it again a moment later: pages are
then cleared and mapped anew in every layer of every micro-batch. In an update on CPU that was a tenth of the time.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""

LARGEST = 32 << 20
"""The highest M_MMAP_THRESHOLD that glibc takes: blocks above it are mapped one by one, whatever is set."""


def keep() -> bool:
    """Have this process keep the memory that blocks of up to `LARGEST` bytes free.

    It holds on to its peak from then on. Returns whether there is a glibc that does so.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    most = 2**31 - 1
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, most))
