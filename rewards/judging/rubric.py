"""An episode, or each of its turns, against criteria with weights (Rubrics as Rewards, arXiv 2507.17746)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from envs.errors import InputError, reasons
from envs.types import Episode
from rewards.graders.judge import JudgeError
from rewards.judging.ask import RECORD, Asked, Said, Unusable, object_of, parsed, schema_of
from rewards.judging.show import fenced, task_line, turn_lines
from rewards.score import Score

Per = Literal["step", "trajectory"]

UNJUDGED = "unjudged"
"""The part of a score that says what share of the turns the judge left out."""

_WHAT: dict[Per, str] = {
    "trajectory": "Judge the record as a whole: for each criterion, whether it is met.",
    "step": "Judge every turn by itself, knowing what came before it: for each turn and each criterion, whether it is "
    "met by that turn. Give one verdict a turn, under the turn's number.",
}


class Criterion(BaseModel):
    """One thing that is met or not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")
    says: str = Field(min_length=1)
    """What the judge is told, as "It looks the order up before it changes it."."""
    weight: float = Field(1.0, allow_inf_nan=False)
    """Below 0 for a pitfall: what must not be met, as "It claims an approval that nobody gave."."""


def read_criteria(value: Any, where: str = "criteria") -> tuple[Criterion, ...]:
    """Criteria of plain data: a list of mappings with `name`, `says` and `weight`.

    Raises:
        InputError: they are no criteria, there are none, two of one name, or none that weighs anything.
    """
    try:
        found = TypeAdapter(Annotated[tuple[Criterion, ...], Field(min_length=1)]).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{where}: {reasons(error)}") from error
    names = [criterion.name for criterion in found]
    for name in names:
        if names.count(name) > 1 or name == UNJUDGED:
            raise InputError(f"{where}: the name {name!r} is taken; every criterion has one of its own")
    if all(criterion.weight == 0 for criterion in found):
        raise InputError(f"{where}: no criterion weighs anything; give one a weight other than 0")
    return found


def worth(criteria: Sequence[Criterion], met: Mapping[str, bool]) -> float:
    """r = sum_j w_j c_j / sum_{w_j > 0} w_j, c_j being 1 where criterion j is met, else 0.

    1 where all is met and no pitfall is, 0 where nothing is, below 0 where pitfalls outweigh the rest. Where all
    criteria are pitfalls, the divisor is sum_j |w_j|: 0 without any of them, -1 with all.

    Example: weights 2, 1 and -1, with the first and the last met, are worth (2 - 1) / 3.
    """
    above = sum(criterion.weight for criterion in criteria if criterion.weight > 0)
    total = above or sum(abs(criterion.weight) for criterion in criteria)
    return sum(criterion.weight for criterion in criteria if met[criterion.name]) / total


class _Verdict(Said):
    why: str
    met: dict[str, bool]


class _Turn(_Verdict):
    turn: int


class _Turns(Said):
    turns: list[_Turn]


class Rubric:
    """A judge's verdict on an episode, criterion by criterion.

    Args:
        asked: the judge.
        criteria: for every episode; or `field`, where each task's row has its own.
        per: whether a verdict is one turn's or the episode's. Either way there is one request.
        chars: how much of an episode's text the judge is shown, see `rewards.judging.show.shortened`.
    """

    def __init__(
        self, asked: Asked, *, criteria: Sequence[Criterion] = (), field: str | None = None, per: Per, chars: int
    ) -> None:
        self.asked, self._criteria, self._field, self._per, self._chars = asked, tuple(criteria), field, per, chars
        self.hash = asked.hash("rubric", [c.model_dump() for c in criteria], field, per, chars)

    async def __call__(self, episode: Episode, /) -> Score:
        """The score: a value per trajectory, or turns per step, None where the judge left a turn out.

        Its parts are the share of verdicts by which each criterion is met. A judge that can't be had, and one whose
        answers can't be used, leave the episode unscored.
        """
        if episode.broken or not episode.turns:
            return Score.unscored(f"there is nothing to judge: {episode.fault or episode.stop}")
        try:
            criteria = self._criteria or read_criteria(episode.task.item.get(self._field or ""), f"item.{self._field}")
            verdicts = await self._verdicts(episode, criteria)
        except (InputError, JudgeError, Unusable) as error:
            return Score.unscored(f"rubric: {error}")
        given = [met for met in verdicts if met is not None]
        parts = {c.name: fmean(met[c.name] for met in given) for c in criteria}
        graders = {"rubric": self.hash}
        if self._per == "trajectory":
            return Score(value=worth(criteria, given[0]), parts=parts, graders=graders)
        turns = tuple(None if met is None else worth(criteria, met) for met in verdicts)
        return Score(value=0.0, turns=turns, parts=parts | {UNJUDGED: 1 - len(given) / len(turns)}, graders=graders)

    async def _verdicts(self, episode: Episode, criteria: Sequence[Criterion]) -> list[dict[str, bool] | None]:
        """[K] what each turn met, None where the judge did not say; or [1] of the whole."""
        names = [criterion.name for criterion in criteria]
        listed = "\n".join(f"- {criterion.name}: {criterion.says}" for criterion in criteria)
        system = f"You judge what an assistant did.\n\n{RECORD}\n\nThe criteria:\n{listed}\n\n{_WHAT[self._per]}"
        shown = fenced([task_line(episode.task, self._chars), *turn_lines(episode, self._chars)])
        met = object_of({name: {"type": "boolean"} for name in names})
        verdict = {"why": {"type": "string"}, "met": met}
        if self._per == "trajectory":
            schema = schema_of("verdict", verdict)
            return await self.asked(system, shown, schema, lambda tree: [_met(parsed(_Verdict, tree), names)])
        one = object_of({"turn": {"type": "integer"}, **verdict})
        schema = schema_of("verdicts", {"turns": {"type": "array", "items": one}})
        return await self.asked(system, shown, schema, lambda tree: _by_turn(tree, names, len(episode.turns)))


def _by_turn(tree: Any, names: Sequence[str], turns: int) -> list[dict[str, bool] | None]:
    found: list[dict[str, bool] | None] = [None] * turns
    for said in parsed(_Turns, tree).turns:
        if not 1 <= said.turn <= turns:
            raise Unusable(f"there is no turn {said.turn}: they are numbered 1 to {turns}")
        if found[said.turn - 1] is not None:
            raise Unusable(f"it has two verdicts on turn {said.turn}")
        found[said.turn - 1] = _met(said, names)
    if all(met is None for met in found):
        raise Unusable("it has no verdict on any turn")
    return found


def _met(said: _Verdict, names: Sequence[str]) -> dict[str, bool]:
    if said.met.keys() != set(names):
        raise Unusable("a verdict needs each of the criteria once, and nothing else")
    return said.met
