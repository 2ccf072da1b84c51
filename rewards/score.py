"""What an episode is worth, and how a plain function becomes a reward.

Not scored is not zero: a `Score` with `error` set is left out of the update and of every mean,
and counted. A judge that is down must not teach the model that its answer was wrong.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

from envs.errors import InputError
from envs.together import together
from envs.types import Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The worth of one episode: as a whole, and where known turn by turn.

    The two add up and never say the same thing twice: `value` is what the outcome is worth, `turns`
    what the way there is worth, and `total` is both.

    Example: an outcome of 1 with two graded steps out of three is
    `Score(value=1.0, turns=(0.3, None, 0.3), parts={"outcome": 1.0, "steps": 0.6})`, 1.6 in total.
    """

    value: float
    """The episode as a whole. Meaningless where `error` is set."""
    turns: tuple[float | None, ...] | None = None
    """One number a turn, None where the turn was not judged; None when no turn was."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named sub-scores, for people and logs."""
    error: str | None = None
    """Why there is no score. Set means: left out, and counted."""
    graders: Mapping[str, str] = field(default_factory=dict)
    """Name -> content hash of the graders that made it, where they are files that may change."""

    @classmethod
    def unscored(cls, error: str) -> Score:
        """A score that is none, and says why."""
        return cls(value=math.nan, error=error)

    @property
    def total(self) -> float:
        """`value` and the turns together; NaN where `error` is set."""
        return self.value + sum(turn for turn in self.turns or () if turn is not None)


class Reward(Protocol):
    """Anything that scores an episode."""

    async def __call__(self, episode: Episode, /) -> Score: ...


@runtime_checkable
class GroupReward(Reward, Protocol):
    """A reward that compares the episodes of a group with one another.

    Where episodes are played in groups it is asked for the group, once all of it has been played; called with a single
    episode it scores a group of one, which may well be unscored. Rewards made of one compare as well.
    """

    async def group(self, episodes: Sequence[Episode], /) -> list[Score]:
        """[G] the scores of G episodes of one task, in their order, whatever that order is."""
        ...


async def score_group(reward: Reward, episodes: Sequence[Episode]) -> list[Score]:
    """[G] what a reward says of G episodes of one task: compared where it compares, else one by one, at once."""
    if isinstance(reward, GroupReward):
        return await reward.group(episodes) if episodes else []
    return await together(reward(episode) for episode in episodes)


Scored: TypeAlias = Score | float | int | bool | None
RewardFunction: TypeAlias = Callable[..., Scored | Awaitable[Scored]]


def reward(function: RewardFunction, *, name: str | None = None, **options: Any) -> Reward:
    """Make a `Reward` of any function from an episode to a float, a bool, a `Score` or None.

    None means "cannot say" and becomes an unscored `Score`, and so do a value that is not finite, an
    `InputError` (a row without the field it needs, say) and an episode that broke. What else the
    function raises propagates: an error in a reward is a bug to be seen.

    Args:
        function: sync or async, called with the episode.
        name: what its part of the score is called; the function's name unless given.
        options: passed to the function as keywords.
    """
    label: str = name or str(getattr(function, "__name__", type(function).__name__))
    call = functools.partial(function, **options) if options else function

    async def scored(episode: Episode, /) -> Score:
        if episode.broken:
            return Score.unscored(f"the episode broke: {episode.fault or episode.stop}")
        try:
            result = call(episode)
            value = await result if inspect.isawaitable(result) else result
        except InputError as error:  # a row or a state that can't be judged is one episode's, not the run's
            return Score.unscored(f"{label}: {error}")
        return as_score(value, label, turns=len(episode.turns))

    scored.__name__ = label
    return scored


def as_score(value: Scored, name: str, *, turns: int) -> Score:
    """A `Score` of what a reward function returned for an episode of so many turns.

    Raises:
        TypeError: the value is neither a number, a `Score` nor None.
    """
    if value is None:
        return Score.unscored(f"{name} returned None")
    if isinstance(value, Score):
        return check(value, name, turns=turns)
    return check(Score(value=_number(value, name), parts={name: _number(value, name)}), name, turns=turns)


def check(score: Score, name: str, *, turns: int) -> Score:
    """The score with plain floats, or an unscored one where a number is not finite or turns are missing.

    Raises:
        TypeError: something in it is not a number.
    """
    if score.error is not None:
        return score
    value = _number(score.value, name)
    per_turn = None if score.turns is None else tuple(None if t is None else _number(t, name) for t in score.turns)
    parts = {part: _number(number, f"{name}.{part}") for part, number in score.parts.items()}
    if per_turn is not None and len(per_turn) != turns:
        return Score.unscored(f"{name} judged {len(per_turn)} turns of an episode that has {turns}")
    where = {name: value} | {f"{name}, turn {n}": t for n, t in enumerate(per_turn or ()) if t is not None}
    for what, number in (where | {f"{name}, part {part}": number for part, number in parts.items()}).items():
        if not math.isfinite(number):
            return Score.unscored(f"{what} is {number}")
    return replace(score, value=value, turns=per_turn, parts=parts)


def _number(value: Any, name: str) -> float:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"reward {name!r} returned {type(value).__name__}; expected a number, a Score or None")
    return float(value)
