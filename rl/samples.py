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
from rl.credit import WHITENED, credit, needs
from rl.credit.batch import Spread, rescaled, spread_of, whitened
from rl.credit.say import soft_gate
from rl.credit.shapes import Advantages
from rl.credit.states import state_keys
from rl.rollout import Played


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training row, and the score it came from (None: left out of the update)."""

    row: Row
    advantages: tuple[float, ...]
    """One a completion token; 0 where nothing was sampled."""
    reward: float | None
    """Outcome and turn rewards together."""


def samples(
    group: Group, name: str, options: Mapping[str, Any], filler_id: int, *, gate: float | None = None
) -> list[Sample]:
    """The rows of a group, credit assigned.

    An episode that ended before its first turn becomes a row of one masked `filler_id`, so that the
    batch keeps its shape; it carries no loss. An estimator that whitens has its second half in `finished`.

    Args:
        group: what was played and scored.
        name: a key of `rl.credit.CREDIT`.
        options: its options, without those that are data.
        filler_id: a token of no meaning.
        gate: strength of `soft_gate`; the estimator then sees outcomes alone, and turn rewards redistribute.
    """
    by_turn = turn_credit(group.played, name, options, gate=gate)
    return [_sample(played, row, filler_id) for played, row in zip(group.played, by_turn, strict=True)]


def turn_credit(
    played: Sequence[Played], name: str, options: Mapping[str, Any], *, gate: float | None = None
) -> Advantages:
    """[G][K_i] the advantage of each turn of a group, before anything is done to the batch as a whole.

    Args:
        played: the group's episodes.
        name: as in `samples`, and so are the options and the gate.
    """
    outcome = [None if p.score.error else p.score.value for p in played]
    rewards = [_turn_rewards(p) for p in played]
    estimator = WHITENED.get(name, name)
    own = options if estimator == name else {key: options[key] for key in options.keys() & {"process"}}
    states = [state_keys(p.episode) for p in played] if "states" in needs(estimator) else None
    seen = rewards if gate is None else [[None] * len(row) for row in rewards]
    by_turn = credit(estimator, outcome, seen, states, **own)
    if gate is not None:
        return soft_gate(by_turn, outcome, rewards, strength=gate)
    return by_turn


def advantages(rows: Sequence[Sample]) -> list[Sequence[float]]:
    """[N][T_i] by the completion token."""
    return [sample.advantages for sample in rows]


def spread(rows: Sequence[Sample]) -> Spread:
    """How the advantages of these rows' sampled tokens are spread."""
    return spread_of(advantages(rows), [sample.row.mask for sample in rows])


def finished(
    rows: Sequence[Sample], over: Spread, name: str, options: Mapping[str, Any], *, rms: float | None = None
) -> list[Sample]:
    """The rows with what their estimator, or a fixed RMS, asks of the batch as a whole.

    Args:
        rows: from `samples`, of any number of groups.
        over: the spread of the whole batch, those of other processes added.
        name: the estimator they came from.
        options: its options.
        rms: what the root mean square of the advantages of sampled tokens is to be; None leaves it.
    """
    if name in WHITENED:
        own = {key: options[key] for key in options.keys() & {"ddof", "eps"}}
        made = whitened(advantages(rows), over, **own)
    elif rms is not None:
        made = rescaled(advantages(rows), over, rms=rms)
    else:
        return list(rows)
    return [
        replace(sample, advantages=tuple(a if m else 0.0 for a, m in zip(row, sample.row.mask, strict=True)))
        for sample, row in zip(rows, made, strict=True)
    ]


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
