"""What code prints in two processes that hash strings differently: the same, or it hung on the order of a set."""

from __future__ import annotations

import subprocess
import sys


def printed_twice(code: str) -> list[str]:
    """The lines, once it is sure that both processes print them."""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    )
    assert first == second
    return first.splitlines()
