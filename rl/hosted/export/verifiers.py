"""Prime Intellect's verifiers: a package with a taskset whose one reward is the grader.

Checked against verifiers 0.4.0, which has `verifiers.v1` alone: TaskData, Task, Taskset, the `reward` decorator.
"""

from __future__ import annotations

import re
from pathlib import Path

from rl.hosted.export.files import Project, item_of, with_system, write, write_scoring

PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{dashed}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["verifiers>=0.4", "localrft[graders]"]

[tool.setuptools.package-data]
{name} = ["*.json", "*.jsonl"]
"""

TASKSET = '''"""The tasks of {name}, and the reward that its grader is."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import verifiers.v1 as vf

from {name}.scoring import score

HERE = Path(__file__).parent


class Data(vf.TaskData):
    item: dict[str, Any]
    """The dataset row, less its messages."""
    asked: list[dict[str, Any]]
    """Those."""


class HostedTask(vf.Task[Data]):
    @vf.reward
    async def graded(self, trace: vf.Trace) -> float:
        (*_, said) = trace.assistant_messages
        row = {{**self.data.item, "messages": self.data.asked}}
        value = await score(row, {{"role": "assistant", "content": said.content}})
        if value is None:
            raise RuntimeError("this answer could not be graded")
        return value


class Config(vf.TasksetConfig):
    split: Literal["train", "valid"] = "train"


class HostedTaskset(vf.Taskset[HostedTask, Config]):
    def load(self) -> Iterable[HostedTask]:
        for line in (HERE / f"{{self.config.split}}.jsonl").read_text().splitlines():
            row = json.loads(line)
            yield HostedTask(Data(prompt=row["asked"], item=row["item"], asked=row["asked"]), self.config.task)
'''


def verifiers(project: Project, folder: Path) -> list[str]:
    """A package that `pip install` takes, with the rows of both files in it."""
    name = re.sub(r"\W", "_", project.name.lower()).strip("_") or "project"
    for file, rows in (("train.jsonl", project.train), ("valid.jsonl", project.valid)):
        packed = [{"asked": with_system(row["messages"]), "item": item_of(row)} for row in rows]
        write(folder, f"{name}/{file}", packed)
    write_scoring(project, folder / name)
    write(folder, "pyproject.toml", PYPROJECT.format(name=name, dashed=name.replace("_", "-")))
    taskset = TASKSET.format(name=name)
    write(folder, f"{name}/taskset.py", taskset)
    write(folder, f"{name}/__init__.py", f'from {name}.taskset import HostedTaskset\n\n__all__ = ["HostedTaskset"]\n')
    lost = ["hyperparameters: the trainer's own config says them (prime-rl's TOML)"]
    if any(row.get("tools") for row in (*project.train, *project.valid)):
        lost.append("tools of rows are left out: tools are toolsets in Python there")
    if project.job.response_format is not None:
        lost.append("response_format is only graded, not enforced")
    return lost
