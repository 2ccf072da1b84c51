"""From the scores of a group to one advantage per turn: pure functions on plain lists, in a table.

Shapes: G episodes of one task, episode i with K_i turns. An episode that was not scored is None in
`outcome`; it is left out of every statistic and its advantages are 0.

`turns[i][k]` is the process reward of turn k, None where it was not judged (it then counts 0, and a
judged 0.0 is still a turn). The outcome is earned at the last turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from envs.errors import InputError

Outcome: TypeAlias = Sequence[float | None]
"""[G]"""
TurnRewards: TypeAlias = Sequence[Sequence[float | None]]
"""[G][K_i]"""
Advantages: TypeAlias = list[list[float]]
"""[G][K_i]"""

EPS = 1e-4
"""What TRL adds to a standard deviation before it divides by it."""


def credit(
    name: str,
    outcome: Outcome,
    turns: TurnRewards,
    states: Sequence[Sequence[str]] | None = None,
    **options: Any,
) -> Advantages:
    """One advantage per turn by the named estimator.

    Args:
        name: a key of `CREDIT`.
        outcome: [G], None where there is no score.
        turns: [G][K_i] process rewards; its lengths say how many turns each episode had.
        states: [G][K_i] hashes of what the policy saw, for estimators that group by state.

    Raises:
        InputError: no such estimator, or an option it does not have.
        ValueError: shapes that do not fit, or a score that is not finite.
    """
    if name not in CREDIT:
        raise InputError(f"credit.name: no estimator {name!r}; there are {', '.join(CREDIT)}")
    if len(outcome) != len(turns):
        raise ValueError(f"{len(outcome)} outcomes, {len(turns)} lists of turns")
    for value in (*outcome, *(reward for row in turns for reward in row)):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"a reward is {value}: leave it out (None) or mend the reward")
    try:
        return CREDIT[name](outcome, turns, **options)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise InputError(f"credit: {name} {str(error).split('() ')[-1]}") from error
        raise


def grpo(outcome: Outcome, turns: TurnRewards, *, ddof: int = 1, process: float = 1.0) -> Advantages:
    """A_i = (R_i - mean) / (std + eps), the same for every turn (arXiv 2402.03300).

    R_i is the outcome plus `process` times the sum of the turn rewards. Rewards (1, 0, 0, 1) have
    mean 0.5 and, with ddof 1, std 0.57735, so A = (0.86588, -0.86588, -0.86588, 0.86588).
    """
    returns = _returns(outcome, turns, process)
    mean, std = _moments(returns, ddof)
    return _spread([None if r is None else (r - mean) / (std + EPS) for r in returns], turns)


def dr_grpo(outcome: Outcome, turns: TurnRewards, *, process: float = 1.0) -> Advantages:
    """A_i = R_i - mean: GRPO without the division that favours easy and hard tasks (arXiv 2503.20783)."""
    returns = _returns(outcome, turns, process)
    mean, _ = _moments(returns, 0)
    return _spread([None if r is None else r - mean for r in returns], turns)


def rloo(outcome: Outcome, turns: TurnRewards, *, process: float = 1.0) -> Advantages:
    """A_i = R_i - mean of the others = G/(G-1) (R_i - mean) (arXiv 2402.14740). A lone episode has 0."""
    returns = _returns(outcome, turns, process)
    mean, _ = _moments(returns, 0)
    scored = sum(r is not None for r in returns)
    scale = scored / (scored - 1) if scored > 1 else 0.0
    return _spread([None if r is None else scale * (r - mean) for r in returns], turns)


def return_to_go_loo(
    outcome: Outcome, turns: TurnRewards, *, gamma: float = 1.0, process: float = 1.0, scale: bool = True
) -> Advantages:
    """Return-to-go per turn against the mean return-to-go, at that turn, of all other scored episodes.

    Episodes that have ended count 0 there (an absorbing state): centring over those still alive is
    biased when the policy decides when to stop. With `scale`, everything is divided by the standard
    deviation (ddof 1, plus eps) of the whole returns, so that without process rewards and with equal
    lengths it is RLOO over std.

    Example: outcomes (1, 0), turn rewards ((0, 0), (0.5,)), no scaling: returns-to-go are
    ((1, 1), (0.5,)), baselines ((0.5, 0), (1,)), advantages ((0.5, 1), (-0.5,)).
    """
    to_go = [
        None if r is None else _to_go([process * (x or 0.0) for x in row], r, gamma)
        for r, row in zip(outcome, turns, strict=True)
    ]
    scored = [row for row in to_go if row is not None]
    if len(scored) < 2:
        return [[0.0] * len(row) for row in turns]
    longest = max(map(len, scored))
    totals = [sum(row[k] if k < len(row) else 0.0 for row in scored) for k in range(longest)]
    _, std = _moments([row[0] if row else 0.0 for row in scored], 1)
    divisor = std + EPS if scale else 1.0
    others = len(scored) - 1
    return [
        [0.0] * len(row) if own is None else [(g - (totals[k] - g) / others) / divisor for k, g in enumerate(own)]
        for own, row in zip(to_go, turns, strict=True)
    ]


def _returns(outcome: Outcome, turns: TurnRewards, process: float) -> list[float | None]:
    return [
        None if r is None else r + process * math.fsum(x or 0.0 for x in row)
        for r, row in zip(outcome, turns, strict=True)
    ]


def _to_go(rewards: list[float], outcome: float, gamma: float) -> list[float]:
    """Discounted sums from each turn to the end, the outcome being earned at the last turn."""
    total, sums = 0.0, []
    for k in reversed(range(len(rewards))):
        total = rewards[k] + (outcome if k == len(rewards) - 1 else 0.0) + gamma * total
        sums.append(total)
    return sums[::-1]


def _moments(values: Sequence[float | None], ddof: int) -> tuple[float, float]:
    """Mean and standard deviation of what is there; (0, 0) of nothing, std 0 of one."""
    present = [v for v in values if v is not None]
    if not present:
        return 0.0, 0.0
    mean = math.fsum(present) / len(present)
    if len(present) <= ddof:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in present) / (len(present) - ddof))


def _spread(values: Sequence[float | None], turns: TurnRewards) -> Advantages:
    return [[value or 0.0] * len(row) for value, row in zip(values, turns, strict=True)]


CREDIT: dict[str, Callable[..., Advantages]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "return_to_go_loo": return_to_go_loo,
}
