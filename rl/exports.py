"""Where an adapter lies on its way from the trainer to the engine: in memory where there is such a place."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")


def place(run: Path, rank: int) -> Path:
    """The directory that one rank of a run writes its adapter to, for a moment."""
    return _folder(run) / f"{_name(run)}-{rank}"


def left(run: Path) -> list[Path]:
    """What lies there of this run: after its end only what a killed process has left."""
    return list(_folder(run).glob(f"{_name(run)}-*"))


def sweep(run: Path) -> None:
    """Remove it."""
    for directory in left(run):
        shutil.rmtree(directory, ignore_errors=True)


def _folder(run: Path) -> Path:
    return MEMORY if MEMORY.is_dir() else run


def _name(run: Path) -> str:
    return f"localrft-{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]}"
