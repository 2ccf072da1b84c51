"""A SQLite database in memory that a model may question and can't change, hold up or blow up.

Three layers, each enough against writing: the connection is `query_only`; an authorizer admits nothing
but SELECT over the tables there are; and nothing but this one connection knows the database. Values,
statements, instructions, seconds, rows and characters are limited, so that any query ends soon.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs.errors import InputError, ToolError

Read = tuple[str, str]
"""A table and a column of it; the column is empty where only its rows are counted."""

ADMITTED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
LOOKING = (sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_PRAGMA)
"""Refused where they go too far, and yet no attempt to change anything."""
CATALOGUE = ("sqlite_master", "sqlite_temp_master")
# fmt: off
FUNCTIONS = frozenset((
    "count", "sum", "total", "avg", "min", "max", "group_concat", "abs", "sign", "round", "ceil", "ceiling",
    "floor", "sqrt", "pow", "power", "mod", "length", "lower", "upper", "trim", "ltrim", "rtrim", "substr",
    "substring", "replace", "instr", "coalesce", "ifnull", "nullif", "iif", "typeof", "like", "glob", "date",
    "time", "datetime", "julianday", "unixepoch", "strftime", "row_number", "rank", "dense_rank", "percent_rank",
    "cume_dist", "ntile", "lag", "lead", "first_value", "last_value", "nth_value",
))
# fmt: on
"""Those that can be asked. One call of printf can take any time, where neither the clock nor the count looks."""
PLANS = (("addr", "opcode"), ("id", "parent"))
"""How the columns of EXPLAIN and of EXPLAIN QUERY PLAN begin: they read nothing."""
STRIDE = 1000
"""Instructions between two looks at the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one query may use."""

    rows: int = 50
    text: int = 4000
    """Characters of a result as JSON."""
    value: int = 1000
    """Bytes of any value and any row on the way there: it bounds what sorting can pile up."""
    statement: int = 4000
    """Bytes of SQL."""
    instructions: int = 1_000_000
    """Of SQLite's virtual machine; a join of three tables of 50 rows takes about half of them."""
    seconds: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table to be made: column -> SQL type, and rows in the order of the columns."""

    columns: Mapping[str, str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a query came to."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool
    """Whether rows were left off."""
    reads: frozenset[Read]


class Refused(ToolError):
    """A query that is more than a question."""

    def __init__(self, reason: str, *, change: bool) -> None:
        super().__init__(reason)
        self.change = change
        """Whether it would have changed something."""


class ReadOnly:
    """One database. A query at a time, from any thread."""

    def __init__(self, tables: Mapping[str, Table], limits: Limits | None = None) -> None:
        """Make the tables, then lock them.

        Raises:
            InputError: tables that SQLite can't hold.
        """
        self.limits = limits or Limits()
        self._tables = tuple(tables)
        self._reads: set[Read] = set()
        self._denied: int | None = None
        self._busy = threading.Lock()
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            _fill(self._connection, tables)
        except (sqlite3.Error, OverflowError) as error:
            self._connection.close()
            raise InputError(f"these tables can't be made ({error}); each row has one value for each column") from error
        self._lock_up()

    def _lock_up(self) -> None:
        db, limits = self._connection, self.limits
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA query_only = ON")
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.value)
        db.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, limits.statement)
        db.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, 100)
        db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        db.set_authorizer(self._authorize)

    def query(self, sql: str) -> Found:
        """The rows of one SELECT, as many as the limits let through.

        Raises:
            Refused: it does something else than ask.
            ToolError: no SQL that SQLite understands, or a limit was reached.
        """
        with self._busy:
            self._reads.clear()
            self._denied = None
            self._connection.set_progress_handler(self._clock(), STRIDE)
            try:
                cursor = self._connection.execute(sql)
                found = cursor.fetchmany(self.limits.rows + 1)
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:  # ValueError: text that is no UTF-8
                raise self._told(error) from error
            names = tuple(name[:60] for name, *_ in cursor.description or ())
            cursor.close()
            if names[:2] in PLANS:
                self._reads.clear()
            return self._shown(names, found)

    def close(self) -> None:
        """End a query that may still run, and free the memory. A second time does nothing."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # it is closed
            self._connection.interrupt()
        with self._busy:
            self._connection.close()

    def _shown(self, names: tuple[str, ...], found: Sequence[Sequence[Any]]) -> Found:
        rows: list[tuple[Any, ...]] = []
        room = self.limits.text - len(json.dumps(names))
        for row in found[: self.limits.rows]:
            plain = tuple(map(_plain, row))
            room -= len(json.dumps(plain)) + 2
            if room < 0:
                break
            rows.append(plain)
        return Found(columns=names, rows=tuple(rows), more=len(rows) < len(found), reads=frozenset(self._reads))

    def _authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, inner: str | None
    ) -> int:
        counted = action == sqlite3.SQLITE_READ and not second  # only rows: of a table, a WITH, a subquery
        if action == sqlite3.SQLITE_READ and first in (*self._tables, *CATALOGUE):
            self._reads.add((first, second or ""))
            return sqlite3.SQLITE_OK
        if counted or action in ADMITTED or (action == sqlite3.SQLITE_FUNCTION and second in FUNCTIONS):
            return sqlite3.SQLITE_OK
        if self._denied is None:
            # functions that are tables announce themselves to the catalogue, though nothing is stored there
            announced = action == sqlite3.SQLITE_UPDATE and first in CATALOGUE
            self._denied = sqlite3.SQLITE_FUNCTION if announced else action
        return sqlite3.SQLITE_DENY

    def _clock(self) -> Any:
        """A handler that says stop after so many instructions or seconds."""
        left = self.limits.instructions // STRIDE
        end = time.monotonic() + self.limits.seconds

        def stop() -> bool:
            nonlocal left
            left -= 1
            return left < 0 or time.monotonic() > end

        return stop

    def _told(self, error: Exception) -> ToolError:
        if self._denied is not None and self._denied not in LOOKING:
            return Refused("the database is read-only: one SELECT statement, nothing else.", change=True)
        if self._denied is not None:
            return Refused(f"{error}: SELECT from tables, with the usual functions, is all there is.", change=False)
        if str(error) == "interrupted":
            return ToolError("the query took too long and was stopped; ask for less.")
        return ToolError(f"{str(error).rstrip('.')}.")


def _fill(db: sqlite3.Connection, tables: Mapping[str, Table]) -> None:
    for name, table in tables.items():
        columns = ", ".join(f"{_quoted(column)} {kind}" for column, kind in table.columns.items())
        db.execute(f"CREATE TABLE {_quoted(name)} ({columns})")
        places = ", ".join("?" for _ in table.columns)
        db.executemany(f"INSERT INTO {_quoted(name)} VALUES ({places})", table.rows)


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _plain(value: Any) -> Any:
    """A value that JSON has a word for."""
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if value in (float("inf"), float("-inf")) else value


def covers(reads: Iterable[Read], needs: Iterable[Read]) -> bool:
    """Whether what was read holds all that is needed; any column will do where only rows count."""
    reads = set(reads)
    tables = {table for table, _ in reads}
    return all((need in reads) if need[1] else need[0] in tables for need in needs)
