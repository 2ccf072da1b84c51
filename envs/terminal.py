"""The terminal: chores with files, done by shell commands. The files that are there at the end decide.

Every file counts: those that were to be made or changed have to be right to the letter, those that were to stay have to
be as they were, and nothing else may be left over. Progress is the share of what was to be done that is done for the
first time, and none is noted while a file that was to stay is not as it was.

Chores are made from numbers, and a number belongs to exactly one split, by a hash.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from envs.chores import CHORES, PLAIN
from envs.chores.chore import lines
from envs.environment import tool
from envs.errors import InputError, ToolError, reasons
from envs.guard import Guard
from envs.script import script
from envs.tasks import split_of
from envs.types import Message, Task
from envs.workspace import Workspace, as_output

Difficulty = Literal["easy", "standard", "hard"]

SYSTEM = (
    "You work at a terminal. Do what is asked by shell commands (bash), change and leave behind nothing else, and call "
    "submit when it is done."
)
SPLITS = {"train": 0.6, "validation": 0.2, "test": 0.2}
COUNTS = {"train": 400, "validation": 100, "test": 100}
NUMBERS = range(1000, 10000)
MOST = 1500

LOOK = """
import json, os, sys
found, size = {}, 0
for top, directories, names in os.walk("."):
    for name in names + [name for name in directories if os.path.islink(os.path.join(top, name))]:
        path = os.path.relpath(os.path.join(top, name))
        try:
            if os.path.islink(path) or not os.path.isfile(path):
                text = "[no regular file]"
            else:
                size += os.path.getsize(path)
                text = open(path, "rb").read().decode("utf-8", "replace") if size <= 100000 else sys.exit(1)
        except OSError:
            text = "[can't be read]"
        found[os.fsencode(path).decode("utf-8", "replace")] = text
        if len(found) > 500:
            sys.exit(1)
json.dump(found, sys.stdout)
"""
"""Run inside: what every file holds, as JSON. Nothing where there is too much."""

_FILES = TypeAdapter(dict[str, str])


class Terminal(Workspace):
    """A shell in a sandbox, and a goal: the files as they have to be, in the item's `goal`."""

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        """Raises:
        InputError: the item lacks the goal, or it is none, or there is nothing to be done.
        """
        super().__init__(task, guard)
        try:
            self._goal = _FILES.validate_python(task.item.get("goal"), strict=True)
        except ValidationError as error:
            raise InputError(f"task {task.id!r}: item.goal are texts by path: {reasons(error)}") from error
        before = task.files
        self._kept = {path for path, text in self._goal.items() if before.get(path) == text}
        self._made = self._goal.keys() - self._kept
        self._gone = before.keys() - self._goal.keys()
        if not self._made and not self._gone:
            raise InputError(f"task {task.id!r}: item.goal is how the files are at the start; there is nothing to do")
        self._files: dict[str, str] = dict(before)
        self._best = 0.0
        self._handed_in = False

    @classmethod
    def tasks(cls, split: str, *, difficulty: Difficulty = "standard", count: int | None = None) -> list[Task]:
        """The first `count` tasks of a split; the same arguments give the same tasks in every process.

        Args:
            split: "train", "validation" or "test".
            difficulty: "easy" are chores that one short command does; "standard" are all kinds; in "hard" two are
                asked for at once.
            count: how many; the default is 400 of "train", 100 of the others.

        Raises:
            InputError: an option that makes no sense.
        """
        if split not in SPLITS:
            raise InputError(f"terminal has no split {split!r}; splits are {', '.join(SPLITS)}")
        if difficulty not in get_args(Difficulty):
            raise InputError(f"difficulty must be one of {', '.join(get_args(Difficulty))}, not {difficulty!r}")
        count = COUNTS[split] if count is None else count
        if not 0 <= count <= MOST:
            raise InputError(f"count is a number of tasks from 0 to {MOST}, not {count!r}")
        numbers = random.Random("terminal").sample(NUMBERS, len(NUMBERS))
        mine = (number for number in numbers if split_of(f"chore {number}", SPLITS) == split)
        return [_task(number, difficulty) for number in itertools.islice(mine, count)]

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        """The assistant messages of a perfect episode: a command for each chore, then submit."""
        return script([*(("shell", {"command": line}) for line in task.item["commands"]), ("submit", {})])

    def state(self) -> Mapping[str, Any]:
        """The files, text by path, when `submit` was called; as they should be; and how they became so.

        The task is solved when `files` equals `goal`. `steps` holds one record per executed call. A command that
        spoils a file that was to stay is a violation, and also one that is mended later.
        """
        return {"files": self._files if self._handed_in else {}, "goal": self._goal} | self.steps.account()

    @tool(timeout=120)
    async def shell(self, command: str) -> str:
        """Run a shell command where the files are.

        Args:
            command: for bash.
        """
        try:
            said = as_output(await self.bash(command), self.shown)
        except ToolError:
            self.steps.note()
            raise
        before, self._files = self._files, await self._look()
        spoilt = sorted(path for path in self._kept if self._changed(path) and before.get(path) == self._goal[path])
        self.steps.note(
            progress=self._progress(),
            violation=f"{spoilt[0]} was to stay as it was" if spoilt else None,
            like=[command, said],
        )
        return said

    @tool(timeout=120)
    async def submit(self) -> str:
        """Say that the files are as they should be. This ends the task."""
        if self.done:
            self.steps.note()
            raise ToolError("the task has ended.")
        try:
            await self.halt()
        except ToolError:
            self.steps.note()
            raise
        self._files = await self._look()
        self.done = self._handed_in = True
        self.steps.note(progress=self._progress())
        return "ok"

    async def _look(self) -> dict[str, str]:
        """What every file holds; nothing where that can't be seen, as with the sandbox gone or too much in it."""
        try:
            result = await self.exec([self.sandboxes.python, "-I", "-c", LOOK])
        except ToolError:
            return {}
        try:
            return _FILES.validate_json(result.stdout, strict=True) if result.ok else {}
        except ValidationError:
            return {}

    def _changed(self, path: str) -> bool:
        return self._files.get(path) != self._goal[path]

    def _progress(self) -> float:
        """The share of what was to be done that is done, beyond the best so far."""
        if any(map(self._changed, self._kept)):
            return 0.0
        made = [not self._changed(path) for path in self._made] or [path not in self._files for path in self._gone]
        best, self._best = self._best, max(self._best, sum(made) / len(made))
        return self._best - best


def _task(number: int, difficulty: Difficulty) -> Task:
    rng = random.Random(f"terminal {difficulty} {number}")
    kinds = rng.sample(PLAIN if difficulty == "easy" else CHORES, 2 if difficulty == "hard" else 1)
    chores = [kind(rng) for kind in kinds]
    beside = {name: lines(rng) for name in ("README.md", f"notes-{number}.txt", "src/main.py")}
    listed = [chore.text if len(chores) == 1 else f"{n}. {chore.text}" for n, chore in enumerate(chores, 1)]
    made = Task.ask(
        f"Ticket {number}. " + "\n".join(listed),
        system=SYSTEM,
        goal=beside | _together(chore.goal for chore in chores),
        commands=[chore.command for chore in chores],
        wrong=[chore.wrong for chore in chores],
    )
    return Task(id=made.id, prompt=made.prompt, item=made.item, files=beside | _together(c.files for c in chores))


def _together(trees: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {path: text for tree in trees for path, text in tree.items()}
