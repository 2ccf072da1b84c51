"""Questions over generated databases: the right query, and the mistakes that each question invites.

A draw counts only where the question has one answer and every mistake comes to another one.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from envs.databases import Difficulty, drawn
from envs.sqlite import ReadOnly, Table

Scalar = str | int | float | None
Value = Scalar | list[Scalar] | list[list[Scalar]]
"""One value; values of one column; or rows."""

HALF_A_CENT = 0.005 + 1e-9
"""Questions ask for two decimals; whole numbers have to be met exactly."""
NUMBER = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A question about any domain, in the words of a draw."""

    asks: str
    sql: str
    wrong: Mapping[str, str]
    """Mistake -> the query it leads to."""
    same: tuple[str, ...] = ()
    """Queries that come to the same unless there are ties."""
    ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with all that is needed to ask, answer and judge it."""

    text: str
    tables: Mapping[str, Table]
    sql: str
    goal: Value
    ordered: bool
    needs: list[tuple[str, str]]
    """Tables and columns that have to be read."""
    wrong: Mapping[str, Value]
    """Mistake -> the answer it leads to."""

    @property
    def item(self) -> dict[str, Any]:
        """What of it goes into a task."""
        made = asdict(self)
        del made["text"]
        return made | {"needs": [list(read) for read in self.needs]}


def question(number: int, difficulty: Difficulty) -> Question:
    """The question of a database, by its number."""
    rng = random.Random(f"database {number} {difficulty}")
    form = rng.choice(FORMS[difficulty])
    while True:
        words, tables = drawn(rng, difficulty)
        text = f"{words['domain']} {number}: {form.asks.format_map(words)}"
        database = ReadOnly(tables)
        try:
            found = _settled(database, form, words)
        finally:
            database.close()
        if found is not None:
            goal, needs, wrong = found
            sql = form.sql.format_map(words)
            return Question(
                text=text, tables=tables, sql=sql, goal=goal, ordered=form.ordered, needs=needs, wrong=wrong
            )


def _settled(
    database: ReadOnly, form: Form, words: Mapping[str, Any]
) -> tuple[Value, list[tuple[str, str]], dict[str, Value]] | None:
    """The answer, what has to be read for it, and the wrong ones; None where the question is not a good one."""
    found = database.query(form.sql.format_map(words))
    goal = value_of(found.rows)
    wrong = {name: value_of(database.query(sql.format_map(words)).rows) for name, sql in form.wrong.items()}
    same = [value_of(database.query(sql.format_map(words)).rows) for sql in form.same]
    empty = not found.rows or any(cell in (None, 0) for row in found.rows for cell in row)
    if empty or any(matches(value, goal, form.ordered) for value in wrong.values()):
        return None
    if not all(matches(value, goal, form.ordered) for value in same):
        return None
    return goal, sorted(found.reads), wrong


def value_of(rows: Sequence[Sequence[Any]]) -> Value:
    """What a result set says: a value where it is one, a list where it is one column."""
    if any(len(row) != 1 for row in rows):
        return [list(row) for row in rows]
    return rows[0][0] if len(rows) == 1 else [row[0] for row in rows]


def matches(said: Value, goal: Value, ordered: bool) -> bool:
    """Whether an answer comes to the goal: numbers give or take half a cent, text without case and spacing.

    A value alone is the same as a list or a row of it. Rows may come in any order unless `ordered`.
    """
    left, right = _rows(said), _rows(goal)
    if len(left) != len(right):
        return False
    if ordered:
        return all(_row_matches(a, b) for a, b in zip(left, right, strict=True))
    for row in left:
        place = next((n for n, other in enumerate(right) if _row_matches(row, other)), None)
        if place is None:
            return False
        del right[place]
    return True


def _rows(value: Value) -> list[list[Scalar]]:
    rows = value if isinstance(value, list) else [value]
    return [row if isinstance(row, list) else [row] for row in rows]


def _row_matches(said: Sequence[Scalar], goal: Sequence[Scalar]) -> bool:
    return len(said) == len(goal) and all(_cell_matches(a, b) for a, b in zip(said, goal, strict=True))


def _cell_matches(said: Scalar, goal: Scalar) -> bool:
    left, right = _plain(said), _plain(goal)
    if isinstance(left, str) or isinstance(right, str) or left is None or right is None:
        return left == right
    return abs(left - right) <= (1e-9 if right == int(right) and isinstance(goal, int) else HALF_A_CENT)


def _plain(cell: Scalar) -> str | float | None:
    """A number where it is or reads as one, as in "1,234.50"; otherwise text without case and spacing."""
    if isinstance(cell, str):
        text = " ".join(cell.casefold().split())
        digits = text.replace(",", "") if any(c.isdigit() for c in text) and NUMBER.fullmatch(text) else ""
        return _finite(digits) if digits else text
    return cell if cell is None else _finite(cell)


def _finite(number: str | int | float) -> str | float:
    try:
        value = float(number)
    except OverflowError:
        return str(number)
    return value if math.isfinite(value) else str(number)


IN_TIME = "{day} BETWEEN '{start}' AND '{end}'"
EARLY = "{day} >= '{start}' AND {day} < '{end}'"
STATUS = "{status} = '{status_is}'"
KIND = "{kind} = '{kind_is}'"
PLACE = "o.{place} = '{place_is}'"
ROWS = "FROM {facts}"
JOINED = "FROM {facts} f JOIN {owners} o ON o.id = f.{owner_id}"
OF_KIND = "FROM {facts} f JOIN {kinds} k ON k.id = f.{kind_id}"
NAMED = "k.{name} = '{kind_is}'"
BY_OWNER = "GROUP BY o.id, o.{name}"
BY_SUM = "ORDER BY SUM({amount}) DESC, o.{name}"
BY_SUM_TIES = "ORDER BY SUM({amount}) DESC, o.{name} DESC"
KINDS_BY_SUM = "GROUP BY k.id, k.{name} ORDER BY SUM({amount}) DESC, k.{name}"

EASY = (
    Form(
        asks="how many {facts} have {status} {status_is}?",
        sql=f"SELECT COUNT(*) {ROWS} WHERE {STATUS}",
        wrong={
            "all rows": f"SELECT COUNT(*) {ROWS}",
            "sum for count": f"SELECT SUM({{amount}}) {ROWS} WHERE {STATUS}",
            "the others": f"SELECT COUNT(*) {ROWS} WHERE NOT {STATUS}",
        },
    ),
    Form(
        asks="what is the sum of {amount} over {facts} with {kind} {kind_is}?",
        sql=f"SELECT SUM({{amount}}) {ROWS} WHERE {KIND}",
        wrong={
            "all rows": f"SELECT SUM({{amount}}) {ROWS}",
            "count for sum": f"SELECT COUNT(*) {ROWS} WHERE {KIND}",
            "another filter": f"SELECT SUM({{amount}}) {ROWS} WHERE {STATUS}",
        },
    ),
    Form(
        asks="what is the highest {amount} of {facts} with {status} {status_is}?",
        sql=f"SELECT MAX({{amount}}) {ROWS} WHERE {STATUS}",
        wrong={
            "all rows": f"SELECT MAX({{amount}}) {ROWS}",
            "lowest": f"SELECT MIN({{amount}}) {ROWS} WHERE {STATUS}",
        },
    ),
)
STANDARD = (
    Form(
        asks="how many {facts} with {status} {status_is} are there from {start} to {end}, both days included?",
        sql=f"SELECT COUNT(*) {ROWS} WHERE {STATUS} AND {IN_TIME}",
        wrong={
            "last day left out": f"SELECT COUNT(*) {ROWS} WHERE {STATUS} AND {EARLY}",
            "no end": f"SELECT COUNT(*) {ROWS} WHERE {STATUS} AND {{day}} >= '{{start}}'",
            "every status": f"SELECT COUNT(*) {ROWS} WHERE {IN_TIME}",
        },
    ),
    Form(
        asks="how many different {owners} have {facts} with {kind} {kind_is}?",
        sql=f"SELECT COUNT(DISTINCT {{owner_id}}) {ROWS} WHERE {KIND}",
        wrong={
            "rows for distinct": f"SELECT COUNT(*) {ROWS} WHERE {KIND}",
            "every kind": f"SELECT COUNT(DISTINCT {{owner_id}}) {ROWS}",
        },
    ),
    Form(
        asks="which of the {owners} has the highest sum of {amount} over {facts} with {status} {status_is}? "
        "Give the {name}.",
        sql=f"SELECT o.{{name}} {JOINED} WHERE {STATUS} {BY_OWNER} {BY_SUM} LIMIT 1",
        wrong={
            "every status": f"SELECT o.{{name}} {JOINED} {BY_OWNER} {BY_SUM} LIMIT 1",
            "single highest": f"SELECT o.{{name}} {JOINED} WHERE {STATUS} ORDER BY {{amount}} DESC LIMIT 1",
            "lowest": f"SELECT o.{{name}} {JOINED} WHERE {STATUS} {BY_OWNER} ORDER BY SUM({{amount}}) LIMIT 1",
        },
        same=(f"SELECT o.{{name}} {JOINED} WHERE {STATUS} {BY_OWNER} {BY_SUM_TIES} LIMIT 1",),
    ),
    Form(
        asks="what is the average {amount} of {facts} by {owners} of {place} {place_is}, to two decimals?",
        sql=f"SELECT ROUND(AVG({{amount}}), 2) {JOINED} WHERE {PLACE}",
        wrong={
            "every place": f"SELECT ROUND(AVG({{amount}}), 2) {JOINED}",
            "whole numbers": f"SELECT SUM({{amount}}) / COUNT(*) {JOINED} WHERE {PLACE}",
            "average of averages": "SELECT ROUND(AVG(mean), 2) FROM (SELECT AVG({amount}) AS mean "
            f"{JOINED} WHERE {PLACE} {BY_OWNER})",
        },
    ),
    Form(
        asks="which {owners} of {place} {place_is} have at least {least} {facts}? Give each {name}, in any order.",
        sql=f"SELECT o.{{name}} {JOINED} WHERE {PLACE} {BY_OWNER} HAVING COUNT(*) >= {{least}}",
        wrong={
            "more than": f"SELECT o.{{name}} {JOINED} WHERE {PLACE} {BY_OWNER} HAVING COUNT(*) > {{least}}",
            "every place": f"SELECT o.{{name}} {JOINED} {BY_OWNER} HAVING COUNT(*) >= {{least}}",
        },
    ),
    Form(
        asks="which {top} {owners} have the highest sums of {amount}? Give each {name}, highest sum first.",
        sql=f"SELECT o.{{name}} {JOINED} {BY_OWNER} {BY_SUM} LIMIT {{top}}",
        wrong={
            "unsorted": f"SELECT * FROM (SELECT o.{{name}} {JOINED} {BY_OWNER} {BY_SUM} LIMIT {{top}}) ORDER BY 1",
            "lowest": f"SELECT o.{{name}} {JOINED} {BY_OWNER} ORDER BY SUM({{amount}}) LIMIT {{top}}",
            "by count": f"SELECT o.{{name}} {JOINED} {BY_OWNER} ORDER BY COUNT(*) DESC LIMIT {{top}}",
        },
        same=(f"SELECT o.{{name}} {JOINED} {BY_OWNER} {BY_SUM_TIES} LIMIT {{top}}",),
        ordered=True,
    ),
)
HARD = (
    Form(
        asks="how many {owners} have no {facts} of {kind} {kind_is}?",
        sql=f"SELECT COUNT(*) FROM {{owners}} WHERE id NOT IN (SELECT {{owner_id}} {OF_KIND} WHERE {NAMED})",
        wrong={
            "with for without": f"SELECT COUNT(DISTINCT {{owner_id}}) {OF_KIND} WHERE {NAMED}",
            "with another": f"SELECT COUNT(DISTINCT {{owner_id}}) {OF_KIND} WHERE NOT {NAMED}",
        },
    ),
    Form(
        asks="what is the average {amount} of those {facts} of {kind} {kind_is} that have one, to two decimals?",
        sql=f"SELECT ROUND(AVG({{amount}}), 2) {OF_KIND} WHERE {NAMED}",
        wrong={
            "nothing for 0": f"SELECT ROUND(AVG(COALESCE({{amount}}, 0)), 2) {OF_KIND} WHERE {NAMED}",
            "every kind": f"SELECT ROUND(AVG({{amount}}), 2) {OF_KIND}",
        },
    ),
    Form(
        asks="for each {place}, how many different {owners} have {facts} with {status} {status_is} from {start} to "
        "{end}, both days included? Give rows of {place} and number, in any order, without those that have none.",
        sql=f"SELECT o.{{place}}, COUNT(DISTINCT o.id) {JOINED} WHERE {STATUS} AND {IN_TIME} GROUP BY o.{{place}}",
        wrong={
            "rows for distinct": f"SELECT o.{{place}}, COUNT(*) {JOINED} WHERE {STATUS} AND {IN_TIME} GROUP BY 1",
            "last day left out": f"SELECT o.{{place}}, COUNT(DISTINCT o.id) {JOINED} WHERE {STATUS} AND {EARLY} "
            "GROUP BY 1",
            "every status": f"SELECT o.{{place}}, COUNT(DISTINCT o.id) {JOINED} WHERE {IN_TIME} GROUP BY 1",
        },
    ),
    Form(
        asks="what percentage of the {facts} from {start} to {end}, both days included, have {status} {status_is}, "
        "to two decimals?",
        sql=f"SELECT ROUND(100.0 * SUM({STATUS}) / COUNT(*), 2) {ROWS} WHERE {IN_TIME}",
        wrong={
            "last day left out": f"SELECT ROUND(100.0 * SUM({STATUS}) / COUNT(*), 2) {ROWS} WHERE {EARLY}",
            "at any time": f"SELECT ROUND(100.0 * SUM({STATUS}) / COUNT(*), 2) {ROWS}",
            "a fraction": f"SELECT ROUND(1.0 * SUM({STATUS}) / COUNT(*), 2) {ROWS} WHERE {IN_TIME}",
        },
    ),
    Form(
        asks="summed over {facts} with {status} {status_is}, what is {amount} times the {rate} of the {kind}?",
        sql=f"SELECT SUM({{amount}} * k.{{rate}}) {OF_KIND} WHERE {STATUS}",
        wrong={
            "every status": f"SELECT SUM({{amount}} * k.{{rate}}) {OF_KIND}",
            "sums multiplied": f"SELECT SUM({{amount}}) * SUM(k.{{rate}}) {OF_KIND} WHERE {STATUS}",
            "unweighted": f"SELECT SUM({{amount}}) {OF_KIND} WHERE {STATUS}",
        },
    ),
    Form(
        asks="which {top} {kinds} have the highest sums of {amount} over {facts} with {status} {status_is}? "
        "Give each {name}, highest sum first.",
        sql=f"SELECT k.{{name}} {OF_KIND} WHERE {STATUS} {KINDS_BY_SUM} LIMIT {{top}}",
        wrong={
            "every status": f"SELECT k.{{name}} {OF_KIND} {KINDS_BY_SUM} LIMIT {{top}}",
            "unsorted": f"SELECT * FROM (SELECT k.{{name}} {OF_KIND} WHERE {STATUS} {KINDS_BY_SUM} LIMIT {{top}}) "
            "ORDER BY 1",
        },
        same=(f"SELECT k.{{name}} {OF_KIND} WHERE {STATUS} {KINDS_BY_SUM} DESC LIMIT {{top}}",),
        ordered=True,
    ),
)
FORMS: Mapping[Difficulty, tuple[Form, ...]] = {"easy": EASY, "standard": STANDARD, "hard": HARD}
