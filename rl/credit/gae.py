"""Generalised advantage estimation against a critic's values, by the token or by the turn (arXiv 1506.02438)."""

from __future__ import annotations

from collections.abc import Sequence

from envs.errors import InputError
from rl.credit.shapes import (
    Advantages,
    Outcome,
    TurnIds,
    TurnRewards,
    Values,
    earned,
    refuse_not_finite,
    refuse_other_shape,
)


def gae(
    outcome: Outcome,
    turns: TurnRewards,
    *,
    values: Values,
    turn_ids: TurnIds,
    gamma: float = 1.0,
    lam: float = 0.95,
    turn_gamma: float | None = None,
    process: float = 1.0,
) -> Advantages:
    """delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, over sampled tokens alone.

    Turn rewards are earned at the last token of their turn, the outcome at the last of all. Tokens that
    nobody sampled are transparent: their values are not looked at, and nothing is discounted over them.

    Args:
        outcome: [G].
        turns: [G][K_i].
        values: [G][T_i] what the critic expects at each token.
        turn_ids: [G][T_i] the turn of each token, -1 for tool results.
        gamma: discount per token.
        lam: how far to trust what was sampled over the critic, 0 to 1; at both levels, if there are two.
        turn_gamma: GAE at two levels: first over the turns' last tokens with this discount, whose
            returns then take the place of the turn rewards, with no bootstrap from one turn to the next
            (arXiv 2504.20073). None: one level.
        process: weight of the turn rewards.

    Returns:
        [G][T_i], one advantage a token, 0 where nothing was sampled.

    Example: turn ids (0, 0, -1, 1, 1), turn rewards (0.5, 0), outcome 1, values (.4, .5, 9, .6, .8):
    with lam 1 A = (1.1, 1.0, 0, 0.4, 0.2), with lam 0.95 (1.02198, 0.9705, 0, 0.39, 0.2).
    """
    refuse_other_shape("values", values, turn_ids)
    sampled = [[(v, k) for v, k in zip(*rows, strict=True) if k >= 0] for rows in zip(values, turn_ids, strict=True)]
    refuse_not_finite("value", [[v for v, _ in row] for row in sampled])
    advantages = []
    for i, (r, row, tokens, ids) in enumerate(zip(outcome, turns, sampled, turn_ids, strict=True)):
        if r is None:
            advantages.append([0.0] * len(ids))
            continue
        ends = _ends([k for _, k in tokens], len(row), episode=i)
        worth, own = earned(r, row, process), [v for v, _ in tokens]
        if turn_gamma is None:
            rewards = [0.0] * len(own)
            for end, reward in zip(ends, worth, strict=True):
                rewards[end] = reward
            found = iter(td_advantages(rewards, own, gamma, lam))
        else:
            found = iter(_two_levels(worth, own, ends, turn_gamma, gamma, lam))
        advantages.append([next(found) if k >= 0 else 0.0 for k in ids])
    return advantages


def gae_turn(
    outcome: Outcome,
    turns: TurnRewards,
    *,
    values: Values,
    gamma: float = 0.99,
    lam: float = 0.9,
    process: float = 1.0,
) -> Advantages:
    """delta_k = r_k + gamma V_{k+1} - V_k and A_k = delta_k + gamma lam A_{k+1}: a turn is one action.

    Turn-PPO, arXiv 2512.17008. With lam 0, gamma 1 and values that are means of continuations sampled
    from each prefix it is VinePPO's advantage (arXiv 2410.01679).

    Args:
        outcome: [G].
        turns: [G][K_i].
        values: [G][K_i] what the critic expects at the start of each turn.
        gamma: discount per turn.
        lam: how far to trust what was sampled over the critic, 0 to 1.
        process: weight of the turn rewards.

    Example: turn rewards (0.5, 0), outcome 1, values (0.4, 0.6): A = (1.0504, 0.4).
    """
    refuse_other_shape("values", values, turns)
    refuse_not_finite("value", values)
    return [
        [0.0] * len(row) if r is None else td_advantages(earned(r, row, process), own, gamma, lam)
        for r, row, own in zip(outcome, turns, values, strict=True)
    ]


def td_advantages(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> list[float]:
    """[T] from [T] and [T]; after the last the value is 0."""
    ahead = advantage = 0.0
    found = []
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        advantage = reward + gamma * ahead - value + gamma * lam * advantage
        ahead = value
        found.append(advantage)
    return found[::-1]


def _two_levels(
    worth: Sequence[float], values: Sequence[float], ends: Sequence[int], turn_gamma: float, gamma: float, lam: float
) -> list[float]:
    at_ends = [values[end] for end in ends]
    found: list[float] = []
    for end, advantage in zip(ends, td_advantages(worth, at_ends, turn_gamma, lam), strict=True):
        own = values[len(found) : end + 1]
        found += td_advantages([0.0] * (len(own) - 1) + [advantage + values[end]], own, gamma, lam)
    return found


def _ends(ids: Sequence[int], turns: int, *, episode: int) -> list[int]:
    """[K] the place of each turn's last token among the sampled ones."""
    if sorted(ids) != list(ids) or sorted(set(ids)) != list(range(turns)):
        raise InputError(
            f"credit: turn_ids of episode {episode} must go through its turns 0 to {turns - 1} in order, each with at "
            f"least one token; they go through {sorted(set(ids))}"
        )
    return [place for place, k in enumerate(ids) if place + 1 == len(ids) or ids[place + 1] != k]
