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

from rl.collect import Group
from rl.credit import WHITENED, credit, needs
from rl.credit.batch import Spread, rescaled, spread_of, whitened
from rl.credit.say import soft_gate
from rl.credit.shapes import Advantages
from rl.credit.states import state_keys
from rl.rollout import Played
from rl.rows import Row, row


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training row, and the score it came from (None: left out of the update)."""

    row: Row
    advantages: tuple[float, ...]
    """One a completion token; 0 where nothing was sampled."""
    reward: float | None
    """Outcome and turn rewards together."""
    values: tuple[float, ...] = ()
    """One a completion token, of a critic, if there is one: what it expected before that token."""
    returns: tuple[float | None, ...] = ()
    """And what it should have expected there; None where it is not asked."""


def token_rows(group: Group, filler_id: int) -> list[Row]:
    """The token rows of a group. An episode without a score keeps its tokens, and none of them is trained on.

    An episode that ended before its first turn becomes a row of one masked `filler_id`, so that the batch keeps its
    shape; it carries no loss.
    """
    return [_row(played, filler_id) for played in group.played]


def samples(
    group: Group, name: str, options: Mapping[str, Any], filler_id: int, *, gate: float | None = None
) -> list[Sample]:
    """The rows of a group, credit assigned.

    An estimator that whitens has its second half in `finished`.

    Args:
        group: what was played and scored.
        name: a key of `rl.credit.CREDIT`.
        options: its options, without those that are data.
        filler_id: a token of no meaning, see `token_rows`.
        gate: strength of `soft_gate`; the estimator then sees outcomes alone, and turn rewards redistribute.
    """
    by_turn = turn_credit(group.played, name, options, gate=gate)
    return [
        Sample(row=row, advantages=spread_out(row, own), reward=earned)
        for row, own, earned in zip(token_rows(group, filler_id), by_turn, totals(group.played), strict=True)
    ]


def turn_credit(
    played: Sequence[Played], name: str, options: Mapping[str, Any], *, gate: float | None = None
) -> Advantages:
    """[G][K_i] the advantage of each turn of a group, before anything is done to the batch as a whole.

    Args:
        played: the group's episodes.
        name: as in `samples`, and so are the options and the gate.
    """
    outcome, rewards = outcomes(played), turn_rewards(played)
    estimator = WHITENED.get(name, name)
    own = options if estimator == name else {key: options[key] for key in options.keys() & {"process"}}
    states = [state_keys(p.episode) for p in played] if "states" in needs(estimator) else None
    seen = rewards if gate is None else [[None] * len(row) for row in rewards]
    by_turn = credit(estimator, outcome, seen, states, **own)
    if gate is not None:
        return soft_gate(by_turn, outcome, rewards, strength=gate)
    return by_turn


def outcomes(played: Sequence[Played]) -> list[float | None]:
    """[G] what each episode came to, None where there is no score."""
    return [None if p.score.error else p.score.value for p in played]


def turn_rewards(played: Sequence[Played]) -> list[Sequence[float | None]]:
    """[G][K_i] what each turn earned, None where it was not judged."""
    return [p.score.turns if p.score.turns is not None else [None] * len(p.episode.turns) for p in played]


def totals(played: Sequence[Played]) -> list[float | None]:
    """[G] outcome and turn rewards together, None where there is no score."""
    return [None if p.score.error else p.score.total for p in played]


def spread_out(row: Row, by_turn: Sequence[float]) -> tuple[float, ...]:
    """One number a turn, given to each of its tokens; 0 where nothing was sampled."""
    return tuple(by_turn[turn] if turn >= 0 else 0.0 for turn in row.turns)


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
        replace(sample, advantages=tuple(a if m else 0.0 for a, m in zip(own, sample.row.mask, strict=True)))
        for sample, own in zip(rows, made, strict=True)
    ]


def _row(played: Played, filler_id: int) -> Row:
    if not played.episode.turns:
        filler = (filler_id,)
        return Row(prompt_ids=filler, completion_ids=filler, mask=(0,), logprobs=(0.0,), turns=(-1,))
    tokens = row(played.episode)
    return replace(tokens, mask=(0,) * len(tokens.mask)) if played.score.error else tokens
