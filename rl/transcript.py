"""An episode as JSON and back, lossless: the logging schema of agentic RFT.

    id, env, task          what was asked
    context                what the model was given to stand on
    actions                turn by turn: the message, its calls, their results, the tokens
    answer                 the final output
    outcome                how it ended, the final state, the score
    cost                   tokens, calls, seconds, money

A turn's prompt repeats all that came before it, so only what is new is written: `keep` ids of the
previous prompt + sampled ids, then `prompt`. Three turns of a 100-token prompt, 10 sampled ids and
5 ids of results each are `keep` 0, 110, 125 and `prompt` of 100, 5 and 5 ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import takewhile
from typing import Any

from envs.types import Approval, Completion, Cost, Episode, Message, Stop, Task, ToolCall, ToolResult, Turn
from rewards.score import Score
from rl.rollout import Played

Tree = dict[str, Any]


def encode(played: Played) -> Tree:
    """A played episode as plain JSON values. Numbers that JSON lacks become the strings nan, inf and -inf."""
    episode = played.episode
    actions, sequence = [], tuple[int, ...]()
    for turn in episode.turns:
        actions.append(_turn(turn, sequence))
        sequence = turn.completion.prompt_ids + turn.completion.token_ids
    return {
        "id": episode.id,
        "env": episode.env,
        "task": {
            "id": episode.task.id,
            "prompt": [_message(message) for message in episode.task.prompt],
            "item": episode.task.item,
            "files": dict(episode.task.files),
        },
        "context": episode.context,
        "actions": actions,
        "answer": episode.answer,
        "outcome": {
            "stop": episode.stop,
            "fault": episode.fault,
            "state": episode.state,
            "score": _score(played.score),
        },
        "cost": _cost(episode.cost),
    }


def decode(tree: Mapping[str, Any]) -> Played:
    """What `encode` was given."""
    task, outcome, score = tree["task"], tree["outcome"], tree["outcome"]["score"]
    episode = Episode(
        id=tree["id"],
        env=tree["env"],
        task=Task(
            id=task["id"],
            prompt=tuple(_read_message(message) for message in task["prompt"]),
            item=task["item"],
            files=task["files"],
        ),
        turns=_read_turns(tree["actions"]),
        stop=Stop(outcome["stop"]) if outcome["stop"] is not None else None,
        fault=outcome["fault"],
        cost=_read_cost(tree["cost"]),
        context=tree["context"],
        state=outcome["state"],
    )
    turns = score["turns"]
    return Played(
        episode=episode,
        score=Score(
            value=float(score["value"]),
            turns=None if turns is None else tuple(None if turn is None else float(turn) for turn in turns),
            parts={name: float(value) for name, value in score["parts"].items()},
            error=score["error"],
            graders=score.get("graders", {}),
        ),
    )


def _turn(turn: Turn, before: Sequence[int]) -> Tree:
    completion = turn.completion
    prompt = completion.prompt_ids
    keep = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, prompt, strict=False)))
    tree: Tree = {
        "message": _message(completion.message),
        "results": [_result(result) for result in turn.results],
        "finish": completion.finish,
        "version": completion.version,
        "cost": _cost(completion.cost),
    }
    if completion.belief is not None:
        tree["belief"] = completion.belief
    if prompt or completion.token_ids:
        tree["tokens"] = {
            "keep": keep,
            "prompt": prompt[keep:],
            "sampled": completion.token_ids,
            "logprobs": [_number(logprob) for logprob in completion.logprobs],
        }
    return tree


def _read_turns(actions: Sequence[Mapping[str, Any]]) -> list[Turn]:
    turns: list[Turn] = []
    sequence: tuple[int, ...] = ()
    nothing: Tree = {"keep": 0, "prompt": [], "sampled": [], "logprobs": []}
    for action in actions:
        tokens = action.get("tokens", nothing)
        completion = Completion(
            message=_read_message(action["message"]),
            prompt_ids=(*sequence[: tokens["keep"]], *tokens["prompt"]),
            token_ids=tuple(tokens["sampled"]),
            logprobs=tuple(float(logprob) for logprob in tokens["logprobs"]),
            finish=action["finish"],
            version=action["version"],
            belief=action.get("belief"),
            cost=_read_cost(action["cost"]),
        )
        sequence = completion.prompt_ids + completion.token_ids
        turns.append(Turn(completion=completion, results=tuple(map(_read_result, action["results"]))))
    return turns


def _result(result: ToolResult) -> Tree:
    """Price and approvals only where there are any."""
    tree = asdict(result)
    return {name: value for name, value in tree.items() if value or name not in ("money", "approvals")}


def _read_result(tree: Mapping[str, Any]) -> ToolResult:
    approvals = tuple(Approval(**approval) for approval in tree.get("approvals", ()))
    return ToolResult(**{**tree, "approvals": approvals})


def _message(message: Message) -> Tree:
    tree: Tree = {"role": message.role, "content": message.content}
    if message.tool_calls:
        tree["tool_calls"] = [asdict(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        tree["tool_call_id"] = message.tool_call_id
    return tree


def _read_message(tree: Mapping[str, Any]) -> Message:
    return Message(
        role=tree["role"],
        content=tree["content"],
        tool_calls=tuple(ToolCall(**call) for call in tree.get("tool_calls", ())),
        tool_call_id=tree.get("tool_call_id"),
    )


def _score(score: Score) -> Tree:
    turns = score.turns
    return {
        "value": _number(score.value),
        "turns": None if turns is None else [None if turn is None else _number(turn) for turn in turns],
        "parts": {name: _number(value) for name, value in score.parts.items()},
        "error": score.error,
        "graders": dict(score.graders),
    }


def _cost(cost: Cost) -> Tree:
    """Only what was used."""
    return {name: value for name, value in asdict(cost).items() if value}


def _read_cost(tree: Mapping[str, Any]) -> Cost:
    return Cost(**tree)


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
