"""Rewards made of rewards. A part that can't be scored makes the whole unscored, and is named."""

from __future__ import annotations

from collections.abc import Mapping

from envs.errors import InputError
from envs.together import together
from envs.types import Episode
from rewards.score import Reward, Score


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

    async def scored(episode: Episode, /) -> Score:
        scores = await together(part(episode) for part, _ in parts.values())
        named = dict(zip(parts, scores, strict=True))
        if failed := _failed(named):
            return failed
        weights = [weight for _, weight in parts.values()]
        value = sum(weight * score.value for weight, score in zip(weights, scores, strict=True))
        turns = _add_turns([_scaled(score, weight) for weight, score in zip(weights, scores, strict=True)])
        return Score(value=value, turns=turns, parts=_named_parts(named), graders=_graders(named))

    return scored


def gated(*, first: Reward, then: Reward, threshold: float = 1.0) -> Reward:
    """One reward, and another that counts only where the first comes to the threshold.

    Example: style counts only in answers that are right: `gated(first=correct, then=style)` is the
    score of `correct`, plus that of `style` where `correct` is at least 1.

    Args:
        first: always counts. It is the `total` of its score that must come to the threshold.
        then: what may come on top. Not run where the gate is closed.
        threshold: what opens the gate.
    """

    async def scored(episode: Episode, /) -> Score:
        start = await first(episode)
        if failed := _failed({"first": start}):
            return failed
        named = {"first": start}
        if start.total >= threshold:
            named["then"] = await then(episode)
        if failed := _failed(named):
            return failed
        value = sum(score.value for score in named.values())
        turns = _add_turns([score.turns for score in named.values()])
        parts = _named_parts(named) | {"open": float("then" in named)}
        return Score(value=value, turns=turns, parts=parts, graders=_graders(named))

    return scored


def whole(part: Reward) -> Reward:
    """A reward's total as one value for the episode, and none per turn: the same worth, credited to the whole."""

    async def scored(episode: Episode, /) -> Score:
        score = await part(episode)
        if score.error is not None:
            return score
        return Score(value=score.total, parts=score.parts, graders=score.graders)

    return scored


def _failed(named: Mapping[str, Score]) -> Score | None:
    errors = [f"{name}: {score.error}" for name, score in named.items() if score.error is not None]
    return Score.unscored("; ".join(errors)) if errors else None


def _scaled(score: Score, weight: float) -> tuple[float | None, ...] | None:
    if score.turns is None:
        return None
    return tuple(None if turn is None else weight * turn for turn in score.turns)


def _add_turns(columns: list[tuple[float | None, ...] | None]) -> tuple[float | None, ...] | None:
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
