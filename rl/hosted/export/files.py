"""What is exported, and how files are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import InputError
from envs.tasks import jsonl_rows
from rewards.graders.spec import Spec, walk
from rl.hosted import auto, rows
from rl.hosted.body import Body, Reinforcement, ReinforcementHyperparameters
from rl.hosted.bundle import Bundle

Row = Mapping[str, Any]

SCORING = '''"""What an answer is worth, by the grader in grader.json. It needs localrft[graders]."""

import asyncio
import os
from pathlib import Path

from rewards.graders import Grader, Judge, JudgeConfig, Services, Settings, UnsafeSubprocess, load, spec
from rewards.graders.sample import of_json

SETTINGS = {settings}
LOOP = asyncio.new_event_loop()


def _made() -> Grader:
    tree = load(Path(__file__).parent / "grader.json")
    kinds = {{part.type for _, part in spec.walk(tree)}}
    pool = UnsafeSubprocess("whoever runs this file keeps it apart") if "python" in kinds else None
    asks = kinds & {{"score_model", "label_model"}}
    judge = Judge(JudgeConfig(base_url=os.environ["JUDGE_URL"])) if asks else None
    return Grader(tree, settings=Settings.read(SETTINGS), services=Services(pool=pool, judge=judge))


GRADER = _made()


async def score(item, message):
    """The worth of an assistant message, in the shape of chat completions, to a row; None where it can't be graded."""
    sample = of_json({{"choices": [{{"index": 0, "message": message, "finish_reason": "stop"}}]}})
    grade = await GRADER.grade(item, sample)
    return grade.reward if grade.error is None else None


def scores(pairs):
    """The worth of several (item, message), at once, for callers that are not async."""

    async def all_of_them():
        return await asyncio.gather(*(score(item, message) for item, message in pairs))

    return LOOP.run_until_complete(all_of_them())
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A reinforcement job with its rows read and every "auto" decided."""

    name: str
    tree: Mapping[str, Any]
    """The body as it was written."""
    body: Body
    job: Reinforcement
    asked: ReinforcementHyperparameters
    train: tuple[Row, ...]
    valid: tuple[Row, ...]
    files: Mapping[str, Path]
    """train.jsonl and valid.jsonl -> where they are."""
    settings: Mapping[str, Any]
    """What hosted graders leave unsaid, where it was said here."""

    @property
    def grader(self) -> Spec:
        return self.job.graded

    def kinds(self) -> set[str]:
        """The types of its graders."""
        return {part.type for _, part in walk(self.grader)}


def of_bundle(bundle: Bundle) -> Project:
    """The project of a bundle; its rows are checked as for training.

    Raises:
        InputError: it is no reinforcement job, or its files can't be used.
    """
    job = bundle.body.reinforcement
    if job is None or bundle.valid is None:
        raise InputError(f"{bundle.path}: only reinforcement jobs are exported; supervised ones have no grader")
    train, valid = rows.read(bundle.train, "training_file"), rows.read(bundle.valid, "validation_file")
    rows.check(job, train, valid)
    return Project(
        name=bundle.path.resolve().name,
        tree=bundle.tree,
        body=bundle.body,
        job=job,
        asked=auto.reinforcement(job.hyperparameters, train=len(train), valid=len(valid)),
        train=tuple(row for _, row in jsonl_rows(bundle.train)),
        valid=tuple(row for _, row in jsonl_rows(bundle.valid)),
        files={"train.jsonl": bundle.train, "valid.jsonl": bundle.valid},
        settings=bundle.local.settings,
    )


def item_of(row: Row) -> dict[str, Any]:
    """What a row holds beside its conversation."""
    return {key: value for key, value in row.items() if key not in ("messages", "tools", "parallel_tool_calls")}


def text_of(content: Any) -> str:
    """The text of a message's content, be it in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "")


def with_system(messages: Iterable[Row]) -> list[dict[str, Any]]:
    """Messages in which the developer is the system: only one service knows developers."""
    return [{**m, "role": "system"} if m["role"] == "developer" else dict(m) for m in messages]


def write(folder: Path, name: str, content: Any) -> None:
    """A file of text, of a JSON value, or of JSON lines where its name says so."""
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        text = content
    elif name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    else:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    place.write_text(text, encoding="utf-8")


def write_scoring(project: Project, folder: Path) -> None:
    """The grader and the file that runs it."""
    write(folder, "grader.json", project.job.grader)
    settings = dict(project.settings)
    if project.job.response_format is not None and project.job.response_format.type != "text":
        settings["response_format"] = project.job.response_format.model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
    write(folder, "scoring.py", SCORING.format(settings=repr(settings)))
