"""What goes into an estimator and what comes out, as plain lists, and the sums that several of them take.

Shapes: G episodes of one task, episode i with K_i turns. An episode that was not scored is None in the
outcome: it is left out of every statistic, and its advantages are 0. A turn that was not judged is None:
it is left out of every statistic of turns and adds nothing to a sum; a judged 0.0 is a turn like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from envs.errors import InputError

Outcome: TypeAlias = Sequence[float | None]
"""[G]; earned at the last turn."""
TurnRewards: TypeAlias = Sequence[Sequence[float | None]]
"""[G][K_i] process rewards."""
States: TypeAlias = Sequence[Sequence[str]]
"""[G][K_i] a key of what the policy stood before in that turn; equal keys are the same state."""
Values: TypeAlias = Sequence[Sequence[float]]
"""[G][K_i] or [G][T_i] what a critic expected there."""
TurnIds: TypeAlias = Sequence[Sequence[int]]
"""[G][T_i] the turn that sampled each token, -1 for tokens that nobody sampled."""
Counts: TypeAlias = Sequence[Sequence[int]]
"""[G][K_i] sampled tokens of each turn."""
Advantages: TypeAlias = list[list[float]]
"""[G][K_i]"""

EPS = 1e-4
"""What TRL adds to a standard deviation before it divides by it."""


def returns(outcome: Outcome, turns: TurnRewards, process: float) -> list[float | None]:
    """[G] the outcome plus `process` times the sum of the turn rewards."""
    return [
        None if r is None else r + process * math.fsum(x or 0.0 for x in row)
        for r, row in zip(outcome, turns, strict=True)
    ]


def returns_to_go(outcome: Outcome, turns: TurnRewards, process: float, gamma: float) -> list[list[float] | None]:
    """[G][K_i] discounted sums from each turn to the end, the outcome being earned at the last turn."""
    return [
        None if r is None else discounted(earned(r, row, process), gamma) for r, row in zip(outcome, turns, strict=True)
    ]


def earned(outcome: float, turns: Sequence[float | None], process: float) -> list[float]:
    """[K] what each turn paid: `process` times its reward, and at the last one the outcome."""
    last = len(turns) - 1
    return [process * (x or 0.0) + (outcome if k == last else 0.0) for k, x in enumerate(turns)]


def discounted(rewards: Sequence[float], gamma: float) -> list[float]:
    """[K] sums from each place to the end: (1, 2) with gamma 0.5 gives (2, 2)."""
    total, sums = 0.0, []
    for reward in reversed(rewards):
        total = reward + gamma * total
        sums.append(total)
    return sums[::-1]


def moments(values: Sequence[float | None], ddof: int) -> tuple[float, float]:
    """Mean and standard deviation of what is there; (0, 0) of nothing, std 0 of one."""
    present = [v for v in values if v is not None]
    if not present:
        return 0.0, 0.0
    mean = math.fsum(present) / len(present)
    if len(present) <= ddof:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in present) / (len(present) - ddof))


def standardised(values: Sequence[float | None], ddof: int, eps: float) -> list[float]:
    """(v - mean) / (std + eps); 0 for what is missing, and without eps where all are the same."""
    mean, std = moments(values, ddof)
    alike = len({v for v in values if v is not None}) < 2
    divisor = 0.0 if alike and not eps else std + eps
    return [0.0 if v is None or not divisor else (v - mean) / divisor for v in values]


def standardised_rows(rows: TurnRewards, ddof: int, eps: float) -> list[list[float]]:
    """`standardised` over all places of all rows at once, in the shape of the rows."""
    flat = iter(standardised([x for row in rows for x in row], ddof, eps))
    return [[next(flat) for _ in row] for row in rows]


def standardised_columns(rows: TurnRewards, ddof: int, eps: float) -> list[list[float]]:
    """`standardised` over each turn index by itself, in the shape of the rows."""
    width = max(map(len, rows), default=0)
    columns = [standardised([row[k] if k < len(row) else None for row in rows], ddof, eps) for k in range(width)]
    return [[columns[k][i] for k in range(len(row))] for i, row in enumerate(rows)]


def judged(outcome: Outcome, turns: TurnRewards, process: float) -> list[list[float | None]]:
    """[G][K_i] the turn rewards that count in a statistic: None where the episode has no score, and with process 0."""
    return [[None if r is None or not process else x for x in row] for r, row in zip(outcome, turns, strict=True)]


def spread(values: Sequence[float | None], turns: TurnRewards) -> Advantages:
    """One value an episode, given to each of its turns."""
    return [[value or 0.0] * len(row) for value, row in zip(values, turns, strict=True)]


def alone(outcome: Outcome) -> bool:
    """Whether fewer than two episodes have a score: there is nothing to compare them with."""
    return sum(r is not None for r in outcome) < 2


def nothing(turns: TurnRewards) -> Advantages:
    """0 for every turn."""
    return [[0.0] * len(row) for row in turns]


def refuse_other_shape(name: str, rows: Sequence[Sequence[object]], like: Sequence[Sequence[object]]) -> None:
    """
    Raises:
        InputError: the rows have other lengths than those of `like`.
    """
    if len(rows) != len(like):
        raise InputError(f"credit: {name} of {len(rows)} episodes, where there are {len(like)}")
    for i, (row, other) in enumerate(zip(rows, like, strict=True)):
        if len(row) != len(other):
            raise InputError(f"credit: {name} of episode {i} has {len(row)} entries, where there are {len(other)}")


def refuse_not_finite(name: str, rows: Sequence[Sequence[float | None]]) -> None:
    """
    Raises:
        InputError: a number is NaN or infinite; the message says which.
    """
    for i, row in enumerate(rows):
        for k, value in enumerate(row):
            if value is not None and not math.isfinite(value):
                raise InputError(
                    f"credit: {name} {k} of episode {i} is {value}; leave it out (None) or mend its source"
                )
