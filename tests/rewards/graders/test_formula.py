"""The formula language, against hand computation and against an evaluator of another make."""

import ast
import math
import operator
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import InputError
from rewards.graders import Formula, FormulaError, FormulaFault

NAMES = ("a", "b", "precision", "recall")
UNARY = {"abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "sqrt": math.sqrt, "log": math.log}
BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("(-2) ^ 2", 4.0),
        ("2 ^ -1", 0.5),
        ("2 * 3 ^ 2", 18.0),
        ("8 / 4 / 2", 1.0),
        ("8 - 4 - 2", 2.0),
        ("- - 1", 1.0),
        ("+1", 1.0),
        ("1e-9", 1e-9),
        ("1.5E+2", 150.0),
        (".5 + 1.", 1.5),
        ("min(3, 1, 2) + max(3, 1)", 4.0),
        ("floor(1.7) + ceil(1.2)", 3.0),
        ("abs(-3) + sqrt(4) + exp(0) + log(1)", 6.0),
        ("0 ^ 0", 1.0),
        ("2 * a * b / max(a + b, 1e-9)", 2 * 0.5 * 0.25 / 0.75),
        ("max(a, b) - max", 0.5 - 7.0),
        ("\n a\t", 0.5),
    ],
)
def test_a_formula_means_what_it_says(text, value):
    assert Formula.parse(text)({"a": 0.5, "b": 0.25, "max": 7.0}) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"expected a number, a grader's name or '\(', found the end of ''"),
        ("(a", "a parenthesis is never closed"),
        ("a)", r"expected an operator or the end, found '\)' at character 2"),
        ("min(a, b", "the call of min is never closed"),
        ("a b", "expected an operator or the end, found 'b' at character 3"),
        ("a ** b", r"found '\*' at character 4"),
        ("a +", "found the end"),
        ("min(a)", "min takes two or more arguments, not 1"),
        ("max()", r"found '\)'"),
        ("abs(a, b)", "abs takes one argument, not 2"),
        ("round(a)", "unknown function 'round'"),
        ("sqr(a)", "unknown function 'sqr'; did you mean 'sqrt'"),
        ("precison", "unknown grader 'precison'; did you mean 'precision'"),
        ("a > b", "'>' at character 3 is no part of a formula"),
        ("a.b", "'.' at character 2 is no part of a formula"),
        ("1e400", "the number 1e400 is too large"),
        ("__import__('os')", "at character 12 is no part of a formula"),
        ("(" * 200 + "a" + ")" * 200, "nested more than 100 deep"),
        ("-" * 5000 + "a", "nested more than 100 deep"),
        ("^".join("2" * 5000), "nested more than 100 deep"),
    ],
)
def test_a_formula_that_is_none_says_where(text, said):
    with pytest.raises(FormulaError, match=said):
        Formula.parse(text, names=NAMES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / a", "divides by zero"),
        ("a ^ -1", "divides by zero"),
        ("(a - 1) ^ 0.5", "has no value"),
        ("log(a)", "log of .* has no value"),
        ("sqrt(a - 1)", "sqrt of .* has no value"),
        ("exp(1000)", "exp of .* has no value"),
        ("1e308 * 10 * a", "is inf"),
        ("min(1e308 * 10, 1)", "is inf"),
    ],
)
def test_a_formula_without_a_value_is_a_fault_and_never_a_number(text, said):
    with pytest.raises(FormulaFault, match=said):
        Formula.parse(text)({"a": 0.0})


def test_a_formula_fault_is_no_input_error():
    assert issubclass(FormulaError, InputError)
    assert not issubclass(FormulaFault, InputError)


def test_long_sums_need_no_deep_stack():
    assert Formula.parse("+".join(["a"] * 20_000))({"a": 1.0}) == 20_000.0


def test_the_names_are_those_of_variables_each_once():
    assert Formula.parse("min(b, a) + b * min").names == ["b", "a", "min"]


class Writer:
    """Writes formulas at random, with spaces and parentheses as they come."""

    def __init__(self, seed):
        self.dice = random.Random(seed)

    def formula(self, depth=4):
        dice = self.dice
        if depth == 0 or dice.random() < 0.2:
            return dice.choice([*NAMES, "0", "1", "2", "0.5", "1e-9", "3.", ".25", "2E1"])
        kind = dice.randrange(7)
        if kind <= 2:
            between = dice.choice(["+", " - ", "*", " / ", "^", " ^ ", "-", "/"])
            return self.formula(depth - 1) + between + self.formula(depth - 1)
        if kind == 3:
            return f"({self.formula(depth - 1)})"
        if kind == 4:
            return dice.choice("+-") + self.formula(depth - 1)
        if kind == 5:
            return f"{dice.choice(sorted(UNARY))}( {self.formula(depth - 1)} )"
        arguments = ", ".join(self.formula(depth - 1) for _ in range(dice.choice([2, 2, 3])))
        return f"{dice.choice(['min', 'max'])}({arguments})"

    def scores(self):
        return {name: self.dice.choice([0.0, 1.0, -1.0, 0.5, 2.0, 1 / 3]) for name in NAMES}


def by_python(text, values):
    """The value by Python's own parser, whose ** groups and binds as ^ does here; None where it is no finite number."""

    def value(node):
        match node:
            case ast.Constant():
                return float(node.value)
            case ast.Name():
                return values[node.id]
            case ast.UnaryOp():
                return -value(node.operand) if isinstance(node.op, ast.USub) else value(node.operand)
            case ast.BinOp():
                found = BINARY[type(node.op)](value(node.left), value(node.right))
            case ast.Call():
                found = (UNARY | {"min": min, "max": max})[node.func.id](*map(value, node.args))
        if isinstance(found, complex) or not math.isfinite(found):
            raise ArithmeticError
        return float(found)

    try:
        return value(ast.parse(text.replace("^", "**"), mode="eval").body)
    except (ArithmeticError, ValueError):
        return None


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_every_formula_has_the_value_that_python_gives_it(seed):
    """100 formulas an example: 5,000 in all."""
    writer = Writer(seed)
    for _ in range(100):
        text, values = writer.formula(), writer.scores()
        try:
            found = Formula.parse(text, names=NAMES)(values)
        except FormulaFault:
            found = None
        expected = by_python(text, values)
        assert (found is None) == (expected is None), text
        assert found is None or found == pytest.approx(expected, rel=1e-12), text
