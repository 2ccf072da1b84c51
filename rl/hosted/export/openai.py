"""The services whose format this is: OpenAI's, and Azure's of it. The files go as they are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rewards.bench.lint import HOSTED_JUDGES
from rewards.graders import spec
from rl.hosted.export.files import Project, write

AZURE_JUDGES = ("gpt-4o-2024-08-06", "o3-mini-2025-01-31", "gpt-4o", "o3-mini")
AZURE_ROWS = 10


def openai(project: Project, folder: Path) -> list[str]:
    """`job.json`, `train.jsonl`, `valid.jsonl` and `grader.json`; `rft import` of them gives the same again."""
    _copy(project, folder)
    return _losses(project, HOSTED_JUDGES)


def azure(project: Project, folder: Path) -> list[str]:
    """The same files; Azure's job takes the same body, `method` by the client's `extra_body`."""
    _copy(project, folder)
    lost = _losses(project, AZURE_JUDGES)
    for name, rows in (("train.jsonl", project.train), ("valid.jsonl", project.valid)):
        if len(rows) < AZURE_ROWS:
            lost.append(f"{name} has {len(rows)} rows; Azure asks for {AZURE_ROWS}")
    return lost


def _copy(project: Project, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, place in project.files.items():
        (folder / name).write_bytes(place.read_bytes())
    write(folder, "job.json", dict(project.tree) | {"training_file": "train.jsonl", "validation_file": "valid.jsonl"})
    write(folder, "grader.json", project.job.grader)


def _losses(project: Project, judges: Collection[str]) -> list[str]:
    lost = []
    for place, part in spec.walk(project.grader):
        if isinstance(part, spec.Endpoint):
            lost.append(f"{place}: endpoint graders are in a private beta")
        if isinstance(part, spec.Judged) and part.model not in judges:
            lost.append(f"{place}: {part.model} is none of the judges there: {', '.join(judges)}")
        source = part.source if isinstance(part, spec.Python) else " ".join(part.templates.values())
        if "trajectory" in source:
            lost.append(f"{place} reads sample.trajectory, which is there only here")
    if project.job.tools:
        lost.append("tools: servers for tools are in a private beta; without it the first turn is graded")
    if project.settings:
        lost.append(f"settings ({', '.join(project.settings)}): the service does as it does, which is not documented")
    lost.append(f"model: {project.body.model!r} must be one that the service can fine-tune")
    return lost
