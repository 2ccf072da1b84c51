"""Episodes made by hand, for tests of what is done with them."""

from __future__ import annotations

from envs.types import Completion, Cost, Episode, Fault, Message, Stop, Task, ToolCall, ToolResult, Turn
from rewards.score import Score
from rl.rollout import Played


def turn(*faults: Fault | None, prompt: tuple[int, ...] = (), sampled: tuple[int, ...] = (), text: str = "") -> Turn:
    """A turn with one call for each fault (None: the call went well)."""
    calls = tuple(ToolCall(id=f"c{i}", name="look", arguments="{}") for i in range(len(faults)))
    completion = Completion(
        message=Message(role="assistant", content=text, tool_calls=calls),
        prompt_ids=prompt,
        token_ids=sampled,
        logprobs=tuple(-0.1 * (i + 1) for i in range(len(sampled))),
    )
    results = tuple(
        ToolResult(call_id=call.id, name=call.name, content="ok", fault=fault)
        for call, fault in zip(calls, faults, strict=True)
    )
    return Turn(completion=completion, results=results)


def played(
    task: str = "t",
    value: float | None = 1.0,
    *,
    turns: tuple[Turn, ...] = (),
    stop: Stop = Stop.DONE,
    sample: int = 0,
    cost: Cost | None = None,
) -> Played:
    """An episode of a task with a score; None is unscored."""
    episode = Episode(
        id=f"{task}#{sample}",
        env="made",
        task=Task.ask(f"What is {task}?", id=task),
        turns=list(turns) or [turn(text="it is so")],
        stop=stop,
        cost=cost or Cost(),
    )
    return Played(episode=episode, score=Score.unscored("the judge is down") if value is None else Score(value=value))
