"""A bundle: a hosted job as files. `job.json` is the body of the job, and beside it lie what it names.

job.json        the body of POST /v1/fine_tuning/jobs
train.jsonl     its rows, if `training_file` is no file here but an id at a service
valid.jsonl     and those of `validation_file`
grader.json     the grader, if the body does not hold it
local.yaml      what the body does not say: see `rl.hosted.local`; never part of what is exported
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import InputError
from rewards.graders import spec
from rl.hosted import body, local, rows
from rl.hosted.body import Body
from rl.hosted.local import Base, Local
from rl.hosted.plan import Plan, plan, supervised

JOB, GRADER, LOCAL = "job.json", "grader.json", "local.yaml"
FILES = {"training_file": "train.jsonl", "validation_file": "valid.jsonl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A job and where its rows are."""

    path: Path
    """The folder."""
    tree: Mapping[str, Any]
    """The body as it was written, with the grader in it."""
    body: Body
    train: Path
    valid: Path | None
    local: Local


def is_one(path: Path) -> bool:
    """Whether a path is a bundle, or the job of one: a JSON object that names a training file."""
    if path.is_dir():
        return (path / JOB).is_file()
    if path.suffix != ".json":
        return False
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return path.name == JOB
    return isinstance(tree, Mapping) and "training_file" in tree


def load(path: Path) -> Bundle:
    """The bundle in a folder, or around a job's file.

    Raises:
        InputError: a file is missing, is no JSON, or says what no job can.
    """
    job = path / JOB if path.is_dir() else path
    folder = job.parent
    tree = spec.read(job)
    if not isinstance(tree, Mapping):
        raise InputError(f"{job}: a job is a JSON object, not {type(tree).__name__}")
    tree = _with_grader(dict(tree), job)
    read = body.read(tree)
    train = _file(folder, read.training_file, "training_file")
    valid = _file(folder, read.validation_file, "validation_file") if read.validation_file is not None else None
    own = folder / LOCAL
    return Bundle(
        path=folder,
        tree=tree,
        body=read,
        train=train,
        valid=valid,
        local=local.read(own) if own.exists() else Local(),
    )


def planned(bundle: Bundle, *overrides: str, processes: int = 1) -> Plan:
    """How the job of a bundle is trained here. An override of `model` needs no name in local.yaml.

    Raises:
        InputError: something in the bundle or the overrides can't be used.
    """
    place = Path("runs") / bundle.path.resolve().name
    if bundle.body.reinforcement is None:
        return supervised(
            bundle.body,
            train=bundle.train,
            valid=bundle.valid,
            local=named(bundle, overrides),
            output_dir=place,
            overrides=overrides,
        )
    assert bundle.valid is not None, "a reinforcement job has a validation file"
    return plan(
        bundle.body,
        train=rows.read(bundle.train, "training_file"),
        valid=rows.read(bundle.valid, "validation_file"),
        local=named(bundle, overrides),
        output_dir=place,
        overrides=overrides,
        processes=processes,
    )


def named(bundle: Bundle, overrides: Sequence[str]) -> Local:
    """The local settings, in which the job's model stands for what an override says."""
    given = [value for key, _, value in (override.partition("=") for override in overrides) if key == "model"]
    if not given:
        return bundle.local
    models = bundle.local.models | {bundle.body.model: Base(model=given[-1])}
    return bundle.local.model_copy(update={"models": models})


def _with_grader(tree: dict[str, Any], job: Path) -> dict[str, Any]:
    method = tree.get("method")
    if not isinstance(method, Mapping) or not isinstance(method.get("reinforcement"), Mapping):
        return tree
    beside = job.parent / GRADER
    inside = method["reinforcement"].get("grader")
    if not beside.exists():
        return tree
    grader = spec.read(beside)
    if inside is not None and inside != grader:
        raise InputError(f"{beside} and the grader in {job.name} differ; remove one of them")
    return tree | {"method": {**method, "reinforcement": {**method["reinforcement"], "grader": grader}}}


def _file(folder: Path, name: str, param: str) -> Path:
    """The file a job names, or the one of the usual name where it names a service's id."""
    for candidate in (folder / name, folder / FILES[param]):
        if candidate.is_file():
            return candidate
    raise InputError(f"{folder / JOB}: {param}: there is neither {name} nor {FILES[param]} in {folder}")
