"""Return-to-go against a baseline that stays unbiased when the policy decides when to stop."""

from __future__ import annotations

import math

from rl.credit.shapes import EPS, Advantages, Outcome, TurnRewards, alone, moments, nothing, returns_to_go


def return_to_go_loo(
    outcome: Outcome, turns: TurnRewards, *, gamma: float = 1.0, process: float = 1.0, scale: bool = True
) -> Advantages:
    """Return-to-go per turn against the mean return-to-go, at that turn, of all other scored episodes.

    Episodes that have ended count 0 there (an absorbing state): centring over those still alive is
    biased when the policy decides when to stop. With `scale`, everything is divided by the standard
    deviation (plus eps) of all returns-to-go of the group, those zeros among them, so that without process
    rewards and with equal lengths it is RLOO over std (ddof 1). That of the whole returns alone would not do:
    a group that returned the same by ways of other lengths has none, and its advantages would have no bound.

    Example: outcomes (1, 0), turn rewards ((0, 0), (0.5,)), no scaling: returns-to-go are
    ((1, 1), (0.5,)), baselines ((0.5, 0), (1,)), advantages ((0.5, 1), (-0.5,)).

    Example with scaling: outcomes (1, 1) after one turn and after two: all returns-to-go are 1, 1, 1 and a 0, their
    standard deviation is sqrt(0.1875 * 2 / 1) = 0.61237, advantages ((0,), (0, 1.63272)).
    """
    if alone(outcome):
        return nothing(turns)
    to_go = returns_to_go(outcome, turns, process, gamma)
    scored = [row for row in to_go if row is not None]
    longest = max(map(len, scored))
    absorbed = [[*row, *[0.0] * (longest - len(row))] for row in scored]
    totals = [math.fsum(column) for column in zip(*absorbed, strict=True)]
    others = len(scored) - 1
    _, std = moments([g for row in absorbed for g in row], 0)
    divisor = std * math.sqrt(len(scored) / others) + EPS if scale else 1.0
    return [
        [0.0] * len(row) if own is None else [(g - (totals[k] - g) / others) / divisor for k, g in enumerate(own)]
        for own, row in zip(to_go, turns, strict=True)
    ]
