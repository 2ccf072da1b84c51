"""One advantage an episode, the same for all its turns: GRPO and its relatives.

R_i is the outcome plus `process` times the sum of the turn rewards of episode i.
"""

from __future__ import annotations

from rl.credit.batch import spread_of, whitened
from rl.credit.shapes import (
    EPS,
    Advantages,
    Counts,
    Outcome,
    TurnRewards,
    moments,
    refuse_other_shape,
    returns,
    spread,
    standardised,
)


def grpo(outcome: Outcome, turns: TurnRewards, *, ddof: int = 1, process: float = 1.0, eps: float = EPS) -> Advantages:
    """A_i = (R_i - mean) / (std + eps) (arXiv 2402.03300). `ddof` 1 is TRL's and verl's standard deviation.

    Example: rewards (1, 0, 0, 1) have mean 0.5 and, with ddof 1, std 0.57735, so
    A = (0.86588, -0.86588, -0.86588, 0.86588). Without eps, (1, 0, 0, 0) gives (1.5, -0.5, -0.5, -0.5).
    """
    return spread(standardised(returns(outcome, turns, process), ddof, eps), turns)


def dr_grpo(outcome: Outcome, turns: TurnRewards, *, process: float = 1.0) -> Advantages:
    """A_i = R_i - mean: GRPO without the division that favours easy and hard tasks (arXiv 2503.20783).

    Example: rewards (1, 0, 0, 0) give (0.75, -0.25, -0.25, -0.25).
    """
    earned = returns(outcome, turns, process)
    mean, _ = moments(earned, 0)
    return spread([None if r is None else r - mean for r in earned], turns)


def rloo(outcome: Outcome, turns: TurnRewards, *, process: float = 1.0) -> Advantages:
    """A_i = R_i - mean of the others = G/(G-1) (R_i - mean) (arXiv 2402.14740). A lone episode has 0.

    Example: rewards (1, 0, 0, 0) give (1, -1/3, -1/3, -1/3).
    """
    earned = returns(outcome, turns, process)
    mean, _ = moments(earned, 0)
    scored = sum(r is not None for r in earned)
    scale = scored / (scored - 1) if scored > 1 else 0.0
    return spread([None if r is None else scale * (r - mean) for r in earned], turns)


def reinforce_pp(
    outcome: Outcome,
    turns: TurnRewards,
    *,
    tokens: Counts | None = None,
    ddof: int = 0,
    process: float = 1.0,
    eps: float = EPS,
) -> Advantages:
    """R_i - mean of the group, then whitened over all sampled tokens of the batch (arXiv 2501.03262, "baseline").

    Here the batch is this one group; in training it is all groups of a step, on all processes.

    Args:
        outcome: [G].
        turns: [G][K_i].
        tokens: [G][K_i] sampled tokens of each turn; one each unless given.
        ddof: of the standard deviation over tokens.
        process: weight of the turn rewards.
        eps: added to the standard deviation.

    Example: rewards (1, 0) on 5 and 6 tokens: centred (0.5, -0.5), token mean -0.04545, std 0.49793, so
    A = (1.09545, -0.91287) without eps.
    """
    tokens = [[1] * len(row) for row in turns] if tokens is None else tokens
    refuse_other_shape("tokens", tokens, turns)
    counted = [[0] * len(n) if r is None else n for r, n in zip(outcome, tokens, strict=True)]
    centred = dr_grpo(outcome, turns, process=process)
    white = whitened(centred, spread_of(centred, counted), ddof=ddof, eps=eps)
    return [[0.0] * len(row) if r is None else row for r, row in zip(outcome, white, strict=True)]
