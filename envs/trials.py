"""Trying out a function that somebody wrote: what it returns for given arguments, found out in a sandbox of its own.

What is right never goes into that sandbox, so that nothing in there can know or change a verdict: the code says what it
returns, and it is compared out here. A program that takes the place of the one that calls it can do no more than that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from envs.sandbox import InfraError, PolicyError, Result, Sandboxes

FILE = "solution.py"
SHOWN = 300
"""Characters of a value or an error that are kept to be shown."""

CALLER = """
import importlib, json, os, sys
asked = json.load(sys.stdin)
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path.insert(0, os.getcwd())
function = failed = None
try:
    function = getattr(importlib.import_module("solution"), asked["function"])
except BaseException as error:
    failed = error
for arguments in asked["calls"]:
    try:
        if failed is not None:
            raise failed
        line = json.dumps({"returned": function(*arguments)})
    except BaseException as error:
        line = json.dumps({"raised": f"{type(error).__name__}: {error}"[:1000]})
    out.write(line + "\\n")
    out.flush()
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one call came to."""

    passed: bool
    said: str
    """What it returned or raised, in words."""


async def tried(
    sandboxes: Sandboxes, source: str, function: str, tests: Sequence[tuple[list[Any], Any]], *, seconds: float
) -> list[Trial]:
    """Call a function of a source with each test's arguments, in a fresh sandbox, and compare what it returns.

    Args:
        sandboxes: where to get one.
        source: becomes the module `solution`.
        function: its name in there.
        tests: arguments, and what is to be returned: JSON values. A tuple is as good as a list; True is not 1.
        seconds: for all calls together. Those that are not made in this time have failed.

    Raises:
        InfraError: no sandbox could be had.
    """
    asked = json.dumps({"function": function, "calls": [arguments for arguments, _ in tests]}).encode()
    command = [sandboxes.python, "-I", "-c", CALLER]
    ended, lines = "it ended the program", list[bytes]()
    for _ in range(2):  # lost twice over the same source, it is the source that did it
        try:
            async with sandboxes.episode({FILE: source}) as sandbox:
                try:
                    result = await sandbox.exec(command, stdin=asked, wall=seconds)
                except InfraError:
                    continue
        except PolicyError as error:
            ended = str(error)
        else:
            ended, lines = _ending(result), result.stdout.splitlines()
        break
    return [_judged(lines[n] if n < len(lines) else None, right, ended) for n, (_, right) in enumerate(tests)]


def _ending(result: Result) -> str:
    """Why there are no more answers."""
    if result.ended in ("timeout", "cpu"):
        return "it took too long"
    if result.ended in ("memory", "output", "disk"):
        return f"it used up its {result.ended}"
    return "it ended the program"


def _judged(line: bytes | None, right: Any, ended: str) -> Trial:
    if line is None:
        return Trial(False, ended)
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return Trial(False, "it wrote where answers go")
    match answer:
        case {"returned": value}:
            said = json.dumps(value)
            return Trial(alike(value, right), f"returned {said[:SHOWN]}")
        case {"raised": str(error)}:
            return Trial(False, f"raised {error[:SHOWN]}")
        case _:
            return Trial(False, "it wrote where answers go")


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same, whatever the order of keys. True is not 1, and 1 is not 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
