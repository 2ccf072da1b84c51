"""The files of a job, read and held to the limits and to what the grader needs, before anything is started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from envs.bridges.hosted import collect, examples_of, tools_of
from envs.errors import InputError, unknown
from envs.tasks import check_disjoint, jsonl_rows
from envs.types import Task
from rewards.graders.spec import Spec, walk
from rewards.graders.template import MissingVariable, Template, Variable
from rl.hosted.body import Reinforcement
from rl.hosted.refusal import Refused

LIMITS = {"training_file": 50_000, "validation_file": 1_000}
"""Rows, of a reinforcement job."""
FILE_BYTES = 512 * 1024 * 1024

Param = Literal["training_file", "validation_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One file's rows."""

    param: Param
    path: Path
    places: tuple[str, ...]
    """File and line of each row, for messages."""
    tasks: tuple[Task, ...]

    def __len__(self) -> int:
        return len(self.tasks)


def read(path: Path, param: Param, *, name: str | None = None) -> Rows:
    """The rows of a reinforcement job's file.

    Args:
        path: JSONL.
        param: which of the job's files it is.
        name: what to call the file in messages; its own name unless given.

    Raises:
        Refused: too large, too many rows or none, or a row that can't be used, with its line.
    """
    name = name or path.name
    try:
        rows = _lines(path, name)
        if len(rows) > LIMITS[param]:
            raise InputError(
                f"{name} has {len(rows):,} rows; a {param} of a reinforcement job may have {LIMITS[param]:,}"
            )
        tasks = collect(iter(rows))
    except InputError as error:
        raise refused(str(error).replace(str(path), name), param) from error
    return Rows(param=param, path=path, places=tuple(where for where, _ in rows), tasks=tuple(tasks))


def examples(path: Path, param: Param, *, name: str | None = None) -> int:
    """How many replies there are to learn in a supervised job's file.

    Raises:
        Refused: too large, or a row that can't be used, with its line.
    """
    name = name or path.name
    try:
        return sum(len(examples_of(row, where)) for where, row in _lines(path, name))
    except InputError as error:
        raise refused(str(error).replace(str(path), name), param) from error


def _lines(path: Path, name: str) -> list[tuple[str, Any]]:
    """Every row with its place."""
    size = path.stat().st_size if path.exists() else 0
    if size > FILE_BYTES:
        raise InputError(f"{name} has {size:,} bytes; a file may have {FILE_BYTES:,}")
    rows = [(f"{name}, line {number}", row) for number, row in jsonl_rows(path)]
    if not rows:
        raise InputError(f"{name} holds no rows")
    return rows


def check(job: Reinforcement, train: Rows, valid: Rows) -> list[str]:
    """Hold the rows of both files against the job; what may be meant is said, one line each.

    Raises:
        Refused: a field that the grader reads and no row of a file has, a tool that no server or no row knows, or
            rows of the one file that are in the other.
    """
    said = [line for rows in (train, valid) for line in _check_fields(job.graded, rows)]
    _check_tools(job, (train, valid))
    try:
        check_disjoint({train.path.name: train.tasks, valid.path.name: valid.tasks})
    except InputError as error:
        raise refused(str(error), "validation_file") from error
    return said


def refused(message: str, param: Param) -> Refused:
    """A file that can't be used, by the code that the service has for it."""
    return Refused(message, param=param, code=f"invalid_{param}")


def _check_fields(grader: Spec, rows: Rows) -> Iterable[str]:
    """Fields of the item that the grader's templates read."""
    for place, part in walk(grader):
        for key, text in part.templates.items():
            for variable in Template.parse(text).variables:
                lacking = [where for where, task in zip(rows.places, rows.tasks, strict=True) if _lacks(variable, task)]
                if variable.namespace != "item" or not lacking:
                    continue
                reads = f"{place}.{key} reads {variable.text}"
                if len(lacking) == len(rows):
                    known = sorted({name for task in rows.tasks[:1000] for name in task.item})
                    hint = unknown("field", str(variable.steps[0]), known) if len(variable.steps) == 1 else "look there"
                    raise refused(
                        f"{reads}, and no row of {rows.places[0].partition(',')[0]} has it: {hint}", rows.param
                    )
                rest = f"{len(lacking)} of {len(rows)} rows lack it, the first {lacking[0]}"
                yield f"{reads}, and {rest}; they are not scored"


def _lacks(variable: Variable, task: Task) -> bool:
    names: Mapping[str, Any] = {"item": task.item, "sample": {}}
    try:
        variable.value(names)
    except MissingVariable:
        return True
    return False


def _check_tools(job: Reinforcement, files: Iterable[Rows]) -> None:
    """Where there are servers, every tool of every row has one, and every server a tool."""
    if not job.tools:
        return
    servers = [tool.name for tool in job.tools]
    offered = set[str]()
    for rows in files:
        for where, task in zip(rows.places, rows.tasks, strict=True):
            for name in tools_of(task.item, where):
                offered.add(name)
                if name not in servers:
                    said = f"{where}: no server is named for the tool {name!r}"
                    raise refused(f"{said}; {unknown('server', name, servers)}", rows.param)
    for name in servers:
        if name not in offered:
            raise Refused(
                f"no row offers the tool {name!r}, so that the model could not call it; remove it, or add it to the "
                "`tools` of rows",
                param="method.reinforcement.tools",
            )
