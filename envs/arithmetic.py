"""Sums to be worked out with a calculator: the smallest environment, with pure tools and a note of each call."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

from envs.environment import Environment, tool
from envs.errors import InputError
from envs.guard import Guard
from envs.script import script
from envs.tasks import split_of
from envs.types import Message, Task, ToolCall, ToolResult

SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
NUMBERS = range(2, 100)


class Arithmetic(Environment):
    """One question, three tools, an integer for an answer."""

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        super().__init__(task, guard)
        self._due = [tuple(call) for call in task.item.get("calls", ())]
        self._steps: list[dict[str, Any]] = []
        self._seen: set[tuple[Any, ...]] = set()

    @classmethod
    def tasks(cls, split: str, *, steps: int = 1, count: int | None = None) -> list[Task]:
        """The first `count` tasks of a split; the same arguments give the same tasks in every process.

        A task is in one split only, by a hash of its id, whatever the other arguments.

        Args:
            split: "train", "validation" or "test".
            steps: how many operations a question chains, each on the result of the last.
            count: how many; the default is 1000 of "train", 200 of the others.

        Raises:
            InputError: an option that makes no sense.
        """
        if split not in SPLITS:
            raise InputError(f"arithmetic has no split {split!r}; splits are {', '.join(SPLITS)}")
        if not 1 <= steps <= 20:
            raise InputError(f"steps is a number of operations from 1 to 20, not {steps!r}")
        count = (1000 if split == "train" else 200) if count is None else count
        if not 0 <= count <= 2000:
            raise InputError(f"count is a number of tasks from 0 to 2000, not {count!r}")
        mine = (task for task in _distinct(steps) if split_of(task.id, SPLITS) == split)
        return list(itertools.islice(mine, count))

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        """The assistant messages of a perfect episode: a call a turn, then the answer."""
        return script(((name, {"a": a, "b": b}) for name, a, b in task.item["calls"]), task.item["answer"])

    async def call(self, call: ToolCall) -> ToolResult:
        """Carry out one call, and note whether it was the one that the question needed next."""
        result = await super().call(call)
        if result.fault in (None, "raised", "timeout"):
            made = (call.name, *self.tools()[call.name].parse(call.arguments).values())
            progress = self._due[:1] == [made]
            self._due = self._due[progress:]
            facts = {"progress": progress, "repeat": made in self._seen}
            self._steps.append({"call_id": call.id, "tool": call.name} | facts)
            self._seen.add(made)
        return result

    def state(self) -> Mapping[str, Any]:
        """What was called, one record per executed call, in `steps`."""
        return {"steps": self._steps}

    @tool
    def add(self, a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    @tool
    def subtract(self, a: int, b: int) -> int:
        """Subtract b from a."""
        return a - b

    @tool
    def multiply(self, a: int, b: int) -> int:
        """Multiply two integers."""
        return a * b


def _distinct(steps: int) -> Iterator[Task]:
    """All the tasks there are, no two the same, in a fixed and well-mixed order."""
    rng = random.Random(f"arithmetic {steps}")
    seen: set[str] = set()
    while True:
        task = _task(rng, steps)
        if task.id not in seen:
            seen.add(task.id)
            yield task


def _task(rng: random.Random, steps: int) -> Task:
    """A chain such as ((12 + 3) * 4) - 5, worked out from the inside."""
    result = rng.choice(NUMBERS)
    text = str(result)
    calls: list[tuple[str, int, int]] = []
    for _ in range(steps):
        name, b = rng.choice(list(SIGNS)), rng.choice(NUMBERS)
        text = f"{f'({text})' if calls else text} {SIGNS[name]} {b}"
        calls.append((name, result, b))
        result = {"add": result + b, "subtract": result - b, "multiply": result * b}[name]
    return Task.ask(f"What is {text}?", answer=str(result), calls=calls)
