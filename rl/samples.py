"""Groups to training rows: every sampled token carries the advantage of its turn.

Example: a prompt of 3 tokens, a turn of 2 sampled tokens, a tool result of 2, a last turn of 1, with
turn advantages (0.5, -1.0):

    completion_ids     a    b    r    r    c
    mask               1    1    0    0    1
    advantages       0.5  0.5  0.0  0.0 -1.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rl.chat import Row, row
from rl.collect import Group
from rl.credit import credit
from rl.rollout import Played


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training row, and the score it came from (None: left out of the update)."""

    row: Row
    advantages: tuple[float, ...]
    """One a completion token; 0 where nothing was sampled."""
    reward: float | None
    """Outcome and turn rewards together."""


def samples(group: Group, name: str, options: Mapping[str, Any], filler_id: int) -> list[Sample]:
    """The rows of a group, credit assigned.

    An episode that ended before its first turn becomes a row of one masked `filler_id`, so that the
    batch keeps its shape; it carries no loss.
    """
    outcome = [None if p.score.error else p.score.value for p in group.played]
    rewards = [_turn_rewards(p) for p in group.played]
    advantages = credit(name, outcome, rewards, **options)
    return [_sample(played, own, filler_id) for played, own in zip(group.played, advantages, strict=True)]


def _turn_rewards(played: Played) -> Sequence[float | None]:
    return played.score.turns if played.score.turns is not None else [None] * len(played.episode.turns)


def _sample(played: Played, advantages: Sequence[float], filler_id: int) -> Sample:
    reward = None if played.score.error else played.score.total
    if not played.episode.turns:
        filler = (filler_id,)
        empty = Row(prompt_ids=filler, completion_ids=filler, mask=(0,), logprobs=(0.0,), turns=(-1,))
        return Sample(row=empty, advantages=(0.0,), reward=reward)
    tokens = row(played.episode)
    spread = tuple(advantages[turn] if turn >= 0 else 0.0 for turn in tokens.turns)
    if reward is None:
        tokens = replace(tokens, mask=(0,) * len(tokens.mask))
    return Sample(row=tokens, advantages=spread, reward=reward)
