"""Small Python functions to be written: what each does in words, its source, and arguments to try it with.

A family is a kind of function with parameters of its own, drawn at random; the parameters are written into the source,
so that the source says which function it is. Loops are over what is there, so that no mistake in one makes it endless.
"""

import random
from collections.abc import Callable

from envs.functions.function import Function
from envs.functions.lists import LISTS
from envs.functions.records import RECORDS
from envs.functions.texts import TEXTS

__all__ = ["FAMILIES", "Function"]

FAMILIES: tuple[Callable[[random.Random], Function], ...] = (*LISTS, *TEXTS, *RECORDS)
