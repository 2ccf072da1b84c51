"""Return-to-go against a baseline that stays unbiased when the policy decides when to stop."""

from __future__ import annotations

from rl.credit.shapes import EPS, Advantages, Outcome, TurnRewards, alone, moments, nothing, returns_to_go


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
    if alone(outcome):
        return nothing(turns)
    to_go = returns_to_go(outcome, turns, process, gamma)
    scored = [row for row in to_go if row is not None]
    longest = max(map(len, scored))
    totals = [sum(row[k] if k < len(row) else 0.0 for row in scored) for k in range(longest)]
    _, std = moments([row[0] if row else 0.0 for row in scored], 1)
    divisor = std + EPS if scale else 1.0
    others = len(scored) - 1
    return [
        [0.0] * len(row) if own is None else [(g - (totals[k] - g) / others) / divisor for k, g in enumerate(own)]
        for own, row in zip(to_go, turns, strict=True)
    ]
