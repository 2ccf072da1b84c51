"""Estimators that compare turn rewards with each other, as published.

All three are biased where the policy decides when to stop: they compare a turn with those of episodes that
came as far, and nobody is told that an episode that ended earns nothing more (see docs/credit.md).
"""

from __future__ import annotations

import math

from rl.credit.shapes import (
    EPS,
    Advantages,
    Outcome,
    TurnRewards,
    alone,
    discounted,
    judged,
    nothing,
    spread,
    standardised,
    standardised_columns,
    standardised_rows,
)


def process_grpo(
    outcome: Outcome,
    turns: TurnRewards,
    *,
    ddof: int = 1,
    process: float = 1.0,
    outcome_weight: float = 0.0,
    eps: float = EPS,
) -> Advantages:
    """A_k = sum over l >= k of (r_l - mean) / (std + eps), mean and std over all steps of the group.

    Process supervision of arXiv 2402.03300, section 4.1.3. As published it knows step rewards alone: where
    the outcome is to count, `outcome_weight` times the outcome is added to the reward of the last turn.

    Example, ddof 0, no eps: turns ((0.2, 0.8), (0.6, 0)) have mean 0.4 and std 0.31623, so
    A = ((0.63246, 1.26491), (-0.63246, -1.26491)).
    """
    if alone(outcome):
        return nothing(turns)
    rewards = [[None if x is None else process * x for x in row] for row in judged(outcome, turns, process)]
    for r, row in zip(outcome, rewards, strict=True):
        if outcome_weight and r is not None and row:
            row[-1] = (row[-1] or 0.0) + outcome_weight * r
    return [discounted(row, 1.0) for row in standardised_rows(rewards, ddof, eps)]


def mt_grpo(
    outcome: Outcome, turns: TurnRewards, *, ddof: int = 1, process: float = 1.0, eps: float = EPS
) -> Advantages:
    """A_k = z(R) + process * z_k(r_k) before the last turn, and z(R) at the last (arXiv 2505.11821).

    z is GRPO's (x - mean) / (std + eps): over the group for the outcomes, and for turn k over the episodes
    that judged a turn k and went on after it. The reward of a last turn has no place here; the outcome does.

    Example, ddof 1, no eps: outcomes (1, 0, 0), first turns (0.5, 0.1, 0.3) of two: the first turns have
    A = (2.15470, -1.57735, -0.57735), the second (1.15470, -0.57735, -0.57735).
    """
    before_last = [[*row[:-1], None] if row else [] for row in judged(outcome, turns, process)]
    own = standardised_columns(before_last, ddof, eps)
    base = spread(standardised(outcome, ddof, eps), turns)
    return [[a + process * z for a, z in zip(*rows, strict=True)] for rows in zip(base, own, strict=True)]


def turn_return(
    outcome: Outcome,
    turns: TurnRewards,
    *,
    ddof: int = 1,
    gamma: float = 1.0,
    process: float = 1.0,
    by_turn: bool = False,
    root: bool = False,
    eps: float = EPS,
) -> Advantages:
    """A_k = r~_k + gamma A_{k+1}: turn rewards and outcomes each normalised by themselves, then summed to the end.

    Separate normalisation keeps many small turn rewards from drowning the outcome (arXiv 2510.14967, 2601.05242).
    r~ is process * z(r), over all judged turns of the group; at the last turn z(R) is added.

    Args:
        outcome: [G].
        turns: [G][K_i].
        ddof: of both standard deviations.
        gamma: discount per turn, of turn rewards and outcome alike.
        process: weight of the turn rewards.
        by_turn: normalise turn rewards within each turn index (arXiv 2605.06200).
        root: divide the sum of turn rewards by the root of the number of its judged terms, so that it does not
            grow with the turns still to come (arXiv 2605.06200).
        eps: added to both standard deviations.

    Example, ddof 0, no eps: turns ((.1, .3, None), (0, .2, None), (-.1, .1, None)), outcomes (1, 0, 0): the first
    episode has A = (2.96341, 2.96341, 1.41421); by turn and with the root, (3.14626, 2.63896, 1.41421).
    """
    if alone(outcome):
        return nothing(turns)
    rewards = judged(outcome, turns, process)
    normalised = (standardised_columns if by_turn else standardised_rows)(rewards, ddof, eps)
    finals = standardised(outcome, ddof, eps)
    advantages = []
    for z, own, row in zip(finals, normalised, rewards, strict=True):
        sums = discounted([process * r for r in own], gamma)
        if root:
            terms = discounted([float(x is not None) for x in row], 1.0)
            sums = [s / math.sqrt(max(n, 1.0)) for s, n in zip(sums, terms, strict=True)]
        last = len(row) - 1
        advantages.append([s + gamma ** (last - k) * z for k, s in enumerate(sums)])
    return advantages
