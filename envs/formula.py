"""Arithmetic from text, worked out on its syntax tree: numbers, + - * / // % **, brackets, and nothing else.

Nothing is executed and no name is known, so there is nothing to get out of. Numbers are exact
fractions with bounds, so that no expression takes long or a lot of memory.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from envs.errors import ToolError

LENGTH = 200
"""Characters of an expression; it bounds how deep it can be, too."""
BITS = 512
"""Of a numerator and of a denominator: about 150 digits."""
POWER = 64

CALCULATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
LITERAL = re.compile(r"\d[\d_]*(\.\d*)?|\.\d+", re.ASCII)


def evaluate(expression: str) -> tuple[Fraction, list[Fraction], int]:
    """The value, the numbers that are in the expression, and how many operations it took.

    Raises:
        ToolError: no arithmetic, out of bounds, or a division by 0.
    """
    if len(expression) > LENGTH:
        raise ToolError(f"the expression is longer than {LENGTH} characters; do it in steps.")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError("no arithmetic; write an expression as in (12 + 3) * 4.") from error
    numbers: list[Fraction] = []
    value = _value(tree.body, expression.strip(), numbers)
    return value, numbers, sum(isinstance(node, ast.BinOp) for node in ast.walk(tree))


def as_number(value: Fraction) -> int | float:
    """A whole number where it is one; otherwise to twelve digits."""
    return value.numerator if value.denominator == 1 else float(f"{float(value):.12g}")


def _value(node: ast.expr, text: str, numbers: list[Fraction]) -> Fraction:
    match node:
        case ast.Constant() if type(node.value) in (int, float):
            written = ast.get_source_segment(text, node) or ""
            if not LITERAL.fullmatch(written):
                raise ToolError(f"{written[:20]!r} is no plain decimal number.")
            numbers.append(_bounded(Fraction(Decimal(written.replace("_", "")))))
            return numbers[-1]
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=inner):
            value = _value(inner, text, numbers)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=operation, right=right):
            return _bounded(_calculated(operation, _value(left, text, numbers), _value(right, text, numbers)))
        case _:
            raise ToolError("only numbers, + - * / // % ** and brackets can be worked out.")


def _calculated(operation: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    if isinstance(operation, ast.Pow):
        if right.denominator != 1 or abs(right) > POWER:
            raise ToolError(f"an exponent is a whole number from -{POWER} to {POWER}.")
        if left == 0 and right < 0:
            raise ToolError("division by 0.")
        return Fraction(left ** int(right))
    calculate = CALCULATIONS.get(type(operation))
    if calculate is None:
        raise ToolError("only numbers, + - * / // % ** and brackets can be worked out.")
    try:
        return calculate(left, right)
    except ZeroDivisionError as error:
        raise ToolError("division by 0.") from error


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
        raise ToolError("a number has become too long; numbers have up to 150 digits.")
    return value
