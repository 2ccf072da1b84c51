"""What a function to be written is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function of a family."""

    text: str
    """What it does."""
    source: str
    draw: Callable[[random.Random], list[Any]]
    """Arguments for one call: JSON values."""

    @property
    def name(self) -> str:
        return self.source[len("def ") : self.source.index("(")]

    @property
    def head(self) -> str:
        """Its first line, without the colon."""
        return self.source[len("def ") : self.source.index("):") + 1]
