"""The episodes of a group against one another, as RULER does (ART, OpenPipe), with the order controlled."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from envs.together import together
from envs.types import Episode
from rewards.graders.judge import JudgeError
from rewards.judging.ask import RECORD, Asked, Said, Unusable, object_of, parsed, schema_of
from rewards.judging.show import fenced, task_line, turn_lines, written
from rewards.score import Score

CRITERION = (
    "An episode that does what the task asks is better than one that does not. Among those that do, better is who "
    "keeps to the rules of the task, and then who needs fewer steps. Partial progress is better than none."
)
"""What better means, unless it is said."""

_WHAT = (
    "The record holds several episodes of one task, each after a line with its number. Score every episode from 0 to "
    "1, relative to the others: the better of two has the higher score, those that are equally good have the same. "
    "Their order says nothing. Give one score an episode, under its number."
)

EQUAL = 0.5
"""What every episode of a group scores whose episodes are all the same, of which no judge is asked."""


class _One(Said):
    episode: int
    why: str
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _All(Said):
    episodes: list[_One]


class Relative:
    """A reward that compares: the judge sees all episodes of a group in one request and scores each from 0 to 1.

    They are shown in an order that a hash of them all decides, so that it depends neither on who ended first nor on one
    episode alone, and by default a second time in the reverse of it: of a judge that favours places, whatever it
    adds to a place evenly from the first to the last falls out of the mean. Episodes that look the same are shown
    once and score the same.

    Args:
        asked: the judge.
        criterion: what better means.
        orders: in how many orders they are shown.
        chars: how much of each episode's text the judge is shown.
    """

    def __init__(self, asked: Asked, *, criterion: str, orders: Literal[1, 2], chars: int) -> None:
        self.asked, self._criterion, self._orders, self._chars = asked, criterion, orders, chars
        self.hash = asked.hash("relative", criterion, orders, chars)

    async def __call__(self, episode: Episode, /) -> Score:
        """Unscored: one episode alone can't be compared."""
        return (await self.group([episode]))[0]

    async def group(self, episodes: Sequence[Episode], /) -> list[Score]:
        """[G] the scores of the episodes of one task. Those that broke are left out; fewer than two can't be compared.

        Raises:
            ValueError: they are not of one task.
        """
        if len({episode.task.id for episode in episodes}) > 1:
            raise ValueError("relative compares episodes of one task")
        lines = [None if e.broken or not e.turns else tuple(turn_lines(e, self._chars)) for e in episodes]
        shown = [text for text in lines if text is not None]
        if len(shown) < 2:
            said = "relative compares the episodes of a group, and there are not two of this task that can be judged"
            return [Score.unscored(said)] * len(episodes)
        try:
            scores = await self._scores(task_line(episodes[0].task, self._chars), sorted(set(shown)))
        except (JudgeError, Unusable) as error:
            return [Score.unscored(f"relative: {error}")] * len(episodes)
        return [Score.unscored("there is nothing to judge") if t is None else self._score(scores[t]) for t in lines]

    def _score(self, value: float) -> Score:
        return Score(value=value, parts={"relative": value}, graders={"relative": self.hash})

    async def _scores(self, task: str, different: Sequence[_Lines]) -> dict[_Lines, float]:
        """The score of each of the episodes' texts, by the mean over the orders."""
        if len(different) == 1:
            return {different[0]: EQUAL}
        first = shuffled(different)
        orders = (first, first[::-1])[: self._orders]
        rounds = await together(self._round(task, order) for order in orders)
        return {text: sum(scores[text] for scores in rounds) / len(rounds) for text in different}

    async def _round(self, task: str, order: Sequence[_Lines]) -> dict[_Lines, float]:
        system = f"You compare what an assistant did.\n\n{RECORD}\n\n{self._criterion}\n\n{_WHAT}"
        lines = [line for n, text in enumerate(order, 1) for line in (written({"episode": n}), *text)]
        one = {"episode": {"type": "integer"}, "why": {"type": "string"}, "score": {"type": "number"}}
        schema = schema_of("scores", {"episodes": {"type": "array", "items": object_of(one)}})
        scores = await self.asked(system, fenced([task, *lines]), schema, lambda tree: _in_order(tree, len(order)))
        return dict(zip(order, scores, strict=True))


_Lines = tuple[str, ...]


def shuffled(texts: Sequence[_Lines]) -> list[_Lines]:
    """The texts in an order that they decide all together; the same whatever order they come in."""
    salt = _digest("\0".join("\n".join(lines) for lines in sorted(texts)))
    return sorted(texts, key=lambda lines: _digest(salt + "\n".join(lines)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _in_order(tree: Any, count: int) -> list[float]:
    """[count] the scores, by the numbers the judge gave."""
    said = parsed(_All, tree).episodes
    if sorted(one.episode for one in said) != list(range(1, count + 1)):
        raise Unusable(f"it needs one score for each of the episodes 1 to {count}, and nothing else")
    return [one.score for one in sorted(said, key=lambda one: one.episode)]
