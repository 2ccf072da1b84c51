"""Checkpoints that are either whole or not there: written by the trainer, sealed by us.

TRL and PEFT write adapter, optimizer, scheduler and random states into `checkpoint-N`; we add what
else a resume needs and, last of all, a manifest with the size and SHA-256 of every file. A directory
without a manifest that fits is the work of a killed process: it is not resumed from, and removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from envs.errors import InputError
from rl.whole import sync, write_whole

PREFIX = "checkpoint-"
MANIFEST = "manifest.json"


def path(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / f"{PREFIX}{step}"


def step_of(directory: Path) -> int:
    """The step a checkpoint was made at."""
    return int(directory.name.removeprefix(PREFIX))


def write_state(directory: Path, rank: int, state: Mapping[str, Any]) -> None:
    """What one rank needs beside the trainer's own files."""
    (directory / f"rank{rank}.json").write_text(json.dumps(state))


def read_state(directory: Path, rank: int) -> dict[str, Any]:
    """What `write_state` wrote.

    Raises:
        InputError: the run had another number of processes.
    """
    file = directory / f"rank{rank}.json"
    if not file.exists():
        raise InputError(f"{directory} was made by fewer processes: resume with as many as the run began with")
    state: dict[str, Any] = json.loads(file.read_text())
    return state


def seal(directory: Path) -> None:
    """Make a written checkpoint count: everything to disk, then the manifest, atomically."""
    manifest = {}
    for file in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST):
        manifest[str(file.relative_to(directory))] = {"size": file.stat().st_size, "sha256": _hash(file)}
        sync(file)
    write_whole(directory / MANIFEST, json.dumps(manifest, indent=1))
    sync(directory.parent)


def whole(directory: Path) -> bool:
    """True if the checkpoint was sealed and every file is what it was then."""
    file = directory / MANIFEST
    if not file.exists():
        return False
    manifest = json.loads(file.read_text())
    return all(
        (directory / name).is_file()
        and (directory / name).stat().st_size == entry["size"]
        and _hash(directory / name) == entry["sha256"]
        for name, entry in manifest.items()
    )


def newest(run: Path, *, upto: int | None = None) -> Path | None:
    """The last whole checkpoint of a run; the last one up to a step, where one is given."""
    found = [directory for directory in _all(run) if upto is None or step_of(directory) <= upto]
    return next((directory for directory in reversed(found) if whole(directory)), None)


def sweep(run: Path) -> list[Path]:
    """Remove what a killed process left half-written; returns what was removed."""
    broken = [directory for directory in _all(run) if not whole(directory)]
    for directory in broken:
        shutil.rmtree(directory)
    return broken


def keep(run: Path, limit: int, *, also: Collection[int | None] = ()) -> None:
    """Remove all but the last `limit` checkpoints and those of steps `also`. Call it after the newest is sealed."""
    for directory in _all(run)[:-limit]:
        if step_of(directory) not in also:
            shutil.rmtree(directory)


def best(scores: Mapping[int, float], count: int) -> list[int]:
    """The steps with the highest scores, best first; of equals the later."""
    return sorted(scores, key=lambda step: (scores[step], step), reverse=True)[:count]


def _all(run: Path) -> list[Path]:
    found = [p for p in run.glob(f"{PREFIX}*") if p.is_dir() and p.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
