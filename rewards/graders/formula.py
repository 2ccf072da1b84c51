"""The formula of a multi grader, parsed into a stack program and never eval'd.

    sum      = product (("+" | "-") product)*
    product  = signed (("*" | "/") signed)*
    signed   = ("-" | "+") signed | power
    power    = atom ("^" signed)?
    atom     = number | name | function "(" sum ("," sum)* ")" | "(" sum ")"

`^` is power, groups to the right and binds tighter than a sign before it: -2^2 is -4, 2^3^2 is 512, 2^-1
is 0.5. Functions: min and max of two or more; abs, floor, ceil, exp, sqrt, log (natural) of one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from envs.errors import InputError, unknown

DEPTH = 100
"""How deep parentheses, signs and powers may nest."""

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|([^\W\d]\w*)|([-+*/^(),]))")


class FormulaError(InputError):
    """The formula itself is wrong: the user's to mend."""


class FormulaFault(ArithmeticError):
    """The formula has no value for these scores: division by zero, the log of a negative number, overflow."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on the stack: pushes a number or a variable, or takes `takes` values and leaves one."""

    name: str
    takes: int = 0
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula; `text` as it was written."""

    text: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str, *, names: Collection[str] | None = None) -> Formula:
        """A formula of its text.

        Args:
            text: as in `"0.9 * exact + 0.1 * min(style, 1)"`.
            names: the variables there are; None takes any.

        Raises:
            FormulaError: it is no formula; says where.
        """
        steps = _Parser(text).parse()
        formula = cls(text, steps)
        for name in formula.names:
            if names is not None and name not in names:
                raise FormulaError(f"calculate_output: {unknown('grader', name, names)}")
        return formula

    @property
    def names(self) -> list[str]:
        """Its variables, each once, in the order they appear in."""
        return list(dict.fromkeys(step.name for step in self.steps if not step.takes and step.number is None))

    def __call__(self, values: Mapping[str, float]) -> float:
        """Its value.

        Raises:
            FormulaFault: it has none.
        """
        stack: list[float] = []
        for step in self.steps:
            if not step.takes:
                stack.append(values[step.name] if step.number is None else step.number)
                continue
            taken = stack[-step.takes :]
            del stack[-step.takes :]
            try:
                stack.append(float(OPERATIONS[step.name, step.takes > 1](*taken)))
            except ZeroDivisionError as error:
                raise FormulaFault(f"{self.text!r} divides by zero") from error
            except (ValueError, OverflowError) as error:
                raise FormulaFault(f"{self.text!r}: {step.name} of {taken} has no value") from error
            if not math.isfinite(stack[-1]):
                raise FormulaFault(f"{self.text!r}: {step.name} of {taken} is {stack[-1]}")
        return float(stack[0])


class _Parser:
    """Recursive descent over tokens; writes steps in the order they are carried out."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._steps: list[Step] = []

    def parse(self) -> tuple[Step, ...]:
        self._sum()
        if self._at < len(self._tokens):
            raise self._wrong("expected an operator or the end")
        return tuple(self._steps)

    def _sum(self) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            raise FormulaError(f"calculate_output: nested more than {DEPTH} deep")
        self._product()
        while operator := self._take("+", "-"):
            self._product()
            self._steps.append(Step(operator, 2))
        self._depth -= 1

    def _product(self) -> None:
        self._signed()
        while operator := self._take("*", "/"):
            self._signed()
            self._steps.append(Step(operator, 2))

    def _signed(self) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            raise FormulaError(f"calculate_output: nested more than {DEPTH} deep")
        if sign := self._take("-", "+"):
            self._signed()
            if sign == "-":
                self._steps.append(Step("-", 1))
        else:
            self._atom()
            if self._take("^"):
                self._signed()
                self._steps.append(Step("^", 2))
        self._depth -= 1

    def _atom(self) -> None:
        kind, text, _ = self._tokens[self._at] if self._at < len(self._tokens) else ("", "", 0)
        if kind == "number":
            self._at += 1
            number = float(text)
            if not math.isfinite(number):
                raise FormulaError(f"calculate_output: the number {text} is too large")
            self._steps.append(Step(text, number=number))
        elif kind == "name":
            self._at += 1
            if self._take("("):
                self._call(text)
            else:
                self._steps.append(Step(text))
        elif self._take("("):
            self._sum()
            if not self._take(")"):
                raise self._wrong("a parenthesis is never closed; expected ')'")
        else:
            raise self._wrong("expected a number, a grader's name or '('")

    def _call(self, name: str) -> None:
        if name not in ARGUMENTS:
            raise FormulaError(f"calculate_output: {unknown('function', name, ARGUMENTS)}")
        count = 1
        self._sum()
        while self._take(","):
            self._sum()
            count += 1
        if not self._take(")"):
            raise self._wrong(f"the call of {name} is never closed; expected ')'")
        if (count < 2) if ARGUMENTS[name] == 2 else (count != 1):
            needs = "two or more arguments" if ARGUMENTS[name] == 2 else "one argument"
            raise FormulaError(f"calculate_output: {name} takes {needs}, not {count}")
        self._steps.append(Step(name, count))

    def _take(self, *symbols: str) -> str:
        """The next token if it is one of these, or the empty text."""
        if self._at < len(self._tokens) and self._tokens[self._at][1] in symbols:
            self._at += 1
            return self._tokens[self._at - 1][1]
        return ""

    def _wrong(self, expected: str) -> FormulaError:
        if self._at < len(self._tokens):
            _, text, place = self._tokens[self._at]
            return FormulaError(f"calculate_output: {expected}, found {text!r} at character {place + 1}")
        return FormulaError(f"calculate_output: {expected}, found the end of {self._text!r}")


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Kind (number, name, symbol), text and place of each token."""
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise FormulaError(f"calculate_output: {text[place]!r} at character {place + 1} is no part of a formula")
        kind = ("number", "name", "symbol")[(match.lastindex or 1) - 1]
        found.append((kind, match[match.lastindex or 1], match.start(match.lastindex or 1)))
        at = match.end()
    return found


def _power(base: float, exponent: float) -> float:
    """math.pow has IEEE's corner cases; 0 to a negative power is the division by zero that it is."""
    if base == 0 and exponent < 0:
        raise ZeroDivisionError
    return math.pow(base, exponent)


ARGUMENTS = {"min": 2, "max": 2, "abs": 1, "floor": 1, "ceil": 1, "exp": 1, "sqrt": 1, "log": 1}
"""Function -> 1 for just one argument, 2 for two or more."""

OPERATIONS: dict[tuple[str, bool], Callable[..., float]] = {
    ("+", True): lambda a, b: a + b,
    ("-", True): lambda a, b: a - b,
    ("*", True): lambda a, b: a * b,
    ("/", True): lambda a, b: a / b,
    ("^", True): _power,
    ("-", False): lambda a: -a,
    ("min", True): min,
    ("max", True): max,
    ("abs", False): abs,
    ("floor", False): math.floor,
    ("ceil", False): math.ceil,
    ("exp", False): math.exp,
    ("sqrt", False): math.sqrt,
    ("log", False): math.log,
}
"""(name, takes more than one) -> what it does."""
