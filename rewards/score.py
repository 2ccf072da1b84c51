"""What an episode is worth, and how a plain function becomes a reward.

Not scored is not zero: a `Score` with `error` set is left out of the update and of every mean,
and counted. A judge that is down must not teach the model that its answer was wrong.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from envs.types import Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The worth of one episode: as a whole, and where known turn by turn.

    Example: an outcome of 1 with two graded steps out of three is
    `Score(value=1.0, turns=(0.3, None, 0.3), parts={"outcome": 1.0, "steps": 0.6})`.
    """

    value: float
    """The episode as a whole. Meaningless where `error` is set."""
    turns: tuple[float | None, ...] | None = None
    """One number a turn, None where the turn was not judged; None when no turn was."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named sub-scores, for people and logs."""
    error: str | None = None
    """Why there is no score. Set means: left out, and counted."""

    @classmethod
    def unscored(cls, error: str) -> Score:
        """A score that is none, and says why."""
        return cls(value=math.nan, error=error)


class Reward(Protocol):
    """Anything that scores an episode."""

    async def __call__(self, episode: Episode, /) -> Score: ...


Scored: TypeAlias = Score | float | int | bool | None
RewardFunction: TypeAlias = Callable[[Episode], Scored | Awaitable[Scored]]


def reward(function: RewardFunction, *, name: str | None = None) -> Reward:
    """Make a `Reward` of any function from an episode to a float, a bool, a `Score` or None.

    None means "cannot say" and becomes an unscored `Score`, and so does a value that is not finite.
    What the function raises propagates: an error in a reward is a bug to be seen, unless the
    function says otherwise by returning `Score.unscored(...)`.
    """
    label: str = name or str(getattr(function, "__name__", type(function).__name__))

    async def scored(episode: Episode, /) -> Score:
        result = function(episode)
        value = await result if inspect.isawaitable(result) else result
        return as_score(value, label)

    scored.__name__ = label
    return scored


def as_score(value: Scored, name: str) -> Score:
    """A `Score` of what a reward function returned.

    Raises:
        TypeError: the value is neither a number, a `Score` nor None.
    """
    if isinstance(value, Score):
        return value
    if value is None:
        return Score.unscored(f"{name} returned None")
    if not isinstance(value, (int, float)):
        raise TypeError(f"reward {name!r} returned {type(value).__name__}; expected a number, a Score or None")
    if not math.isfinite(value):
        return Score.unscored(f"{name} returned {value}")
    return Score(value=float(value), parts={name: float(value)})
