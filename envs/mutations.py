"""Mistakes made on purpose: a Python source with one thing in it changed, as people get it wrong."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv, ast.FloorDiv: ast.Mod,
}  # fmt: skip
CALLED = {"max": "min", "min": "max", "sum": "len", "len": "sum"}


def mutants(source: str, rng: random.Random) -> Iterator[str]:
    """Every source that differs by one mistake, each once, in random order.

    A border that is one off or on the wrong side, another operation, the other of two branches, a flag turned round.
    """
    tree = ast.parse(source)
    made = {plain(source)}
    ways = [(node, name, value) for node in ast.walk(tree) for name, value in _ways(node)]
    rng.shuffle(ways)
    for node, name, value in ways:
        right = getattr(node, name)
        setattr(node, name, value)
        text = ast.unparse(tree)
        setattr(node, name, right)
        if text not in made:
            made.add(text)
            yield text


def plain(source: str) -> str:
    """A source as mutants are written, so that the two differ by the mistake alone."""
    return ast.unparse(ast.parse(source))


def _ways(node: ast.AST) -> list[tuple[str, object]]:
    """What can be wrong with a node: a field of it, and the wrong value."""
    match node:
        case ast.Compare(ops=[first, *rest]) if type(first) in COMPARED:
            return [("ops", [COMPARED[type(first)](), *rest])]
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in CALCULATED:
            return [("op", CALCULATED[type(op)]())]
        case ast.BoolOp(op=op):
            return [("op", ast.Or() if isinstance(op, ast.And) else ast.And())]
        case ast.Call(func=ast.Name(id=name) as called) if name in CALLED:
            return [("func", ast.Name(id=CALLED[name], ctx=called.ctx))]
        case ast.Constant(value=bool(value)):
            return [("value", not value)]
        case ast.Constant(value=int(value)):
            return [("value", value + 1), ("value", value - 1)]
        case ast.IfExp(body=body, orelse=orelse):
            return [("body", orelse), ("orelse", body)]
        case ast.If(orelse=[_, *_]):
            return [("orelse", [ast.Pass()])]
        case _:
            return []
