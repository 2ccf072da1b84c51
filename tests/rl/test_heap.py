"""Large tensors that are made and freed again and again take their memory from the kernel once."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.stack

AGAIN = """
import resource, sys, torch
from rl.trainers import heap

if sys.argv[1] == "kept":
    assert heap.keep()

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(4, 29):
    torch.ones(size << 18)  # MiB of float32
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of tensors of 4, 5, ... 28 MiB, each made and freed before the next; 28 MiB are 7168 pages."""
    done = subprocess.run([sys.executable, "-c", AGAIN, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_what_a_large_tensor_freed_is_kept_for_the_next() -> None:
    assert faults("given back") > 2 * faults("kept")
