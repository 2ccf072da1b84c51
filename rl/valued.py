"""Groups to training rows where a critic gave values: one state a sampled token, or one a turn.

Example: a turn of 2 sampled tokens, a tool result of 2, a last turn of 1, which earned 1; values before each token
(.5, .6, 9, 9, .7). By the token, with lam and gamma 1, and by the turn:

    advantages, gae           0.5  0.4    0    0  0.3
    returns, gae              1.0  1.0    -    -  1.0
    advantages, gae_turn      0.5  0.5    0    0  0.3
    returns, gae_turn         1.0    -    -    -  1.0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl.collect import Group
from rl.credit import credit, needs
from rl.rows import Row
from rl.samples import Sample, outcomes, spread_out, token_rows, totals, turn_rewards

Critic = Callable[[Sequence[Row]], Sequence[Sequence[float]]]
"""Rows -> what is expected before each completion token, [N][T_i]."""


def judged(
    groups: Sequence[Group], critic: Critic, name: str, options: Mapping[str, Any], filler_id: int
) -> list[list[Sample]]:
    """The rows of groups as `valued` makes them, each with the critic's values, which is asked once for all."""
    rows = [token_rows(group, filler_id) for group in groups]
    values = iter(critic([row for own in rows for row in own]))
    by_group = [[next(values) for _ in own] for own in rows]
    return [valued(group, own, name, options, filler_id) for group, own in zip(groups, by_group, strict=True)]


def valued(
    group: Group, values: Sequence[Sequence[float]], name: str, options: Mapping[str, Any], filler_id: int
) -> list[Sample]:
    """The rows of a group, credit assigned against a critic; its whitening is left to `rl.samples.finished`.

    Args:
        group: what was played and scored.
        values: [G][T_i] what the critic expected before each completion token of `rl.samples.token_rows`.
        name: "gae" or "gae_turn".
        options: its options, without those that are data.
        filler_id: a token of no meaning, see `rl.samples.token_rows`.
    """
    rows = token_rows(group, filler_id)
    by_token = "turn_ids" in needs(name)
    asked = [_sampled(row) if by_token else _beginnings(row) for row in rows]
    given: dict[str, Any] = {"turn_ids": [row.turns for row in rows]} if by_token else {}
    seen = [own if by_token else [own[t] for t in at] for own, at in zip(values, asked, strict=True)]
    found = credit(name, outcomes(group.played), turn_rewards(group.played), values=seen, **given, **options)
    made = []
    for row, own, at, credited, earned in zip(rows, values, asked, found, totals(group.played), strict=True):
        advantages = tuple(credited) if by_token else spread_out(row, credited)
        states = set(at) if earned is not None else set()
        returns = tuple(advantages[t] + own[t] if t in states else None for t in range(len(own)))
        made.append(Sample(row=row, advantages=advantages, reward=earned, values=tuple(own), returns=returns))
    return made


def _sampled(row: Row) -> list[int]:
    return [t for t, turn in enumerate(row.turns) if turn >= 0]


def _beginnings(row: Row) -> list[int]:
    """Where each turn has its first sampled token."""
    return [t for t, turn in enumerate(row.turns) if turn >= 0 and (t == 0 or row.turns[t - 1] != turn)]
