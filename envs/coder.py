"""The coder: write a small Python function, or find what is wrong with one, in a sandbox of one's own.

The model sees what the function should do and a few examples; tests that it is not shown decide. Only the text of
`solution.py` leaves its sandbox: each round of tests runs in a fresh one, where neither the tests nor what is right can
be found or changed (see `envs.trials`). Progress is the share of hidden tests newly passed, so that a solution that
knows nothing but the examples earns nothing.

A function belongs to exactly one split, by a hash of its source, whether it is to be written or mended.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from envs.environment import tool
from envs.errors import InputError, ToolError, reasons
from envs.functions import FAMILIES, Function
from envs.guard import Guard
from envs.mutations import mutants, plain
from envs.sandbox.text import for_model
from envs.script import Call, script
from envs.tasks import split_of
from envs.trials import FILE, Trial, tried
from envs.types import Message, Task
from envs.workspace import Workspace, as_output

Difficulty = Literal["easy", "standard", "hard"]
Test = tuple[list[Any], Any]
"""Arguments, and what is to be returned."""

SYSTEM = (
    f"You are a programmer. The function belongs into {FILE}. Write the file, try it out, run the tests, and call "
    "submit when you are done: tests that you have not seen decide."
)
SPLITS = {"train": 0.6, "validation": 0.2, "test": 0.2}
COUNTS = {"train": 400, "validation": 100, "test": 100}
MOST = 400
EXAMPLES = "examples.py"
VISIBLE, HIDDEN = 4, 12
LONGEST = 100_000
"""Characters of a solution."""

_TESTS = TypeAdapter(list[Test])
_FAULTS = (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError)


class Coder(Workspace):
    """One function, in a file, and tests. Of the item it reads `function`, `visible`, `hidden` and `passing`."""

    trial_seconds = 10.0
    """How long a round of tests may take."""

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        """Raises:
        InputError: the item lacks the function's name or its tests, or they are none.
        """
        super().__init__(task, guard)
        self._function = task.item.get("function")
        if not isinstance(self._function, str) or not self._function.isidentifier():
            raise InputError(f"task {task.id!r}: item.function is the name of a function, not {self._function!r}")
        self._visible, self._hidden = _tests(task, "visible"), _tests(task, "hidden")
        if not self._hidden:
            raise InputError(f"task {task.id!r}: item.hidden is empty; without a test nothing can be right")
        self._best = int(task.item.get("passing", 0))
        self._passed = 0
        self._source: str | None = None

    @classmethod
    def tasks(cls, split: str, *, difficulty: Difficulty = "standard", count: int | None = None) -> list[Task]:
        """The first `count` tasks of a split; the same arguments give the same tasks in every process.

        Args:
            split: "train", "validation" or "test".
            difficulty: in "easy" a function has one mistake, which the examples show; in "standard" every other
                function is to be written; in "hard" the examples do not show the mistake, and there is one alone for
                a function to write.
            count: how many; the default is 400 of "train", 100 of the others.

        Raises:
            InputError: an option that makes no sense.
        """
        if split not in SPLITS:
            raise InputError(f"coder has no split {split!r}; splits are {', '.join(SPLITS)}")
        if difficulty not in get_args(Difficulty):
            raise InputError(f"difficulty must be one of {', '.join(get_args(Difficulty))}, not {difficulty!r}")
        count = COUNTS[split] if count is None else count
        if not 0 <= count <= MOST:
            raise InputError(f"count is a number of tasks from 0 to {MOST}, not {count!r}")
        return list(itertools.islice(_distinct(split, difficulty), count))

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        """The assistant messages of a perfect episode: look, write, test, submit."""
        write: Call = ("write", {"path": FILE, "content": task.item["solution"]})
        return script([("read", {"path": FILE}), write, ("test", {}), ("submit", {})])

    def state(self) -> Mapping[str, Any]:
        """What was submitted and how many hidden tests it passes.

        The task is solved when `passed` equals `tests`. `steps` holds one record per executed call; a round of tests
        is progress by the share of hidden tests by which it goes beyond the best before it, what was there at the
        start and what a constant would pass included.
        """
        return {"passed": self._passed, "tests": len(self._hidden), "source": self._source} | self.steps.account()

    @tool(timeout=120)
    async def read(self, path: str) -> str:
        """Show a file.

        Args:
            path: its name, as in "solution.py".
        """
        text = await self._done(self.read_text(path))
        self.steps.note(like=[path, text])
        return for_model(text.encode(), self.shown)

    @tool(timeout=120)
    async def write(self, path: str, content: str) -> str:
        """Make or replace a file.

        Args:
            path: its name, as in "solution.py".
            content: all of its text.
        """
        await self._done(self.write_text(path, content))
        self.steps.note()
        return "ok"

    @tool(timeout=120)
    async def run(self, command: str) -> str:
        """Run a shell command where the files are.

        Args:
            command: as in "python3 examples.py".
        """
        said = as_output(await self._done(self.bash(command)), self.shown)
        self.steps.note(like=[command, said])
        return said

    @tool(timeout=120)
    async def test(self) -> str:
        """Run the examples on solution.py as it is now."""
        source = await self._done(self._solution())
        visible, hidden = await self._try(source, self._visible), await self._try(source, self._hidden)
        self.steps.note(progress=self._progress(hidden), like=source)
        failed = [
            f"{shown(self._function, arguments)} {trial.said}; right is {json.dumps(right)}"
            for (arguments, right), trial in zip(self._visible, visible, strict=True)
            if not trial.passed
        ]
        return "\n".join([f"{len(visible) - len(failed)} of {len(visible)} examples are right.", *failed])

    @tool(timeout=120)
    async def submit(self) -> str:
        """Hand in solution.py as it is now. This ends the task."""
        if self.done:
            self.steps.note()
            raise ToolError("the task has ended.")
        source = await self._done(self._solution())
        hidden = await self._try(source, self._hidden)
        self.done = True
        self._source, self._passed = source, sum(trial.passed for trial in hidden)
        self.steps.note(progress=self._progress(hidden))
        return "ok"

    async def _done(self, work: Any) -> Any:
        """What a tool does, noted if it fails."""
        try:
            return await work
        except ToolError:
            self.steps.note()
            raise

    async def _solution(self) -> str:
        source = await self.read_text(FILE)
        if len(source) > LONGEST:
            raise ToolError(f"{FILE} is longer than {LONGEST} characters.")
        return source

    async def _try(self, source: str, tests: Sequence[Test]) -> list[Trial]:
        return await tried(self.sandboxes, source, str(self._function), tests, seconds=self.trial_seconds)

    def _progress(self, hidden: Sequence[Trial]) -> float:
        passed = sum(trial.passed for trial in hidden)
        best, self._best = self._best, max(self._best, passed)
        return (self._best - best) / len(hidden)


def shown(function: Any, arguments: Sequence[Any]) -> str:
    """A call as it is written."""
    return f"{function}({', '.join(map(repr, arguments))})"


def _tests(task: Task, name: str) -> list[Test]:
    try:
        return _TESTS.validate_python(task.item.get(name))
    except ValidationError as error:
        raise InputError(
            f"task {task.id!r}: item.{name} are pairs of arguments and result: {reasons(error)}"
        ) from error


def _distinct(split: str, difficulty: Difficulty) -> Iterator[Task]:
    """All the tasks of a split, no two the same, in a fixed and well-mixed order."""
    rng = random.Random(f"coder {difficulty}")
    seen: set[tuple[str, bool]] = set()
    for number in itertools.count():
        function = FAMILIES[number % len(FAMILIES)](rng)
        seed = rng.random()  # all splits draw alike, whichever of the tasks they make
        mend = difficulty == "easy" or number // len(FAMILIES) % 2 == 0
        if split_of(function.source, SPLITS) != split or (function.source, mend) in seen:
            continue
        task = _task(function, mend, difficulty, random.Random(seed))
        if task is not None:
            seen.add((function.source, mend))
            yield task


def _task(function: Function, mend: bool, difficulty: Difficulty, rng: random.Random) -> Task | None:
    """A task of a function, unless a constant would pass too many tests, or no mistake is of the right size."""
    source = plain(function.source)
    tests = _drawn(function, source, rng)
    if tests is None:
        return None
    hidden, visible = tests[:HIDDEN], tests[HIDDEN:]
    near = (slip for slip in mutants(source, rng) if 3 <= _passing(slip, function.name, hidden) < HIDDEN)
    wrong = list(itertools.islice(near, 3))
    passing = max(Counter(json.dumps(right, sort_keys=True) for _, right in hidden).values())  # by a constant
    if mend:
        shows = difficulty != "hard"
        fit = (s for s in (*wrong, *near) if (_passing(s, function.name, visible) < VISIBLE) == shows)
        start = next(fit, "")
        if not start:
            return None
        passing = max(passing, _passing(start, function.name, hidden))
        asked = f"{function.head} in {FILE} has a mistake; mend it. What it should do: {function.text}"
    else:
        visible = visible[:1] if difficulty == "hard" else visible
        start = f"def {function.head}:\n    raise NotImplementedError"
        asked = f"Write {function.head} in {FILE}. {function.text}"
    examples = [f"{shown(function.name, arguments)} == {right!r}" for arguments, right in visible]
    checks = "".join(f"assert {example}\n" for example in examples)
    files = {FILE: f"{start}\n", EXAMPLES: f"from solution import {function.name}\n\n{checks}"}
    text = "\n".join([asked, "Examples:", *examples])
    item: dict[str, Any] = {"function": function.name, "visible": visible, "hidden": hidden, "passing": passing}
    made = Task.ask(text, system=SYSTEM, **item, start=start, solution=source, wrong=wrong)
    return Task(id=made.id, prompt=made.prompt, item=made.item, files=files)


def _drawn(function: Function, source: str, rng: random.Random) -> list[Test] | None:
    """Tests with different arguments, no more than four of them with the same result."""
    tests, call = list[Test](), _compiled(source, function.name)
    results = Counter[str]()
    known = set[str]()
    for _ in range(120):
        arguments = function.draw(rng)
        key = json.dumps(arguments)
        right = _returned(call, arguments)
        if key in known or results[right] == 4:
            continue
        known.add(key)
        results[right] += 1
        tests.append((arguments, json.loads(right)))
        if len(tests) == HIDDEN + VISIBLE:
            return tests
    return None


def _passing(source: str, name: str, tests: Sequence[Test]) -> int:
    """How many tests one of our own sources passes."""
    call = _compiled(source, name)
    return sum(_returned(call, arguments) == json.dumps(right, sort_keys=True) for arguments, right in tests)


def _compiled(source: str, name: str) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(compile(source, FILE, "exec"), names)
    call: Callable[..., Any] = names[name]
    return call


def _returned(call: Callable[..., Any], arguments: list[Any]) -> str:
    """What one of our own functions returns, as JSON; nothing where it raises."""
    try:
        return json.dumps(call(*copy.deepcopy(arguments)), sort_keys=True)
    except _FAULTS:
        return ""
