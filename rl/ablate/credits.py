"""Where in an episode the credit went: the mean advantage of each turn, computed anew from recorded groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rl.ablate.plan import Cell
from rl.credit import needs
from rl.records import Run
from rl.rollout import Played
from rl.samples import turn_credit

LOOKED_AT = 8
"""Steps of a run, evenly spread."""

Sum: TypeAlias = tuple[int, float, float]
"""Count, sum and sum of squares of advantages."""
Sums: TypeAlias = Mapping[int, Sum]
"""By turn."""
NOTHING: Sum = (0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The advantages of one run, over groups that have successes and failures."""

    successes: Sums
    failures: Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Mean advantage by turn, divided by the arm's RMS."""

    successes: tuple[float | None, ...]
    """Turn -> mean; None where no success came so far."""
    failures: tuple[float | None, ...]


def tally(cell: Cell, run: Run) -> Tally | None:
    """Of one run; None where the records can't tell, as with a critic, whose values are not kept."""
    if "values" in needs(cell.config.credit.name):
        return None
    sums: dict[bool, dict[int, Sum]] = {True: defaultdict(lambda: NOTHING), False: defaultdict(lambda: NOTHING)}
    for done, group in _groups(cell, run):
        credit = cell.config.credit.at(done)
        rows = turn_credit(group, credit.name, credit.options, gate=credit.soft_gate)
        for played, row in zip(group, rows, strict=True):
            if played.score.error is None:
                by_turn = sums[played.score.value >= 1.0]
                for turn, advantage in enumerate(row):
                    by_turn[turn] = _added(by_turn[turn], (1, advantage, advantage * advantage))
    return Tally(successes=dict(sums[True]), failures=dict(sums[False]))


def credits(tallies: Sequence[Tally | None]) -> Credits | None:
    """Of the runs of one arm; None where nothing is known of them."""
    known = [own for own in tallies if own is not None]
    successes = _merged([own.successes for own in known])
    failures = _merged([own.failures for own in known])
    everything = [*successes.values(), *failures.values()]
    if not everything:
        return None
    rms = math.sqrt(sum(squares for _, _, squares in everything) / sum(count for count, _, _ in everything)) or 1.0
    return Credits(successes=_means(successes, rms), failures=_means(failures, rms))


def _added(one: Sum, other: Sum) -> Sum:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _merged(many: Sequence[Sums]) -> Sums:
    merged: dict[int, Sum] = defaultdict(lambda: NOTHING)
    for sums in many:
        for turn, own in sums.items():
            merged[turn] = _added(merged[turn], own)
    return merged


def _means(sums: Sums, rms: float) -> tuple[float | None, ...]:
    """Turn -> mean, None where there is nothing, up to the last turn that there is."""
    return tuple(
        sums[turn][1] / sums[turn][0] / rms if turn in sums else None for turn in range(max(sums, default=-1) + 1)
    )


def _groups(cell: Cell, run: Run) -> Iterator[tuple[float, Sequence[Played]]]:
    """The mixed groups of some steps of a run, with the share of training that was behind."""
    steps = int(cell.config.trainer["max_steps"])
    for step in sorted({round(i * (steps - 1) / max(LOOKED_AT - 1, 1)) for i in range(LOOKED_AT)}):
        for group in run.recorded(step).values():
            outcomes = {p.score.value >= 1.0 for p in group if p.score.error is None}
            if len(outcomes) == 2:
                yield step / steps, group
