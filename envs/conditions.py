"""Conditions on the arguments of a call, as a config writes them: `amount > 100 and currency == "EUR"`.

Comparisons of an argument with a number, a text or a list of them, joined by `and`, `or` and `not`, in
Python's grammar. Nothing else is understood and nothing is executed.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from envs.errors import InputError


class Undecided(Exception):
    """The arguments do not say: one is missing, or not comparable with what it is compared with."""


class Condition:
    """A condition that was understood.

    Raises:
        InputError: it was not.
    """

    def __init__(self, text: str) -> None:
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"{text!r} is no condition; write one as in: amount > 100") from error
        self.names = frozenset(_names(self._tree, text))
        """The arguments it looks at."""

    def holds(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it holds for these arguments.

        Raises:
            Undecided: they do not say.
        """
        return _holds(self._tree, arguments)


def _names(tree: ast.expr, text: str) -> list[str]:
    match tree:
        case ast.BoolOp(values=values):
            return [name for value in values for name in _names(value, text)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _names(operand, text)
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            if _is_constant(right, listed=isinstance(op, (ast.In, ast.NotIn))):
                return [name]
    raise InputError(
        f"{text!r}: a condition compares an argument with a number, a text or (by `in`) a list, as in amount > 100; "
        "comparisons are joined by and, or, not"
    )


def _is_constant(tree: ast.expr, *, listed: bool) -> bool:
    try:
        value = ast.literal_eval(tree)
    except ValueError:
        return False
    if listed:
        return isinstance(value, (list, tuple)) and all(isinstance(v, (bool, int, float, str)) for v in value)
    return isinstance(value, (bool, int, float, str))


def _holds(tree: ast.expr, arguments: Mapping[str, Any]) -> bool:
    match tree:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_holds(value, arguments) for value in values)
        case ast.BoolOp(values=values):
            return any(_holds(value, arguments) for value in values)
        case ast.UnaryOp(operand=operand):
            return not _holds(operand, arguments)
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[right]):
            wanted = ast.literal_eval(right)
            kinds = {_kind(value) for value in (wanted if isinstance(wanted, (list, tuple)) else [wanted])}
            if name not in arguments or _kind(arguments[name]) not in kinds:
                raise Undecided(name)
            return bool(COMPARISONS[type(op)](arguments[name], wanted))
    raise AssertionError(f"{ast.dump(tree)} was let in as a condition")


def _kind(value: Any) -> str | None:
    """What a value can be compared with; None for nothing, which NaN is as well."""
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, (int, float)):
        return None if math.isnan(value) else "number"
    return "text" if isinstance(value, str) else None


COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}
