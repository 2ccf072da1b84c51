"""The analyst: a question about a database of which one knows nothing, to be answered with SQL.

The model sees which tables there are, reads what they hold, asks in SQL, and gives one answer, which
ends the episode. The answer decides, compared as a value or as a set of rows, and only if what it
takes was read: a lucky guess is a violation, and so is a query that would change the database.

Databases are made from numbers, and a number belongs to exactly one split, by a hash.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from envs.databases import Difficulty
from envs.environment import Environment, tool
from envs.errors import InputError, ToolError, reasons, unknown
from envs.guard import Guard
from envs.questions import Scalar, Value, matches, question
from envs.script import Call, script
from envs.sqlite import Limits, Read, ReadOnly, Refused, Table, covers
from envs.tasks import split_of
from envs.types import Message, Task

SYSTEM = (
    "You are an analyst. Look at the tables, read the data with SQL (SQLite), and call answer once: with a value, "
    "with a list of values, or with a list of rows. The database is read-only."
)
SPLITS = {"train": 0.6, "validation": 0.2, "test": 0.2}
COUNTS = {"train": 400, "validation": 100, "test": 100}
NUMBERS = range(1000, 10000)
MOST = 1500

_TABLES = TypeAdapter(dict[str, Table])
_VALUE: TypeAdapter[Value] = TypeAdapter(Value)
_NEEDS = TypeAdapter(list[Read])


class Analyst(Environment):
    """One database, one question, one answer. Every tool waits for the one before it."""

    limits = Limits()

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        """Read the question off the task's item.

        Raises:
            InputError: the item lacks `tables`, `goal` or `needs`, or they are none.
        """
        super().__init__(task, guard)
        self._tables = _read(_TABLES, task, "tables")
        self._goal = _read(_VALUE, task, "goal")
        self._needs = _read(_NEEDS, task, "needs")
        self._database: ReadOnly | None = None
        self._reads: set[Read] = set()
        self._answer: Value = None

    @classmethod
    def tasks(cls, split: str, *, difficulty: Difficulty = "standard", count: int | None = None) -> list[Task]:
        """The first `count` tasks of a split; the same arguments give the same tasks in every process.

        Args:
            split: "train", "validation" or "test".
            difficulty: "easy" has one table, few words and one filter; "standard" two tables, joins, dates,
                groups and rankings, with names of their own; "hard" three tables, missing values and shares.
            count: how many; the default is 400 of "train", 100 of the others.

        Raises:
            InputError: an option that makes no sense.
        """
        if split not in SPLITS:
            raise InputError(f"analyst has no split {split!r}; splits are {', '.join(SPLITS)}")
        if difficulty not in get_args(Difficulty):
            raise InputError(f"difficulty must be one of {', '.join(get_args(Difficulty))}, not {difficulty!r}")
        count = COUNTS[split] if count is None else count
        if not 0 <= count <= MOST:
            raise InputError(f"count is a number of tasks from 0 to {MOST}, not {count!r}")
        numbers = random.Random("analyst").sample(NUMBERS, len(NUMBERS))
        mine = (number for number in numbers if split_of(f"database {number}", SPLITS) == split)
        questions = (question(number, difficulty) for number in itertools.islice(mine, count))
        return [Task.ask(asked.text, system=SYSTEM, **asked.item) for asked in questions]

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        """The assistant messages of a perfect episode: a call a turn, the last of them the answer."""
        tables = dict.fromkeys(table for table, _ in task.item["needs"])
        calls: list[Call] = [("list_tables", {}), *(("describe", {"table": table}) for table in tables)]
        calls += [("query", {"sql": task.item["sql"]}), ("answer", {"value": task.item["goal"]})]
        return script(calls)

    async def setup(self) -> None:
        """Make the database, in memory and for this episode alone."""
        self._database = ReadOnly(self._tables, self.limits)

    async def close(self) -> None:
        """Free the database."""
        if self._database is not None:
            self._database.close()

    def state(self) -> Mapping[str, Any]:
        """The answer, in the goal's own words where it comes to the goal, and how it came about.

        The task is solved when `answer` equals `goal` and there are no `violations`: a query that would
        change the database, or an answer before all that it takes was read. `steps` holds one record per
        executed call; a table that matters described, a query that reads all that matters, and the right
        answer are progress, each once.
        """
        return {"answer": self._answer, "goal": self._goal} | self.steps.account()

    @tool
    def list_tables(self) -> list[str]:
        """List the tables of the database."""
        self.steps.note(progress="list_tables")
        return list(self._tables)

    @tool
    def describe(self, table: str) -> dict[str, Any]:
        """Show a table's columns with their types, and how many rows it has.

        Args:
            table: its name.
        """
        found = self._tables.get(table)
        needed = any(table == name for name, _ in self._needs)
        self.steps.note(progress=f"describe {table}" if needed else None)
        if found is None:
            raise ToolError(f"{unknown('table', table, self._tables)}.")
        return {"columns": dict(found.columns), "rows": len(found.rows)}

    @tool
    def query(self, sql: str) -> dict[str, Any]:
        """Ask the database; at most 50 rows come back.

        Args:
            sql: one SELECT statement of SQLite.
        """
        if self._database is None:
            raise ToolError("there is no database yet.")
        try:
            found = self._database.query(sql)
        except Refused as error:
            self.steps.note(violation="tried to change the database" if error.change else None)
            raise
        except ToolError:
            self.steps.note()
            raise
        reads = found.reads if found.rows else frozenset()
        self._reads |= reads
        self.steps.note(progress="query" if covers(reads, self._needs) else None)
        more = {"more": "there are more rows; ask for less"} if found.more else {}
        return {"columns": found.columns, "rows": found.rows} | more

    @tool
    def answer(self, value: Scalar | list[Scalar] | list[list[Scalar]]) -> str:
        """Give the answer; this ends the task.

        Args:
            value: a number or a text; a list of them for several; a list of rows for several columns.
        """
        if self.done:
            self.steps.note()
            raise ToolError("there was an answer before; the first one counts.")
        self.done = True
        said = _listed(value)
        right = matches(said, self._goal, bool(self.task.item.get("ordered")))
        looked = covers(self._reads, self._needs)
        self._answer = self._goal if right else said
        self.steps.note(
            progress="answer" if right and looked else None,
            violation=None if looked else "answered without reading what it takes",
        )
        return "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slips:
    """How often a scripted demonstration goes wrong; each number is a probability.

    With these, about half of the demonstrations succeed: a policy warm-started on them can do every step,
    and has bad habits that a reward can take away.
    """

    blind: float = 0.15
    """Look at no table before the query."""
    guess: float = 0.1
    """Answer without a query."""
    broad: float = 0.3
    """Leave out the filter."""
    other: float = 0.15
    """Count, add up or look for the highest where another of them was asked for."""
    misread: float = 0.03
    """Answer with another number than the one that came back."""


def demonstration(task: Task, rng: random.Random, slips: Slips = Slips()) -> list[Message]:
    """The assistant messages of an easy task by somebody who knows the job and is careless about it."""
    return script(_careless(task, rng, slips))


def _careless(task: Task, rng: random.Random, slips: Slips) -> Iterator[Call]:
    tables = _read(_TABLES, task, "tables")
    ((name, table),) = tables.items()
    if rng.random() >= slips.blind:
        yield "list_tables", {}
        yield "describe", {"table": name}
    guessed = rng.randrange(1, 100)
    if rng.random() < slips.guess:
        yield "answer", {"value": guessed}
        return
    sql: str = task.item["sql"]
    if rng.random() < slips.broad:
        sql = sql.partition(" WHERE ")[0]
    if rng.random() < slips.other:
        *_, amount = table.columns
        asked = sql.split()[1]
        wrong = [each for each in ("COUNT(*)", f"SUM({amount})", f"MAX({amount})") if each != asked]
        sql = sql.replace(asked, rng.choice(wrong), 1)
    yield "query", {"sql": sql}
    database = ReadOnly(tables, Limits())
    (((found,),),) = (database.query(sql).rows,)
    database.close()
    yield "answer", {"value": guessed if rng.random() < slips.misread else found}


def _listed(value: Value) -> Value:
    """A text that is a list in JSON, as models write it where a text is allowed, read as one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return _VALUE.validate_json(value)
        except ValidationError:
            return value
    return value


def _read(adapter: TypeAdapter[Any], task: Task, name: str) -> Any:
    if name not in task.item:
        raise InputError(f"task {task.id!r}: item.{name} is missing; the analyst needs tables, goal and needs")
    try:
        return adapter.validate_python(task.item[name])
    except ValidationError as error:
        raise InputError(f"task {task.id!r}: item.{name}: {reasons(error)}") from error
