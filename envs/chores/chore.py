"""What a chore is, and what several of them make use of."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "flint", "grove", "haven", "indigo", "juniper", "karma", "linden",
    "maple", "nickel", "opal", "pepper", "quartz", "raven", "sable", "tulip",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """Something to be done to files."""

    text: str
    files: Mapping[str, str]
    """Path -> text, before."""
    goal: Mapping[str, str]
    """And after."""
    command: str
    """A shell line that does it."""
    wrong: str
    """One that does it nearly, as it is done by who reads over half of the text."""


def lines(rng: random.Random, fewest: int = 1, most: int = 4) -> str:
    """Lines of words."""
    return "".join(f"{' '.join(rng.sample(WORDS, 3))}\n" for _ in range(rng.randint(fewest, most)))
