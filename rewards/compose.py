"""Rewards made of rewards. A part that can't be scored makes the whole unscored, and is named.

Each is written for the episodes of a group, of which one alone is the smallest, so that a part may compare them.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from envs.errors import InputError
from envs.together import together
from envs.types import Episode
from rewards.score import GroupReward, Reward, Score, score_group


def weighted(parts: Mapping[str, tuple[Reward, float]]) -> Reward:
    """The sum of named rewards, each times its weight: values with values, turns with turns.

    A turn that no part judged stays None; one that some judged is the sum over those. The parts of the
    score are the parts' totals before weighting, under their names, and what they consist of under
    `name.part`. The parts run at once.

    Example: `weighted({"outcome": (reward(state_equal), 1.0), "process": (reward(progress), 0.2)})`.

    Raises:
        InputError: there are no parts.
    """
    if not parts:
        raise InputError("a weighted reward needs at least one part")

    async def scored(episodes: Sequence[Episode]) -> list[Score]:
        columns = await together(score_group(part, episodes) for part, _ in parts.values())
        return [summed(dict(zip(parts, row, strict=True))) for row in zip(*columns, strict=True)]

    def summed(named: Mapping[str, Score]) -> Score:
        if failed := _failed(named):
            return failed
        return _summed(named, [weight for _, weight in parts.values()])

    return _made(scored, [part for part, _ in parts.values()])


def gated(*, first: Reward, then: Reward, threshold: float = 1.0, zero: bool = False) -> Reward:
    """One reward, and another that counts only where the first comes to the threshold.

    Example: style counts only in answers that are right: `gated(first=correct, then=style)` is the
    score of `correct`, plus that of `style` where `correct` is at least 1.

    Args:
        first: always counts. It is the `total` of its score that must come to the threshold.
        then: what may come on top. Not run where the gate is closed, so that its turns are not judged there. If it
            compares a group it is shown all of it, unless the gate is closed to all, and counts where it is open.
        threshold: what opens the gate.
        zero: run `then` where the gate is closed too, and count it 0: the same total, but estimators that
            compare turns with each other then see judged turns that paid nothing.
    """

    async def scored(episodes: Sequence[Episode]) -> list[Score]:
        starts = await score_group(first, episodes)
        opened = [start.error is None and start.total >= threshold for start in starts]
        asked = [start.error is None and (zero or is_open) for start, is_open in zip(starts, opened, strict=True)]
        # What compares is shown the whole group, and counts where the gate is open.
        seen = [any(asked)] * len(asked) if isinstance(then, GroupReward) else asked
        later = iter(await score_group(then, [e for e, is_seen in zip(episodes, seen, strict=True) if is_seen]))
        ends = [next(later) if is_seen else None for is_seen in seen]
        return [
            summed(start, end if is_asked else None, is_open)
            for start, end, is_asked, is_open in zip(starts, ends, asked, opened, strict=True)
        ]

    def summed(start: Score, end: Score | None, is_open: bool) -> Score:
        named = {"first": start} if end is None else {"first": start, "then": end}
        if failed := _failed(named):
            return failed
        score = _summed(named, [1.0, float(is_open)][: len(named)])
        return replace(score, parts={**score.parts, "open": float(is_open)})

    return _made(scored, [first, then])


def capped(*, part: Reward, limit: float) -> Reward:
    """A reward whose turns together pay no more than a limit: what would go beyond it pays nothing.

    Turns are counted from the first, deductions too, so that what was deducted can be earned again and no more.
    With a limit below what a success is worth, no amount of steps makes a failure worth as much.

    Args:
        part: its turns are capped, its value is not.
        limit: what they may come to.

    Raises:
        InputError: the limit is not above 0.

    Example: with limit 0.5, turns (0.3, 0.3, -0.1, 0.3) pay (0.3, 0.2, -0.1, 0.1).
    """
    if not limit > 0:
        raise InputError(f"capped: limit is what the turns may come to, above 0, not {limit!r}")

    def cap(turns: Turns) -> Turns:
        paid, found = 0.0, list[float | None]()
        for turn in turns:
            own = None if turn is None else min(turn, limit - paid)
            found.append(own)
            paid += own or 0.0
        return tuple(found)

    return _on_turns(part, cap)


def shaped(*, potential: Reward, gamma: float = 1.0) -> Reward:
    """Potential-based shaping: turns show how far an episode has come, and all they paid is paid back at its end.

    A state's potential is what the turns before it have paid. A turn is worth gamma Phi(s') - Phi(s), and the
    end has potential 0, so that the discounted sum is 0 for every episode: what is best stays best, and
    collecting steps pays nothing (Ng, Harada and Russell, ICML 1999).

    Args:
        potential: its turns are what was advanced, as those of `progress`; its value stays as it is.
        gamma: the discount that the estimator uses.

    Example: turns (1, None, 1) have potentials (0, 1, 1), and with gamma 1 are worth (1, 0, -1).
    """

    def shape(turns: Turns) -> Turns:
        paid = [turn or 0.0 for turn in turns]
        return shaping([sum(paid[:k]) for k in range(len(paid))], gamma)

    return _on_turns(potential, shape)


def shaping(potentials: Sequence[float], gamma: float) -> tuple[float, ...]:
    """[K] gamma Phi(s_{k+1}) - Phi(s_k) of the potentials [K] before each turn; the end has potential 0.

    Example: potentials (0.2, 0.5) with gamma 0.9 give (0.25, -0.5).
    """
    return tuple(gamma * after - before for before, after in pairwise((*potentials, 0.0)))


def min_form(*, part: Reward, temperature: float = 0.1) -> Reward:
    """A reward whose turns together pay about as much as the worst of them: each times softmax(-r / T) over the turns.

    A chain is as good as its weakest step, so that further good steps can't make up for a bad one
    (PURE, arXiv 2504.08662).

    Args:
        part: its turns are weighted, its value is not.
        temperature: T; the smaller, the nearer to the minimum.

    Raises:
        InputError: the temperature is not above 0.

    Example: turns (0.9, 0.2, 0.7) have weights (0.0009, 0.9924, 0.0067) and pay 0.20398 together.
    """
    if not temperature > 0:
        raise InputError(f"min_form: temperature is above 0, not {temperature!r}")

    def weigh(turns: Turns) -> Turns:
        least = min((turn for turn in turns if turn is not None), default=0.0)
        weights = [0.0 if turn is None else math.exp((least - turn) / temperature) for turn in turns]
        total = math.fsum(weights)
        return tuple(None if turn is None else turn * w / total for turn, w in zip(turns, weights, strict=True))

    return _on_turns(part, weigh)


def whole(part: Reward) -> Reward:
    """A reward's total as one value for the episode, and none per turn: the same worth, credited to the whole."""

    def as_value(score: Score) -> Score:
        if score.error is not None:
            return score
        return Score(value=score.total, parts=score.parts, graders=score.graders)

    return _mapped(part, as_value)


Turns: TypeAlias = tuple[float | None, ...]


def _on_turns(part: Reward, change: Callable[[Turns], Turns]) -> Reward:
    """The reward with other turns; one that judged none stays as it is."""

    def changed(score: Score) -> Score:
        if score.error is not None or score.turns is None:
            return score
        return replace(score, turns=change(score.turns))

    return _mapped(part, changed)


def _mapped(part: Reward, change: Callable[[Score], Score]) -> Reward:
    """The reward with other scores."""

    async def scored(episodes: Sequence[Episode]) -> list[Score]:
        return [change(score) for score in await score_group(part, episodes)]

    return _made(scored, [part])


def _made(scored: Callable[[Sequence[Episode]], Awaitable[list[Score]]], parts: Sequence[Reward]) -> Reward:
    """A reward of what is known about groups; where a part compares them, so does the whole."""
    if any(isinstance(part, GroupReward) for part in parts):
        return _Comparing(scored)

    async def alone(episode: Episode, /) -> Score:
        return (await scored([episode]))[0]

    return alone


@dataclass(frozen=True, slots=True)
class _Comparing:
    """A `GroupReward` made of others."""

    scored: Callable[[Sequence[Episode]], Awaitable[list[Score]]]

    async def __call__(self, episode: Episode, /) -> Score:
        return (await self.scored([episode]))[0]

    async def group(self, episodes: Sequence[Episode], /) -> list[Score]:
        return await self.scored(episodes)


def _summed(named: Mapping[str, Score], weights: Sequence[float]) -> Score:
    scores = named.values()
    value = sum(weight * score.value for weight, score in zip(weights, scores, strict=True))
    turns = _add_turns([_scaled(score, weight) for weight, score in zip(weights, scores, strict=True)])
    return Score(value=value, turns=turns, parts=_named_parts(named), graders=_graders(named))


def _failed(named: Mapping[str, Score]) -> Score | None:
    errors = [f"{name}: {score.error}" for name, score in named.items() if score.error is not None]
    return Score.unscored("; ".join(errors)) if errors else None


def _scaled(score: Score, weight: float) -> Turns | None:
    if score.turns is None:
        return None
    return tuple(None if turn is None else weight * turn for turn in score.turns)


def _add_turns(columns: list[Turns | None]) -> Turns | None:
    """Turn by turn, the sum of those that say something; None where nobody does."""
    judged = [column for column in columns if column is not None]
    if not judged:
        return None
    rows = ([value for value in row if value is not None] for row in zip(*judged, strict=True))
    return tuple(sum(row) if row else None for row in rows)


def _graders(named: Mapping[str, Score]) -> dict[str, str]:
    """The graders of all parts: by the part's name where it has one, below it where it has several."""
    found: dict[str, str] = {}
    for name, score in named.items():
        found |= {
            name if len(score.graders) == 1 else f"{name}.{grader}": digest for grader, digest in score.graders.items()
        }
    return found


def _named_parts(named: Mapping[str, Score]) -> dict[str, float]:
    """The totals by name, and below each what it consists of, where that is more than one thing."""
    parts: dict[str, float] = {}
    for name, score in named.items():
        parts[name] = score.total
        if len(score.parts) > 1:
            parts |= {f"{name}.{part}": value for part, value in score.parts.items()}
    return parts
