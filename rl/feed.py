"""Which task next: a seeded order without end, shared by the ranks, that a number can resume."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from envs.errors import InputError
from envs.types import Task


@dataclass(frozen=True, slots=True)
class Ticket:
    """One place in the order of a run: whoever holds it plays this task, and nobody else does."""

    position: int
    task: Task

    def episode_id(self, sample: int) -> str:
        """The name of one episode of the group; unique in a run, the same after a resume."""
        return f"{self.task.id}@{self.position}#{sample}"


class Feed:
    """Deals tasks in an order shuffled anew each epoch by (seed, epoch).

    Rank r of w holds positions r, r + w, r + 2w ...: ranks never meet, and no task comes twice before
    all have come once. `dealt` is the whole state.
    """

    def __init__(self, tasks: Sequence[Task], seed: int, *, rank: int = 0, world: int = 1, dealt: int = 0) -> None:
        if not tasks:
            raise InputError("there are no tasks to train on: look at env.split, env.data and the options of the env")
        self._tasks, self._seed, self._rank, self._world = tasks, seed, rank, world
        self.dealt = dealt
        """How many tickets this rank has taken."""
        self._epoch, self._order = -1, list[int]()

    def deal(self) -> Ticket:
        """The next ticket of this rank."""
        position = self.dealt * self._world + self._rank
        self.dealt += 1
        return self.ticket(position)

    def ticket(self, position: int) -> Ticket:
        """The ticket at a place in the order, whoever's it is."""
        epoch, index = divmod(position, len(self._tasks))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(len(self._tasks)))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._order)
        return Ticket(position, self._tasks[self._order[index]])
