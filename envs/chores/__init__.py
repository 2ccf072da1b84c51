"""Chores for a shell: files before and after, in words, and a line that gets from one to the other.

No two kinds of chore touch files of the same name, so that several can be asked for at once.
"""

import random
from collections.abc import Callable

from envs.chores.chore import Chore
from envs.chores.contents import CONTENTS, PLAIN
from envs.chores.places import PLACES

__all__ = ["CHORES", "PLAIN", "Chore"]

CHORES: tuple[Callable[[random.Random], Chore], ...] = (*CONTENTS, *PLACES)
