"""A database that may be asked anything and changed by nothing."""

import contextlib
import resource
import threading
import time

import pytest

from envs import InputError, ToolError
from envs.sqlite import FUNCTIONS, Limits, ReadOnly, Refused, Table, covers

ROWS = [[n, f"name {n}"] for n in range(60)]


@pytest.fixture
def db():
    made = ReadOnly({"people": Table(columns={"id": "INTEGER", "name": "TEXT"}, rows=ROWS)})
    yield made
    made.close()


CHANGES = (
    "INSERT INTO people VALUES (99, 'x')",
    "UPDATE people SET name = 'x'",
    "DELETE FROM people",
    "WITH x AS (SELECT 1) DELETE FROM people",
    "REPLACE INTO people VALUES (1, 'x')",
    "DROP TABLE people",
    "ALTER TABLE people ADD COLUMN x",
    "CREATE TABLE x (y)",
    "CREATE TEMP TABLE x (y)",
    "CREATE VIEW x AS SELECT 1",
    "CREATE INDEX x ON people (id)",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM INTO '/tmp/x.db'",
    "BEGIN",
    "SAVEPOINT x",
    "ANALYZE",
)


@pytest.mark.parametrize("sql", CHANGES)
def test_what_would_change_anything_is_refused(db, sql):
    with pytest.raises(Refused, match="read-only") as refused:
        db.query(sql)
    assert refused.value.change
    assert db.query("SELECT COUNT(*), MAX(name) FROM people").rows == ((60, "name 9"),)
    assert db.query("SELECT name FROM sqlite_master").rows == (("people",),)


@pytest.mark.parametrize("sql", CHANGES)
def test_without_the_authorizer_rows_and_schema_are_still_safe(db, sql):
    db._connection.set_authorizer(None)
    with contextlib.suppress(ToolError):
        db.query(sql)
    assert db.query("SELECT COUNT(*), MAX(name) FROM people").rows == ((60, "name 9"),)
    assert db.query("SELECT name FROM sqlite_master").rows == (("people",),)


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA query_only = OFF",
        "PRAGMA table_info(people)",
        "SELECT * FROM pragma_table_info('people')",
        "SELECT COUNT(*) FROM pragma_table_list",
        "SELECT load_extension('x.so')",
        "SELECT printf('%.*c', 900000000, 'x')",
        "SELECT zeroblob(1000)",
        "SELECT randomblob(1000)",
        "SELECT * FROM json_each('[1]')",
        "SELECT * FROM dbstat",
    ],
)
def test_what_goes_too_far_is_refused_as_a_question(db, sql):
    with pytest.raises(Refused) as refused:
        db.query(sql)
    assert not refused.value.change


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM nobody", "no such table: nobody"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT '\0'", "null character"),
        ("SELECT '\ud800'", "surrogates"),
        ("SELECT '" + "x" * 5000 + "'", "too large|too big"),
        ("SELECT group_concat(a.name) FROM people a, people b", "too big"),
        ("SELECT " + "(" * 2000 + "1" + ")" * 2000, "parser|too large|depth"),
    ],
)
def test_what_sqlite_does_not_take_is_told(db, sql, said):
    with pytest.raises(ToolError, match=said):
        db.query(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT COUNT(*) FROM r",
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION SELECT x + 1 FROM r) SELECT MAX(x) FROM r",
        "WITH RECURSIVE r(x) AS (SELECT hello UNION ALL SELECT x FROM r) SELECT * FROM r ORDER BY x".replace(
            "hello", "'" + "x" * 900 + "'"
        ),
        "SELECT COUNT(*) FROM people a, people b, people c, people d, people e",
        "SELECT * FROM people a, people b, people c, people d ORDER BY a.name || b.name || c.name || d.name",
        "SELECT COUNT(DISTINCT a.name || b.name || c.name || d.id) FROM people a, people b, people c, people d",
    ],
)
def test_a_query_without_end_ends_and_memory_stays(db, sql):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(ToolError, match="took too long"):
        db.query(sql)
    assert time.thread_time() - started < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
    assert db.query("SELECT 1").rows == ((1,),)


def test_the_clock_ends_what_the_count_of_instructions_does_not():
    patient = ReadOnly({}, Limits(instructions=10**12, seconds=0.2))
    started = time.monotonic()
    with pytest.raises(ToolError, match="took too long"):
        patient.query("WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT COUNT(*) FROM r")
    assert time.monotonic() - started < 10
    patient.close()


def test_no_single_function_takes_long(db):
    """Within one instruction neither the clock nor the count looks, so each function has to be quick by itself."""
    text, pattern = "'" + "a" * 950 + "'", "'" + "%a" * 400 + "b'"
    for sql in (
        f"SELECT {text} LIKE {pattern}",
        f"SELECT {text} GLOB {pattern.replace('%', '*')}",
        f"SELECT replace({text}, 'a', {text})",
        f"SELECT strftime({text.replace('a', '%Y')}, 'now')",
        f"SELECT instr({text}, {text}), trim({text}, {text}), substr({text}, -5)",
        "SELECT round(1e300, 1000000), power(9, 9e9), 1e308 * 10",
    ):
        started = time.thread_time()
        with contextlib.suppress(ToolError):
            db.query(sql)
        assert time.thread_time() - started < 1, sql
    assert not FUNCTIONS & {"printf", "format", "zeroblob", "randomblob", "load_extension", "hex", "quote"}


def test_rows_and_text_are_limited_and_it_is_said(db):
    found = db.query("SELECT * FROM people")
    assert (len(found.rows), found.more) == (50, True)
    found = db.query("SELECT a.name, '" + "y" * 300 + "' FROM people a")
    assert (len(found.rows), found.more) == (12, True)
    found = db.query("SELECT * FROM people LIMIT 3")
    assert (found.columns, found.rows, found.more) == (("id", "name"), tuple(map(tuple, ROWS[:3])), False)


def test_values_that_json_has_no_word_for_become_text(db):
    assert db.query("SELECT 9e999, -9e999, x'00ff', CAST(x'ff' AS TEXT), NULL").rows == (
        ("inf", "-inf", "00ff", "\ufffd", None),
    )


@pytest.mark.parametrize(
    ("sql", "needs", "covered"),
    [
        ("SELECT name FROM people", [("people", "name")], True),
        ("SELECT id FROM people WHERE name = 'x'", [("people", "name"), ("people", "id")], True),
        ("SELECT id FROM people", [("people", "name")], False),
        ("SELECT COUNT(*) FROM people", [("people", "")], True),
        ("SELECT id FROM people", [("people", "")], True),
        ("SELECT COUNT(*) FROM (SELECT 1 AS name)", [("people", "")], False),
        ("WITH p AS (SELECT * FROM people) SELECT COUNT(name) FROM p", [("people", "name")], True),
        ("SELECT 'people', 'name'", [("people", "name")], False),
        ("EXPLAIN SELECT name FROM people", [("people", "name")], False),
        ("EXPLAIN QUERY PLAN SELECT name FROM people", [("people", "name")], False),
        ("WITH people(name) AS (SELECT 'x') SELECT name FROM people", [("people", "name")], False),
    ],
)
def test_what_a_query_reads_is_known(db, sql, needs, covered):
    assert covers(db.query(sql).reads, needs) is covered


def test_tables_of_awkward_names_are_made_and_impossible_ones_refused():
    odd = ReadOnly({'a "b"; DROP': Table(columns={"order": "TEXT", "x y": "TEXT"}, rows=[["1", "2"]])})
    assert odd.query('SELECT "x y" FROM "a ""b""; DROP"').rows == (("2",),)
    odd.close()
    for columns, rows in (({"a": "TEXT"}, [[1, 2]]), ({}, []), ({"a": "TEXT"}, [[10**30]]), ({"a": "TEXT"}, [[[]]])):
        with pytest.raises(InputError, match="can't be made"):
            ReadOnly({"t": Table(columns=columns, rows=rows)})


def test_closing_ends_a_query_that_runs():
    slow = ReadOnly({}, Limits(instructions=10**12, seconds=60))
    said = []

    def ask():
        try:
            slow.query("WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT COUNT(*) FROM r")
        except ToolError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not slow._busy.locked():
        time.sleep(0.01)
    time.sleep(0.2)
    slow.close()
    thread.join(timeout=10)
    assert said == ["the query took too long and was stopped; ask for less."]
    slow.close()
