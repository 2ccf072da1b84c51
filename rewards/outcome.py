"""What came out: functions of an episode that look at its answer or at the state it left. 0 or 1.

What is right is read from the task's `item` or from the environment's own goal. With `require`, a
reward is 0 unless the episode also ended well: `done` (by itself, not at a limit), `answered` (with
words), `no_violations` (its environment's `state["violations"]` is empty).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

from envs.environment import as_text
from envs.errors import InputError
from envs.types import Episode, Stop
from rewards.paths import Leaves, at, leaves, same

Requirement = Literal["done", "answered", "no_violations"]

_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4}(?![0-9]))?"
)
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)```\s*", re.DOTALL)


def exact(
    episode: Episode, *, field: str = "answer", ignore_case: bool = False, require: Sequence[Requirement] = ()
) -> float:
    """1 if the answer is the item's field, or one of those the field lists. Outer whitespace does not count.

    Raises:
        InputError: the item has no such field, or nothing in it.
    """
    answer = _folded(episode.answer, ignore_case)
    return float(answer in (_folded(t, ignore_case) for t in _texts(episode, field)) and _met(episode, require))


def contains(
    episode: Episode, *, field: str = "answer", ignore_case: bool = False, require: Sequence[Requirement] = ()
) -> float:
    """1 if the item's field, or one of those the field lists, is somewhere in the answer.

    An answer that lists every possibility contains the right one too: prefer `exact` or `numeric` in training.

    Raises:
        InputError: the item has no such field, or nothing in it.
    """
    answer = _folded(episode.answer, ignore_case)
    found = any(_folded(text, ignore_case) in answer for text in _texts(episode, field))
    return float(found and _met(episode, require))


def numeric(
    episode: Episode,
    *,
    field: str = "answer",
    tolerance: float = 1e-9,
    relative: float = 0.0,
    require: Sequence[Requirement] = (),
) -> float:
    """1 if the last number in the answer is the item's field, give or take.

    The last and no other, so that listing guesses does not pay. Reads 1,234.5 and 1.2e3; a fraction is
    two numbers. Whole numbers of any length are compared exactly.

    Args:
        episode: what was played.
        field: where in the item the number is, as a number or as text.
        tolerance: how far it may be off.
        relative: how far it may be off as a part of the right number; the larger of the two counts.
        require: what else must hold.

    Raises:
        InputError: the item has no such field, or it is not one number.
    """
    wanted = _field(episode, field)
    right = _numbers(as_text(wanted))
    if len(right) != 1 or isinstance(wanted, bool):
        raise InputError(f"task {episode.task.id!r}: item.{field} is not a number: {wanted!r}")
    said = _numbers(episode.answer)
    slack = max(Decimal(str(tolerance)), Decimal(str(relative)) * abs(right[0]))
    return float(bool(said) and abs(said[-1] - right[0]) <= slack and _met(episode, require))


def json_equal(
    episode: Episode,
    *,
    field: str = "answer",
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    tolerance: float = 0.0,
    require: Sequence[Requirement] = (),
) -> float:
    """1 if the answer is JSON and equals the item's field; the order of keys makes no difference.

    A fenced code block around the JSON is taken off.

    Args:
        episode: what was played.
        field: where in the item the value is; text that is a JSON object or array is read as one.
        only: paths to compare, as in `lines.*.price`; everything if empty.
        ignore: paths to leave out.
        tolerance: how far numbers may be off.
        require: what else must hold.

    Raises:
        InputError: the item has no such field, or no path is left to compare.
    """
    wanted = _field(episode, field)
    if isinstance(wanted, str) and wanted.lstrip()[:1] in ("{", "["):
        wanted = json.loads(wanted)
    goal = _compared(wanted, f"item.{field}", only, ignore)
    fenced = _FENCED.fullmatch(episode.answer)
    try:
        said = leaves(json.loads(fenced[1] if fenced else episode.answer), only=only, ignore=ignore)
    except (ValueError, RecursionError):
        return 0.0
    return float(same(said, goal, tolerance) and _met(episode, require))


def state_equal(
    episode: Episode,
    *,
    state: str = "database",
    goal: str = "goal",
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    tolerance: float = 0.0,
    require: Sequence[Requirement] = (),
) -> float:
    """1 if the environment was left as it should be: one part of `episode.state` equals another.

    Example: `{use: state_equal, require: [done, answered, no_violations]}` is success at the desk.

    Args:
        episode: what was played.
        state: path of what is, in `episode.state`.
        goal: path of what should be, in `episode.state`.
        only: paths in both to compare, as in `*.status`; everything if empty.
        ignore: paths to leave out, as in `log`.
        tolerance: how far numbers may be off.
        require: what else must hold.

    Raises:
        InputError: the environment's state has no such part, or no path is left to compare.
    """
    wanted = _compared(_state(episode, goal), f"state.{goal}", only, ignore)
    found = leaves(_state(episode, state), only=only, ignore=ignore)
    return float(same(found, wanted, tolerance) and _met(episode, require))


def _met(episode: Episode, requirements: Sequence[Requirement]) -> bool:
    """Whether all that is required holds.

    Raises:
        InputError: violations matter, and the environment keeps no account of them.
    """
    holds = {
        "done": lambda: episode.stop is Stop.DONE,
        "answered": lambda: bool(episode.answer.strip()),
        "no_violations": lambda: not _state(episode, "violations"),
    }
    return all(holds[name]() for name in requirements)


def _state(episode: Episode, path: str) -> Any:
    try:
        return at(episode.state, path)
    except KeyError as error:
        there = ", ".join(episode.state) or "nothing"
        raise InputError(f"environment {episode.env!r} left no {path!r} in its state; there is: {there}") from error


def _field(episode: Episode, path: str) -> Any:
    try:
        return at(episode.task.item, path)
    except KeyError as error:
        there = ", ".join(episode.task.item) or "nothing"
        raise InputError(f"task {episode.task.id!r} has no {path!r} in its item; there is: {there}") from error


def _texts(episode: Episode, field: str) -> list[str]:
    """The right answers. None may be empty: every answer contains the empty text."""
    value = _field(episode, field)
    texts = [
        text if isinstance(text, str) else as_text(text) for text in (value if isinstance(value, list) else [value])
    ]
    if not texts or value is None or not all(text.strip() for text in texts):
        raise InputError(f"task {episode.task.id!r}: item.{field} is empty; there is no right answer")
    return texts


def _folded(text: str, ignore_case: bool) -> str:
    return text.strip().casefold() if ignore_case else text.strip()


def _numbers(text: str) -> list[Decimal]:
    return [Decimal(match.replace(",", "")) for match in _NUMBER.findall(text.replace("\u2212", "-"))]


def _compared(value: Any, name: str, only: Sequence[str], ignore: Sequence[str]) -> Leaves:
    """What there is to compare with: at least something, or else everything would be right."""
    found = leaves(value, only=only, ignore=ignore)
    if not found:
        raise InputError(f"nothing in {name} is left to compare; see the paths under only and ignore")
    return found
