"""What the server knows, in one SQLite file: files, jobs, their events and checkpoints.

What a method has returned from is on the disk: a server that is killed knows it when it is started again. Times are
Unix seconds. Values that nothing is looked up by are JSON.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Wish = Literal["pause", "cancel"]
Level = Literal["info", "warn", "error"]

ENDED: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL, bytes INTEGER NOT NULL,
    filename TEXT NOT NULL, purpose TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL, status TEXT NOT NULL,
    wish TEXT, model TEXT NOT NULL, fine_tuned_model TEXT UNIQUE, finished_at INTEGER, body TEXT NOT NULL,
    method TEXT NOT NULL, seed INTEGER NOT NULL, result_files TEXT NOT NULL, error TEXT, trained_tokens INTEGER
);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, job TEXT NOT NULL REFERENCES jobs(id),
    cause TEXT NOT NULL, created_at INTEGER NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL,
    data TEXT, UNIQUE (job, cause)
);
CREATE TABLE IF NOT EXISTS checkpoints (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, job TEXT NOT NULL REFERENCES jobs(id),
    created_at INTEGER NOT NULL, step INTEGER NOT NULL, model TEXT UNIQUE NOT NULL, metrics TEXT NOT NULL,
    UNIQUE (job, step)
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An uploaded file, or one of results; its bytes lie below its id."""

    id: str
    created_at: int
    bytes: int
    filename: str
    """As the client called it; nothing on the disk is named by it."""
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A fine-tuning job as it stands."""

    id: str
    created_at: int
    status: Status
    model: str
    """The base model, by the name that the client used."""
    body: Mapping[str, Any]
    """The request that created it."""
    method: Mapping[str, Any]
    """Of the request, with what was `auto` resolved."""
    seed: int
    wish: Wish | None = None
    """What was asked of a job while it ran, until it has come to that."""
    fine_tuned_model: str | None = None
    finished_at: int | None = None
    result_files: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None
    trained_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job, said once: of one cause there is one event."""

    id: str
    job: str
    cause: str
    created_at: int
    level: Level
    message: str
    type: Literal["message", "metrics"]
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model that a job made on its way, and what it was worth on the validation rows."""

    id: str
    job: str
    created_at: int
    step: int
    model: str
    """What it is called in requests."""
    metrics: Mapping[str, Any] = field(default_factory=dict)


Row = TypeVar("Row", File, Job, Event, Checkpoint)
TABLES: dict[type[Any], str] = {File: "files", Job: "jobs", Event: "events", Checkpoint: "checkpoints"}
AS_JSON = frozenset({"body", "method", "result_files", "error", "data", "metrics"})


def new_id(prefix: str) -> str:
    """An id that nobody has: the prefix and 24 hex digits."""
    return f"{prefix}-{uuid.uuid4().hex[:24]}"


def now() -> int:
    """Unix seconds."""
    return int(time.time())


class Store:
    """The one SQLite file. Any thread may call it; one at a time is served."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)

    def add(self, *rows: File | Job | Event | Checkpoint) -> None:
        """Keep what is new, all of it or nothing. What is there of the same id, cause or step stays as it was."""
        with self._transaction() as db:
            for row in rows:
                _insert(db, row)

    def get(self, kind: type[Row], id: str) -> Row | None:
        """The one of this id."""
        return next(iter(self._select(kind, "WHERE id = ?", [id])), None)

    def page(
        self, kind: type[Row], *, after: str | None, limit: int, newest_first: bool = True, **equal: Any
    ) -> list[Row] | None:
        """Up to `limit` that follow the one with the id `after` (None: from the start); None if there is no such id."""
        if after is not None and self.get(kind, after) is None:
            return None
        where = [f"{name} = ?" for name in equal]
        values: list[Any] = list(equal.values())
        if after is not None:
            where.append(f"seq {'<' if newest_first else '>'} (SELECT seq FROM {TABLES[kind]} WHERE id = ?)")
            values.append(after)
        clause = f"WHERE {' AND '.join(where)}" if where else ""
        order = "DESC" if newest_first else "ASC"
        return self._select(kind, f"{clause} ORDER BY seq {order} LIMIT ?", [*values, limit])

    def all(self, kind: type[Row], **equal: Any) -> list[Row]:
        """Every one with these values, in the order in which they came."""
        where = " AND ".join(f"{name} = ?" for name in equal) or "1"
        return self._select(kind, f"WHERE {where} ORDER BY seq", list(equal.values()))

    def jobs_in(self, *statuses: Status) -> list[Job]:
        """Jobs that stand so, oldest first."""
        marks = ", ".join("?" * len(statuses))
        return self._select(Job, f"WHERE status IN ({marks}) ORDER BY seq", list(statuses))

    def move(
        self,
        job: str,
        to: Status | None = None,
        *,
        expect: Iterable[Status],
        tell: Iterable[Event] = (),
        **changes: Any,
    ) -> Job | None:
        """Change a job if it stands as expected, all at once; None if it does not.

        Args:
            to: its new status; None leaves it.
            expect: the statuses it may have.
            tell: events that are kept with the change, or not at all.
            changes: fields of `Job`.
        """
        values = _written(({"status": to} if to else {}) | changes)
        expected = list(expect)
        sets = ", ".join(f"{name} = ?" for name in values)
        marks = ", ".join("?" * len(expected))
        with self._transaction() as db:
            done = db.execute(
                f"UPDATE jobs SET {sets} WHERE id = ? AND status IN ({marks})", [*values.values(), job, *expected]
            )
            for event in tell if done.rowcount else ():
                _insert(db, event)
        return self.get(Job, job) if done.rowcount == 1 else None

    def remove(self, kind: type[Row], id: str) -> bool:
        """Forget one; False if there was none."""
        with self._transaction() as db:
            return db.execute(f"DELETE FROM {TABLES[kind]} WHERE id = ?", [id]).rowcount == 1

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        with self._lock:
            self._db.close()

    def _select(self, kind: type[Row], clause: str, values: list[Any]) -> list[Row]:
        names = [one.name for one in fields(kind)]
        with self._lock:
            found = self._db.execute(f"SELECT {', '.join(names)} FROM {TABLES[kind]} {clause}", values).fetchall()
        return [_row(kind, row) for row in found]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _insert(db: sqlite3.Connection, row: File | Job | Event | Checkpoint) -> None:
    values = _columns(row)
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    db.execute(
        f"INSERT INTO {TABLES[type(row)]} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING", list(values.values())
    )


def _columns(row: File | Job | Event | Checkpoint) -> dict[str, Any]:
    return _written({one.name: getattr(row, one.name) for one in fields(row)})


def _written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as columns have them."""
    return {name: json.dumps(v) if name in AS_JSON and v is not None else v for name, v in values.items()}


def _row(kind: type[Row], row: sqlite3.Row) -> Row:
    values: dict[str, Any] = {name: row[name] for name in row.keys()}  # noqa: SIM118 (iterating gives values)
    for name in AS_JSON & values.keys():
        if values[name] is not None:
            values[name] = json.loads(values[name])
    if "result_files" in values:
        values["result_files"] = tuple(values["result_files"])
    return kind(**values)
