"""The one thing a grader may say: a JSON object with a score, or with the reason why there is none.

What arrives was written by a process that may have been subverted. It is cut off before it is parsed, and whatever is
not exactly one small object with exactly the expected keys is no result.
"""

from __future__ import annotations

import json
import math
from typing import Any

from envs.sandbox.records import GraderError, PolicyError

RESULT = 64 * 1024
"""Bytes of the largest result."""

REASONS = ("syntax", "no_function", "raised", "no_number", "not_finite")
"""Why a grader may say that it has no score, beside `memory`."""

_DETAIL = 4000
"""Characters of it that are kept."""

_DIGITS = 400
"""Of the longest number."""


def score(data: bytes, low: float, high: float) -> float:
    """The score in a grader's result.

    Raises:
        GraderError: there is no result, it is not of the one accepted form, or not between `low` and `high`.
        PolicyError: the grader ran out of memory, which what it judged may have brought about.
    """
    if not data:
        raise GraderError("no_result", "the grader ended without a result")
    if len(data) > RESULT:
        raise GraderError("bad_result", f"the grader's result is longer than {RESULT} bytes")
    tree = _parse(data)
    if tree.keys() == {"error", "detail"} and isinstance(tree["error"], str) and isinstance(tree["detail"], str):
        if tree["error"] == "memory":
            raise PolicyError("memory", "the grader ran out of memory")
        if tree["error"] in REASONS:
            raise GraderError(tree["error"], tree["detail"][:_DETAIL])
    if tree.keys() != {"score"}:
        raise GraderError("bad_result", "the grader's result is not an object with a score alone")
    return _number(tree["score"], low, high)


def _number(value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float):
        raise GraderError("no_number", f"the score is a {type(value).__name__}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise GraderError("not_finite", "the score is not finite")
    if not low <= number <= high:
        raise GraderError("out_of_range", f"the score {number:g} is not between {low:g} and {high:g}")
    return number


def _parse(data: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(
            data.decode("utf-8"), parse_constant=_refuse, parse_int=_integer, object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError) as error:
        raise GraderError("bad_result", f"the grader's result is not one JSON object: {error}"[:300]) from None
    if not isinstance(tree, dict):
        raise GraderError("bad_result", "the grader's result is not a JSON object")
    return tree


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError("a number too long")
    return int(text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key given twice")
    return tree
