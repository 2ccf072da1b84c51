"""The way there: functions of an episode that judge its tool calls, turn by turn.

A turn is worth the sum over its judged calls, so that calls made at once pay what they pay one by
one; a turn without a judged call is None. Only `progress` pays, since an environment grants each step
once. The others deduct: a bonus for being harmless pays by the turn, and teaches to take more turns.
`call_bonus` is such a bonus, to see what it does.

`progress` and `policy_kept` read what the environment noted, `episode.state["steps"]`: one object for
each executed call, in the order of execution, with `call_id`, `tool` and the facts `progress`,
`violation` and `repeat`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from envs.errors import InputError
from envs.types import Episode, Fault, Task, ToolCall, ToolResult
from rewards.score import Score

Judge = Callable[[ToolCall, ToolResult], float | None]
"""What a call is worth; None where there is nothing to say."""

FORM: tuple[Fault, ...] = ("unknown_tool", "bad_arguments", "denied", "raised")
"""Faults that are the model's; a timeout may be anybody's."""

NOT_CARRIED_OUT: tuple[Fault, ...] = ("unknown_tool", "bad_arguments", "denied")
"""Faults of calls that never reached the environment."""


def valid_calls(episode: Episode, *, faults: Sequence[Fault] = FORM) -> Score:
    """-1 for each call that came to one of these faults, 0 for each other call."""
    return _per_turn(episode, "valid_calls", lambda _, result: _deduction(result.fault in faults))


def call_bonus(episode: Episode) -> Score:
    """+1 for each call that was carried out and did not fail, 0 for each other call.

    The naive process reward: it pays by the call, whatever the call is good for, and a policy learns to make calls.
    docs/process_vs_outcome.md shows it; for anything else there is `progress`.
    """
    return _per_turn(episode, "call_bonus", lambda _, result: float(result.fault is None))


def progress(episode: Episode) -> Score:
    """+1 for each call that brought the task a step further, 0 for each that did not, refused ones included.

    Where an environment notes by how much of the task, as `coder` and `terminal` do, it is that.

    Raises:
        InputError: the environment notes no steps.
    """
    noted = _notes(episode)
    return _per_turn(episode, "progress", lambda call, result: noted(call, result, "progress"))


def policy_kept(episode: Episode) -> Score:
    """-1 for each call that broke a rule of the environment, 0 for each other call.

    Raises:
        InputError: the environment notes no steps.
    """
    noted = _notes(episode)
    return _per_turn(episode, "policy_kept", lambda call, result: _deduction(noted(call, result, "violation")))


def flagged(episode: Episode, *, fact: str) -> Score:
    """-1 for each call that the environment noted with this fact, 0 for each other call.

    Args:
        episode: what was played.
        fact: as `needless`, which the desk with a customer notes of questions that need not have been asked.

    Raises:
        InputError: the environment notes no steps.
    """
    noted = _notes(episode)
    return _per_turn(episode, fact, lambda call, result: _deduction(noted(call, result, fact)))


def information_gain(episode: Episode, *, field: str = "answer", lead: str = "") -> Score:
    """By how much each turn made the gold answer likelier to the policy: P at the next turn's beginning - P at its own.

    P = exp(mean log pi(answer)), as `Gold` says and `rl.belief` measures it while the policy plays. The last turn is
    not judged: what it says is what the outcome is for (IGPO, arXiv 2510.14967). All turns together pay the last P
    minus the first, so that more turns don't pay more. A turn whose P could not be had, for lack of room in the
    context, pays nothing, and neither does the one before it: both are None.

    Args:
        episode: what was played.
        field: of the task's row, with the answer as a text or a number.
        lead: what the policy would say ahead of it, as "The answer is ".

    Raises:
        InputError: the row has no such answer, or nobody noted how likely it was: only an engine's policy can.

    Example: P of 0.1, 0.4 and 0.3 at the beginning of three turns pay (0.3, -0.1, None).
    """
    if gold_answer(episode.task, field) is None:
        raise InputError(f"information_gain: item.{field} is no text and no number; name the gold answer's field")
    noted = [turn.completion.belief for turn in episode.turns]
    if noted and all(belief is None for belief in noted):
        raise InputError("information_gain: nobody noted how likely the answer was; only the engine of a run can")
    gains = [None if after is None or before is None else after - before for before, after in pairwise(noted)]
    turns = (*gains, None)[: len(noted)]
    earned = sum(gain for gain in gains if gain is not None)
    return Score(value=0.0, turns=turns, parts={"information_gain": earned})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """Where a task's gold answer is, and what the policy would say ahead of it."""

    field: str = "answer"
    lead: str = ""


def gold_answer(task: Task, field: str) -> str | None:
    """The text of a field of a task's row that holds a text or a number; None where it holds anything else."""
    value = task.item.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value) or None


def no_repeats(episode: Episode) -> Score:
    """-1 for each call that was carried out before with the same arguments, 0 for each other call.

    What a repeat is the environment knows best, where it notes steps: reading again after a change may
    not be one. Elsewhere it is the same tool with equal arguments. Asking again for what failed is none.
    """
    if "steps" in episode.state:
        noted = _notes(episode)
        return _per_turn(episode, "no_repeats", lambda call, result: _deduction(noted(call, result, "repeat")))
    seen: set[tuple[str, str]] = set()

    def judge(call: ToolCall, result: ToolResult) -> float:
        if result.fault is not None:
            return 0.0
        key = (call.name, call.canonical)
        repeated = key in seen
        seen.add(key)
        return _deduction(repeated)

    return _per_turn(episode, "no_repeats", judge)


def in_order(episode: Episode, *, order: Sequence[str]) -> Score:
    """-1 for each call of a listed tool before every tool listed ahead of it was carried out, else 0.

    Calls of one turn count from first to last; tools that are not listed are not judged.

    Args:
        episode: what was played.
        order: tools, first to last, as in `[lookup_order, check_policy, refund]`.
    """
    done: set[str] = set()

    def judge(call: ToolCall, result: ToolResult) -> float | None:
        if call.name not in order:
            return None
        early = not done.issuperset(order[: order.index(call.name)])
        if result.fault is None:
            done.add(call.name)
        return _deduction(early)

    return _per_turn(episode, "in_order", judge)


def _per_turn(episode: Episode, name: str, judge: Judge) -> Score:
    turns: list[float | None] = []
    for turn in episode.turns:
        calls = zip(turn.completion.message.tool_calls, turn.results, strict=False)  # the last may be cut short
        worth = [value for value in (judge(call, result) for call, result in calls) if value is not None]
        turns.append(sum(worth) if worth else None)
    total = sum(value for value in turns if value is not None)
    return Score(value=0.0, turns=tuple(turns), parts={name: total})


def _notes(episode: Episode) -> Callable[[ToolCall, ToolResult, str], float]:
    """What the environment noted of a call, 1 for true, to be asked of each call once and in order.

    Ids are the model's and may come twice, so each call that was carried out takes the next note under its id.
    """
    if "steps" not in episode.state:
        raise InputError(f"environment {episode.env!r} notes no steps in its state; this reward reads state['steps']")
    notes: dict[tuple[str, str], deque[Mapping[str, Any]]] = defaultdict(deque)
    for step in episode.state["steps"]:
        notes[step["call_id"], step["tool"]].append(step)

    def noted(call: ToolCall, result: ToolResult, fact: str) -> float:
        waiting = notes[call.id, call.name]
        if result.fault in NOT_CARRIED_OUT or not waiting:
            return 0.0
        return float(waiting.popleft().get(fact, False))

    return noted


def _deduction(due: float) -> float:
    return -1.0 if due else 0.0
