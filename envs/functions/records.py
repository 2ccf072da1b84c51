"""Functions of records and of spans."""

from __future__ import annotations

import random
from typing import Any

from envs.functions.function import Function

PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun")
TEAMS = ("red", "blue", "green", "grey")


def _rows(rng: random.Random) -> list[dict[str, Any]]:
    return [
        {"name": rng.choice(PEOPLE), "team": rng.choice(TEAMS), "points": rng.randint(0, 12)}
        for _ in range(rng.randint(0, 8))
    ]


def _group(rng: random.Random) -> Function:
    by, k = rng.choice(["name", "team"]), rng.randint(1, 8)
    side, sign = rng.choice([("at least", ">="), ("more than", ">"), ("at most", "<="), ("less than", "<")])
    what, value = rng.choice(
        [
            ("the sum of their points", 'found.get(row["{by}"], 0) + row["points"]'),
            ("how many they are", 'found.get(row["{by}"], 0) + 1'),
            ("the most points of one", 'max(found.get(row["{by}"], 0), row["points"])'),
        ]
    )
    source = f"""def group(rows):
    found = {{}}
    for row in rows:
        if row["points"] {sign} {k}:
            found[row["{by}"]] = {value.format(by=by)}
    return found"""
    text = f"`rows` are objects with name, team and points. Return an object with, for each {by} of rows"
    text += f" with {side} {k} points,"
    return Function(text=f"{text} {what}.", source=source, draw=lambda rng: [_rows(rng)])


def _top(rng: random.Random) -> Function:
    k, m, what = rng.randint(1, 5), rng.randint(0, 6), rng.choice(["name", "team"])
    source = f"""def top(rows):
    ranked = sorted(rows, key=lambda row: (-row["points"], row["name"]))
    return [row["{what}"] for row in ranked[:{k}] if row["points"] > {m}]"""
    text = "`rows` are objects with name, team and points. Rank them by points, most first, and by name"
    text += " where points are equal"
    text += f". Return the {what}s of the first {k} in a list, leaving out those with {m} points or less."
    return Function(text=text, source=source, draw=lambda rng: [_rows(rng)])


def _spans(rng: random.Random) -> list[list[int]]:
    starts = [rng.randint(0, 40) for _ in range(rng.randint(0, 6))]
    return [[start, start + rng.randint(1, 9)] for start in starts]


def _merge(rng: random.Random) -> Function:
    gap, least = rng.randint(0, 6), rng.randint(1, 12)
    source = f"""def merge(spans):
    merged = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] <= {gap}:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return [span for span in merged if span[1] - span[0] >= {least}]"""
    text = f"`spans` are pairs [start, end]. Merge those that overlap or are no more than {gap} apart,"
    text += " and return the merged"
    text += f" spans that are at least {least} long, in order."
    return Function(text=text, source=source, draw=lambda rng: [_spans(rng)])


def _covered(rng: random.Random) -> Function:
    low, high, times = rng.randint(0, 15), rng.randint(25, 45), rng.randint(1, 2)
    source = f"""def covered(spans):
    counts = {{}}
    for start, end in spans:
        for n in range(max(start, {low}), min(end, {high})):
            counts[n] = counts.get(n, 0) + 1
    return sum(1 for n in counts if counts[n] >= {times})"""
    text = "`spans` are pairs [start, end] of integers, without their end. Return how many integers"
    text += f" from {low} up to, but without,"
    text += f" {high} are in at least {times} of them."
    return Function(text=text, source=source, draw=lambda rng: [_spans(rng)])


RECORDS = (_group, _top, _merge, _covered)
