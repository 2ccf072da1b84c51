"""The files of a hosted job made into a project: a bundle, and the YAML config that it comes to here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from envs.errors import InputError
from rewards.graders import spec
from rl.hosted import bundle
from rl.hosted.plan import Plan

CONFIG = "config.yaml"


def bring(
    folder: Path,
    *,
    train: Path,
    valid: Path,
    grader: Path | None = None,
    job: Path | None = None,
    model: str | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """Make a project in a folder of its own: `rft train` takes it, and `rft train FOLDER/config.yaml` too.

    Rows and grader are copied as they are; `job.json` names them by their new names.

    Args:
        folder: what to make; empty, or not there yet.
        train, valid: JSONL.
        grader: grader JSON; may be left out where the job holds it.
        job: the body of the job, or the job object that the service gave back; without it every hyperparameter is auto.
        model: what to train here: a directory, a name on the Hub, or "tiny". `local.yaml` keeps it.
        overrides: `key=value` of the config.

    Raises:
        InputError: the folder is not empty, or a file can't be used; then nothing is left behind but the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; name another")
    tree = _body(job)
    if grader is not None:
        reinforcement = tree["method"]["reinforcement"]
        reinforcement["grader"] = spec.read(grader)
    tree |= bundle.FILES
    written = {"job.json": json.dumps(tree, indent=2, ensure_ascii=False) + "\n"}
    if "grader" in tree["method"]["reinforcement"]:
        written[bundle.GRADER] = (
            json.dumps(tree["method"]["reinforcement"]["grader"], indent=2, ensure_ascii=False) + "\n"
        )
    if model is not None:
        written[bundle.LOCAL] = yaml.safe_dump({"models": {str(tree["model"]): model}})
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
        for source, name in ((train, "train.jsonl"), (valid, "valid.jsonl")):
            (folder / name).write_bytes(_read(source))
        plan = bundle.planned(bundle.load(folder), *overrides)
        config = plan.config.model_dump(mode="json", exclude_defaults=True)
        (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except InputError:
        for file in folder.iterdir():
            file.unlink()
        raise
    return plan


FIELDS = ("model", "method", "suffix", "seed", "metadata", "integrations")
"""Of a job object, what the body that made it said."""


def _body(job: Path | None) -> dict[str, Any]:
    """The body of a job, be it given as the body or as the object that the service answers with."""
    tree = {} if job is None else spec.read(job)
    if not isinstance(tree, dict):
        raise InputError(f"{job}: a job is a JSON object, not {type(tree).__name__}")
    if tree.get("object") == "fine_tuning.job":
        tree = {name: tree[name] for name in FIELDS if tree.get(name) is not None}
    method = tree.get("method") or {"type": "reinforcement"}
    if not isinstance(method, dict) or method.get("type") != "reinforcement":
        raise InputError(f"{job}: method.type is not 'reinforcement'; only reinforcement jobs become projects")
    return {"model": "tiny"} | tree | {"method": {**method, "reinforcement": dict(method.get("reinforcement") or {})}}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
