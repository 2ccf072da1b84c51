"""Estimators that learn from states which several episodes of a group came through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from statistics import fmean

from envs.types import Episode
from rl.credit.gae import td_advantages
from rl.credit.shapes import (
    EPS,
    Advantages,
    Outcome,
    States,
    TurnRewards,
    alone,
    earned,
    moments,
    nothing,
    refuse_other_shape,
    returns,
    returns_to_go,
)


def gigpo(
    outcome: Outcome,
    turns: TurnRewards,
    *,
    states: States,
    gamma: float = 0.95,
    weight: float = 1.0,
    process: float = 1.0,
    by_row: bool = False,
    scale: bool = False,
    ddof: int = 1,
    eps: float = EPS,
) -> Advantages:
    """A_k = (R - mean) / F + weight * (G_k - mean of G over the same state) / F (arXiv 2505.10978).

    R is the whole return, G_k the discounted return-to-go. A state that only one turn came through adds 0,
    so where states never meet this is GRPO without the division.

    Args:
        outcome: [G].
        turns: [G][K_i].
        states: [G][K_i] keys of what the policy stood before.
        gamma: discount per turn of G.
        weight: of the part by states.
        process: weight of the turn rewards.
        by_row: let every turn count once in the mean of R, as verl-agent does: long episodes weigh more.
        scale: F is the standard deviation, of R and of each state's G; else F is 1.
        ddof: of those.
        eps: added to those.

    Example: without turn rewards, states (s0, s1) won, (s0, s0, s1) won, (s0, s2) lost: G is (.95, 1),
    (.9025, .95, 1), (0, 0); the mean over s0 is .700625, over R 2/3, so the first has A = (.58271, .33333).
    """
    refuse_other_shape("states", states, turns)
    whole = returns(outcome, turns, process)
    if alone(outcome):
        return nothing(turns)
    rows = [r for r, row in zip(whole, turns, strict=True) for _ in (row if by_row else (0,))]
    mean, std = moments(rows, ddof)
    divisor = std + eps if scale else 1.0
    to_go = returns_to_go(outcome, turns, process, gamma)
    by_state = {state: moments(found, ddof) for state, found in _by_state(to_go, states).items()}

    def step(g: float, state: str) -> float:
        centre, width = by_state[state]
        return (g - centre) / (width + eps if scale else 1.0) if g != centre else 0.0

    return [
        [0.0] * len(keys)
        if r is None or own is None
        else [(r - mean) / (divisor or 1.0) + weight * step(g, state) for g, state in zip(own, keys, strict=True)]
        for r, own, keys in zip(whole, to_go, states, strict=True)
    ]


def grouped_td(
    outcome: Outcome,
    turns: TurnRewards,
    *,
    states: States,
    gamma: float = 0.95,
    lam: float = 0.9,
    process: float = 1.0,
) -> Advantages:
    """GAE by the turn, a state's value being the mean return-to-go of all turns of the group that stood there.

    V(s) needs no critic; delta_k = r_k + gamma V(s_{k+1}) - V(s_k) (after arXiv 2605.13217).

    Example: the episodes of `gigpo`'s example have V = (.700625, 1, 0) for s0, s1, s2; with gamma .95 and
    lam .9 their advantages are (.249375, 0), (.178184, .249375, 0), (-.700625, 0).
    """
    refuse_other_shape("states", states, turns)
    if alone(outcome):
        return nothing(turns)
    found = _by_state(returns_to_go(outcome, turns, process, gamma), states)
    value = {state: fmean(own) for state, own in found.items()}
    return [
        [0.0] * len(row)
        if r is None
        else td_advantages(earned(r, row, process), [value[state] for state in keys], gamma, lam)
        for r, row, keys in zip(outcome, turns, states, strict=True)
    ]


def _by_state(to_go: Sequence[Sequence[float] | None], states: States) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for own, keys in zip(to_go, states, strict=True):
        for g, state in zip(own or (), keys if own else (), strict=True):
            found[state].append(g)
    return found


def state_keys(episode: Episode) -> list[str]:
    """[K] a key of what the policy stood before in each turn: 16 hex digits.

    Two turns stand before the same state if the same calls have come to the same results by then, in
    whatever order and however often. What the model wrote beside its calls does not count; nor does a call
    made twice to the same result, so that going round in a circle comes back to the same state.

    Example: look up a, look up b, and look up b, look up a, lead to the same third state; their second differ.
    """
    seen: set[tuple[str, str, str]] = set()
    keys = []
    for turn in episode.turns:
        keys.append(sha256(repr(sorted(seen)).encode()).hexdigest()[:16])
        calls = zip(turn.completion.message.tool_calls, turn.results, strict=False)  # the last may be cut short
        seen |= {(call.name, call.canonical, result.content) for call, result in calls}
    return keys
