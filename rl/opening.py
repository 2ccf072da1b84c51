"""What a run begins with: its directory, new or gone on with, and its base model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.errors import InputError
from rl import checkpoint, exports, tiny, whole
from rl.config import ADAPTER, BASE, Config
from rl.ranks import alone
from rl.records import Run
from rl.trees import differing
from rl.watch import Watcher

if TYPE_CHECKING:
    from accelerate import PartialState


def resolved(config: Config) -> dict[str, Any]:
    """The config as it is kept beside the results."""
    return config.model_dump(mode="json")


def opened(config: Config, *, resume: bool, processes: int = 1) -> Run:
    """The run directory of a config, to be written to by the first of its processes.

    What a killed process has left half-written is removed.

    Raises:
        InputError: it holds another run, one with another config or of another number of processes; or none at all,
            where one is to be resumed.
    """
    path, asked = config.output_dir, resolved(config)
    run = Run.resume(path) if resume else Run.create(path, asked)
    try:
        if run.config != asked:
            raise InputError(
                f"{path} was made with another config (see {', '.join(differing(run.config, asked))}); resume with "
                f"{path}/config.json, or name another output_dir"
            )
        begun = [entry["processes"] for entry in run.ledger.read() if entry["kind"] == "started"]
        if begun not in ([], [processes]):
            raise InputError(f"{path} was begun with {begun[0]} processes, not {processes}: resume with as many")
    except BaseException:
        run.close()
        raise
    if not resume:
        run.note("started", processes=processes)
    checkpoint.sweep(path)
    exports.sweep(path)
    whole.sweep(path / ADAPTER)
    return run


def entries(directory: Path) -> set[Path] | None:
    """What lies in a directory; None where there is none."""
    return set(directory.iterdir()) if directory.is_dir() else None


def take_back(directory: Path, before: set[Path] | None) -> None:
    """Remove what has come into a directory since its `entries` were those; all of it if it was not there."""
    for path in (entries(directory) or set()) - (before or set()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if before is None:
        directory.rmdir()


def model_path(config: Config, process: PartialState, watcher: Watcher) -> tuple[str, float]:
    """Where the base model is, and the seconds it took to make the embedded one, if it is that."""
    if config.model != "tiny":
        return config.model, 0.0
    recipe = tiny.recipe_of(config)
    directory = config.output_dir / BASE
    seconds = 0.0
    if process.is_main_process:
        watcher.phase("warm start", recipe.steps)
        if process.num_processes > 1:
            seconds = alone(tiny.make, directory, recipe).seconds
        else:
            seconds = tiny.make(directory, recipe, progress=lambda step, *_: watcher.advance()).seconds
    process.wait_for_everyone()
    return str(directory), seconds
