"""Where in an episode the credit went: the mean advantage of each turn, computed anew from recorded groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rl.ablate.plan import Cell
from rl.credit import needs
from rl.records import Run
from rl.rollout import Played
from rl.samples import turn_credit

LOOKED_AT = 8
"""Steps of a run, evenly spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Mean advantage by turn, over groups that have successes and failures, divided by the arm's RMS."""

    successes: tuple[float | None, ...]
    """Turn -> mean; None where no success came so far."""
    failures: tuple[float | None, ...]


def credits(cells: Sequence[Cell]) -> Credits | None:
    """Of the runs of one arm; None where the records can't tell, as with a critic, whose values are not kept."""
    config = cells[0].config.credit
    if "values" in needs(config.name):
        return None
    sums: Mapping[bool, dict[int, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for cell in cells:
        for done, group in _groups(cell):
            credit = cell.config.credit.at(done)
            rows = turn_credit(group, credit.name, credit.options, gate=credit.soft_gate)
            for played, row in zip(group, rows, strict=True):
                if played.score.error is None:
                    for turn, advantage in enumerate(row):
                        sums[played.score.value >= 1.0][turn].append(advantage)
    everything = [a for by_turn in sums.values() for values in by_turn.values() for a in values]
    if not everything:
        return None
    rms = math.sqrt(fmean(a * a for a in everything)) or 1.0
    means = {kind: _means(by_turn, rms) for kind, by_turn in sums.items()}
    return Credits(successes=means[True], failures=means[False])


def _means(by_turn: Mapping[int, Sequence[float]], rms: float) -> tuple[float | None, ...]:
    """Turn -> mean, None where there is nothing, up to the last turn that there is."""
    turns = range(max(by_turn, default=-1) + 1)
    return tuple(fmean(by_turn[k]) / rms if by_turn.get(k) else None for k in turns)


def _groups(cell: Cell) -> Iterator[tuple[float, Sequence[Played]]]:
    """The mixed groups of some steps of a run, with the share of training that was behind."""
    run = Run.read(cell.path)
    steps = int(cell.config.trainer["max_steps"])
    for step in sorted({round(i * (steps - 1) / max(LOOKED_AT - 1, 1)) for i in range(LOOKED_AT)}):
        for group in run.recorded(step).values():
            outcomes = {p.score.value >= 1.0 for p in group if p.score.error is None}
            if len(outcomes) == 2:
                yield step / steps, group
