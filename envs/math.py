"""Word problems with a calculator: generated ones, and those of files in the format of GSM8K.

A generated problem is a story: how it begins, what happens then, and what is asked. Each step of it is
a calculation; a call that makes one of them, from numbers that the story or an earlier step gave, is
progress. The last number of the answer decides.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from envs.environment import Environment, tool
from envs.errors import InputError, ToolError
from envs.formula import as_number, evaluate
from envs.guard import Guard
from envs.script import script
from envs.tasks import collect, jsonl_rows, split_of
from envs.types import Message, Task, ToolCall, ToolResult

SYSTEM = "Solve the problem with the calculator. Then answer with the number alone."
SPLITS = {"train": 0.7, "validation": 0.15, "test": 0.15}
COUNTS = {"train": 1000, "validation": 200, "test": 200}
MOST_STEPS = 8
MOST = 2000

FINAL = re.compile(r"####\s*\$?(-?[\d,]*\.?\d+)\s*$", re.ASCII)
ANNOTATED = re.compile(r"<<([^<>=]+)=[^<>]*>>")
WRITTEN = re.compile(r"\d[\d,]*(?:\.\d+)?", re.ASCII)

Part = tuple[str, list[str], int]
"""What the story says, the calculations it takes, and how many there are then."""


class Math(Environment):
    """One problem, one tool, a number for an answer."""

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        super().__init__(task, guard)
        try:
            due = [evaluate(expression) for expression in task.item.get("calls", ())]
        except ToolError as error:
            raise InputError(f"task {task.id!r}: item.calls: {error}") from error
        self._due = [value for value, _, _ in due]
        """What the steps that are left come to."""
        self._known = {Fraction(n.replace(",", "")) for m in task.prompt for n in WRITTEN.findall(m.content)}
        """What a step may start from: the problem's numbers, and those that its steps bring in (100 of percent)."""
        for step, (_, numbers, _) in enumerate(due):
            self._known.update(number for number in numbers if number not in self._due[:step])
        self._steps: list[dict[str, Any]] = []
        self._seen: set[str] = set()

    @classmethod
    def tasks(
        cls,
        split: str,
        *,
        steps: Sequence[int] = (1, 3),
        files: Mapping[str, str] | None = None,
        count: int | None = None,
    ) -> list[Task]:
        """The first `count` tasks of a split; the same arguments give the same tasks in every process.

        A generated task is in one split only, by a hash of its id, whatever the other arguments.

        Args:
            split: "train", "validation" or "test".
            steps: fewest and most things that happen between the beginning of a story and its question.
            files: split -> a file in the format of GSM8K to take instead: JSONL with `question`, and
                `answer` that ends in "#### 42".
            count: how many; the default is 1000 of "train", 200 of the others, and all that a file has.

        Raises:
            InputError: an option that makes no sense, or a file that can't be used.
        """
        if files is not None:
            if split not in files:
                raise InputError(f"files names no file for split {split!r}, only for {', '.join(files) or 'none'}")
            return gsm8k(Path(files[split]))[:count]
        if split not in SPLITS:
            raise InputError(f"math has no split {split!r}; splits are {', '.join(SPLITS)}")
        if len(steps) != 2 or not 0 <= steps[0] <= steps[1] <= MOST_STEPS:
            raise InputError(f"steps must be two numbers, fewest and most, from 0 to {MOST_STEPS}, not {steps!r}")
        count = COUNTS[split] if count is None else count
        if not 0 <= count <= MOST:
            raise InputError(f"count is a number of tasks from 0 to {MOST}, not {count!r}")
        mine = (task for task in _distinct(steps[0], steps[1]) if split_of(task.id, SPLITS) == split)
        return list(islice(mine, count))

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        """The assistant messages of a perfect episode: a calculation a turn, then the answer."""
        calls = (("calculate", {"expression": expression}) for expression in task.item["calls"])
        return script(calls, task.item["answer"])

    async def call(self, call: ToolCall) -> ToolResult:
        """Carry out one call, and note whether it made a step of the problem."""
        result = await super().call(call)
        if result.fault in (None, "raised", "timeout"):
            expression = json.loads(call.arguments)["expression"]
            made = "".join(expression.split())
            facts = {"progress": result.fault is None and self._advances(expression), "repeat": made in self._seen}
            self._steps.append({"call_id": call.id, "tool": call.name} | facts)
            self._seen.add(made)
        return result

    def state(self) -> Mapping[str, Any]:
        """What was calculated, one record per executed call, in `steps`."""
        return {"steps": self._steps}

    @tool
    async def calculate(self, expression: str) -> int | float:
        """Work out an arithmetic expression.

        Args:
            expression: numbers, + - * / // % ** and brackets, as in "(12 + 3) * 4".
        """
        return as_number(evaluate(expression)[0])

    def _advances(self, expression: str) -> bool:
        """Whether an expression makes a step that is left; it settles the steps before that one, too."""
        value, numbers, operations = evaluate(expression)
        if not operations or value not in self._due or not self._known.issuperset(numbers):
            return False
        self._known.add(value)
        self._due = self._due[self._due.index(value) + 1 :]
        return True


def gsm8k(path: Path) -> list[Task]:
    """The tasks of a file in the format of GSM8K (arXiv 2110.14168): their `calls` are the <<48/2=24>> of the answer.

    Raises:
        InputError: the file can't be read, or a line has no question or no answer that ends in "#### 42".
    """
    rows = ((f"{path}, line {number}", row) for number, row in jsonl_rows(path))
    return collect(((where, _row(row, where)) for where, row in rows), str(path), prompt="question", system=SYSTEM)


def _row(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or not isinstance(row.get("answer"), str):
        raise InputError(f"{where}: expected an object with the texts question and answer")
    found = FINAL.search(row["answer"])
    if found is None:
        raise InputError(f"{where}: the answer must end in its number, as in '#### 42'")
    calls = [expression for expression in ANNOTATED.findall(row["answer"]) if _works(expression)]
    return {"question": row["question"], "answer": found[1].replace(",", ""), "solution": row["answer"], "calls": calls}


def _works(expression: str) -> bool:
    """Whether the calculator can do what an annotation says; some hold words or units."""
    try:
        return evaluate(expression)[2] > 0
    except ToolError:
        return False


def _distinct(fewest: int, most: int) -> Iterator[Task]:
    """All the tasks there are, no two the same, in a fixed and well-mixed order."""
    rng = random.Random(f"math {fewest} {most}")
    seen: set[str] = set()
    while True:
        task = _story(rng, rng.randint(fewest, most))
        calls = task.item["calls"]
        if task.id not in seen and len(set(calls)) == len(calls):  # a step made twice would look like a repeat
            seen.add(task.id)
            yield task


def _story(rng: random.Random, events: int) -> Task:
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    text, calls, total = rng.choice(BEGINNINGS)(rng)
    said = [text]
    for _ in range(events):
        text, more, total = rng.choice([event for event in EVENTS if _fits(event, total)])(rng, total)
        said.append(text)
        calls = calls + more
    text, more, total = rng.choice(QUESTIONS)(rng, total)
    question = " ".join([*said, text]).format(name=name, things=things)
    return Task.ask(question, system=SYSTEM, answer=str(total), calls=calls + more)


Event = Callable[[random.Random, int], Part]


def _fits(event: Event, total: int) -> bool:
    """Whether it can happen to so many."""
    if event is _half:
        return total % 2 == 0 and total > 3
    if event is _break:
        return total % 20 == 0
    return total > 9 if event in (_give, _lose) else total < 2000


def _boxes(rng: random.Random) -> Part:
    a, b = rng.randint(3, 20), rng.randint(4, 30)
    return f"{{name}} buys {a} boxes with {b} {{things}} each.", [f"{a} * {b}"], a * b


def _finds(rng: random.Random) -> Part:
    a, b = rng.randint(10, 90), rng.randint(5, 60)
    return f"{{name}} has {a} {{things}} and finds {b} more.", [f"{a} + {b}"], a + b


def _twice(rng: random.Random) -> Part:
    a, k = rng.randint(5, 40), rng.randint(2, 5)
    text = f"On Monday {{name}} makes {a} {{things}}, and on Tuesday {k} times as many."
    return text, [f"{a} * {k}", f"{a} + {a * k}"], a + a * k


def _give(rng: random.Random, total: int) -> Part:
    c = rng.randint(2, total // 2)
    return f"{{name}} gives {c} of them to a neighbour.", [f"{total} - {c}"], total - c


def _lose(rng: random.Random, total: int) -> Part:
    c, d = rng.randint(1, total // 4), rng.randint(1, total // 4)
    text = f"Of these, {c} get lost and {d} are stolen."
    return text, [f"{c} + {d}", f"{total} - {c + d}"], total - c - d


def _get(rng: random.Random, total: int) -> Part:
    c = rng.randint(3, 50)
    return f"Then {{name}} gets {c} more.", [f"{total} + {c}"], total + c


def _half(rng: random.Random, total: int) -> Part:
    return "Half of them are sold.", [f"{total} / 2"], total // 2


def _break(rng: random.Random, total: int) -> Part:
    p = rng.choice((5, 10, 15, 20, 25, 40))
    part = total * p // 100
    return f"Then {p} percent of them break.", [f"{total} * {p} / 100", f"{total} - {part}"], total - part


def _days(rng: random.Random, total: int) -> Part:
    c, d = rng.randint(2, 12), rng.randint(2, 9)
    text = f"For {d} days, {c} more arrive every day."
    return text, [f"{c} * {d}", f"{total} + {c * d}"], total + c * d


def _left(rng: random.Random, total: int) -> Part:
    c = rng.randint(1, 40)
    text = f"How many {{things}} does {{name}} have, when a friend adds {c}?"
    return text, [f"{total} + {c}"], total + c


def _earn(rng: random.Random, total: int) -> Part:
    price = rng.randint(2, 9)
    text = f"Each of the {{things}} that are left sells for {price} dollars. How many dollars is that in all?"
    return text, [f"{total} * {price}"], total * price


def _bags(rng: random.Random, total: int) -> Part:
    size = rng.randint(2, 9)
    text = f"{{name}} packs what is left into bags of {size}. How many full bags are there?"
    return text, [f"{total} // {size}"], total // size


def _over(rng: random.Random, total: int) -> Part:
    size = rng.randint(3, 9)
    text = f"{{name}} shares what is there out to {size} children, all the same. How many {{things}} remain?"
    return text, [f"{total} % {size}"], total % size


BEGINNINGS: tuple[Callable[[random.Random], Part], ...] = (_boxes, _finds, _twice)
EVENTS: tuple[Event, ...] = (_give, _lose, _get, _half, _break, _days)
QUESTIONS: tuple[Event, ...] = (_left, _earn, _bags, _over)
NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun")
THINGS = ("pens", "apples", "cards", "stamps", "bricks", "candles", "shells", "books", "marbles", "roses")
