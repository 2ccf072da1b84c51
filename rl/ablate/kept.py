"""What a run showed, in one small file beside its directory: with it, a report needs none of the run's other records.

    ARM/seedN/               the run, with a transcript of every episode
    ARM/seedN.result.json    its `Result`, and the settings it came of

So a report can be carried from machine to machine, committed, and made anew where the runs themselves are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from envs.errors import InputError
from rl.ablate.plan import Cell
from rl.ablate.results import Result, result
from rl.config import parse
from rl.trees import differing
from rl.whole import write_whole

SUFFIX = ".result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The file."""

    settings: dict[str, Any]
    result: Result


_FILE = TypeAdapter(Kept)


def kept(cell: Cell) -> Result | None:
    """What was kept of a run; None where nothing was.

    Raises:
        InputError: the file can't be read, or is of a run with other settings, or with some that are no more.
    """
    file = cell.beside(SUFFIX)
    if not file.exists():
        return None
    try:
        found = _FILE.validate_json(file.read_bytes())
    except ValidationError as error:
        raise InputError(f"{file} is not what was kept of a run; move it out of the way: {error}") from error
    # Read as a config, so that a setting which is newer than the file has its default there.
    then = parse({**found.settings, "output_dir": str(cell.config.output_dir)}, str(file))
    if keys := differing(_settings(replace(cell, config=then)), _settings(cell)):
        raise InputError(
            f"{file} is of a run with another {', '.join(keys)}: name another output_dir, or move it out of the way"
        )
    return found.result


def keep(cell: Cell) -> Result:
    """Read a finished run and write the file.

    Raises:
        InputError: a record is damaged, or its evaluations were not scored by a holdout grader.
    """
    found = result(cell)
    write_whole(cell.beside(SUFFIX), _FILE.dump_json(Kept(settings=_settings(cell), result=found)).decode() + "\n")
    return found


def _settings(cell: Cell) -> dict[str, Any]:
    """The config, but for where things lie: an ablation may be moved as a whole."""
    tree = cell.config.model_dump(mode="json")
    del tree["output_dir"]
    if cell.recipe is not None:
        tree["model"] = Path(tree["model"]).name
    return tree
