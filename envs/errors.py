"""The few errors that have a name, each with whose fault it is; and how bad input is put into words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class InputError(ValueError):
    """The user's: a file, a key or a value that can't be used. The message says what to do about it.

    The command line prints it without a traceback and exits with 2.
    """


class ToolError(Exception):
    """The model's: raised inside a tool to tell the model what was wrong with its call."""


class EnvLost(Exception):
    """The machinery's: the environment is gone (its sandbox, its server), and no call can bring it back."""


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """Say that a name is not among those there are, nearest first: "unknown reward 'exat'; did you mean 'exact'?"."""
    known = sorted(names)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"


def reasons(error: ValidationError) -> str:
    """What pydantic found wrong, in one line: "amount: Input should be a valid integer; note: Field required"."""
    parts = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(map(str, item["loc"]))
        parts.append(f"{where}: {item['msg']}" if where else item["msg"])
    return "; ".join(parts)
