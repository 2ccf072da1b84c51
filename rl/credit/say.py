"""How much say the process has: redistribution within what the outcome earned, and less of it as training goes on."""

from __future__ import annotations

from collections.abc import Sequence

from rl.credit.shapes import EPS, Advantages, Outcome, TurnRewards, judged, refuse_other_shape, standardised_rows


def soft_gate(
    advantages: Sequence[Sequence[float]],
    outcome: Outcome,
    turns: TurnRewards,
    *,
    strength: float = 1.0,
    low: float = 0.2,
    high: float = 2.0,
    ddof: int = 1,
    eps: float = EPS,
) -> Advantages:
    """A_k * w_k with w_k = clip(1 + strength * sign(A_k) * z(r_k), low, high), scaled to mean 1 in each episode.

    Process rewards move credit between the turns of an episode and never change its sign or its mean weight:
    a good turn earns more of a success, a bad one bears more of a failure. A turn that was not judged has z 0.

    Args:
        advantages: [G][K_i] of the outcome alone, the same for all turns of an episode.
        outcome: [G], None where there is no score.
        turns: [G][K_i] process rewards.
        strength: how far one standard deviation of a turn's reward moves its weight; 0 changes nothing.
        low: least weight before scaling.
        high: largest weight before scaling.
        ddof: of the standard deviation over all judged turns of the group.
        eps: added to it.

    Example, ddof 0, no eps: advantages (1, 1) and (-1,), turns (1, 0) and (0.5,): z is (1.22474, -1.22474) and
    (0,), the weights (2, 0.2) scaled to (1.81818, 0.18182), and 1.
    """
    refuse_other_shape("advantages", advantages, turns)
    z = standardised_rows(judged(outcome, turns, 1.0), ddof, eps)
    gated = []
    for row, own in zip(advantages, z, strict=True):
        weights = [min(max(1 + strength * ((a > 0) - (a < 0)) * x, low), high) for a, x in zip(row, own, strict=True)]
        mean = sum(weights) / len(weights) if weights else 1.0
        gated.append([a * w / mean for a, w in zip(row, weights, strict=True)])
    return gated


def annealed(done: float, start: float, end: float) -> float:
    """What is left of a weight when a share `done` of training is behind: 1 until `start`, then linearly 0 at `end`.

    Example: from 0.5 to 0.8, half of it is left at 0.65.
    """
    if done <= start:
        return 1.0
    return 0.0 if done >= end else (end - done) / (end - start)
