"""Judges named in a config: a model that scores episodes against criteria, or against one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from envs.errors import InputError
from rewards.score import Reward

if TYPE_CHECKING:
    from rewards.judging.ask import Asked

CHARS = 40_000
"""How much of an episode's text a judge is shown, unless it is said."""


def rubric(
    *,
    model: str,
    judge: dict[str, Any],
    criteria: list[dict[str, Any]] | None = None,
    field: str | None = None,
    per: Literal["step", "trajectory"] = "trajectory",
    chars: int = CHARS,
    params: dict[str, Any] | None = None,
) -> Reward:
    """Criteria with weights, each met or not: r = sum_j w_j c_j / sum_{w_j > 0} w_j; see `rewards.judging.Rubric`.

    Example: `{use: rubric, per: step, model: judge, judge: {base_url: "http://127.0.0.1:8000/v1"}, criteria: [{name:
    grounded, says: What it claims stands in a tool's result., weight: 2}]}`.

    Args:
        model: who judges, as the endpoint calls it.
        judge: where it is; see `rewards.graders.JudgeConfig`.
        criteria: of every task: `name`, `says`, and `weight` (1), below 0 for what must not be met.
        field: in place of them, the field of a task's row that has its own.
        per: `trajectory` scores the whole; `step` every turn, in one request.
        chars: how much of the prompt's text, and as much again of the episode's, the judge is shown.
        params: further parameters of the request, as `temperature`.

    Raises:
        InputError: neither or both of criteria and field, or something in them that can't be used.
    """
    from rewards.judging.rubric import Rubric, read_criteria

    if (criteria is None) == (field is None):
        raise InputError("a rubric is criteria or the row's field that has them: give one of 'criteria' and 'field'")
    read = () if criteria is None else read_criteria(criteria)
    return Rubric(_asked(model, judge, params, chars), criteria=read, field=field, per=per, chars=chars)


def relative(
    *,
    model: str,
    judge: dict[str, Any],
    criterion: str | None = None,
    orders: Literal[1, 2] = 2,
    chars: int = CHARS,
    params: dict[str, Any] | None = None,
) -> Reward:
    """Episodes of a group scored from 0 to 1 relative to one another; see `rewards.judging.Relative`.

    Args:
        model: who judges, as the endpoint calls it.
        judge: where it is; see `rewards.graders.JudgeConfig`.
        criterion: what better means; to do what is asked, by the rules, in few steps, unless given.
        orders: 2 shows them a second time in reverse and takes the mean; 1 costs half.
        chars: how much of the prompt's text, and as much again of each episode's, the judge is shown.
        params: further parameters of the request, as `temperature`.

    Raises:
        InputError: an option that can't be used.
    """
    from rewards.judging.relative import CRITERION, Relative

    return Relative(_asked(model, judge, params, chars), criterion=criterion or CRITERION, orders=orders, chars=chars)


def _asked(model: str, judge: dict[str, Any], params: dict[str, Any] | None, chars: int) -> Asked:
    from rewards.graders import Judge, JudgeConfig
    from rewards.judging.ask import Asked

    for name in {"model", "messages", "response_format", "stream", "n"} & (params or {}).keys():
        raise InputError(f"params.{name} is ours to set; remove it")
    if chars < 1:
        raise InputError(f"chars is how much of an episode the judge is shown, above 0, not {chars}")
    return Asked(judge=Judge(JudgeConfig.read(judge)), model=model, params=params or {})
