"""The records of the house: what a task is, what was said and done, and how it ended.

Every record is made once, by its owner, and never written to afterwards; `Episode` alone grows
while it is played. Nothing here knows about models, tokenizers or rewards.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from envs.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]
Fault = Literal["unknown_tool", "bad_arguments", "denied", "timeout", "raised"]
Finish = Literal["stop", "length", "context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call the model asked for."""

    id: str
    name: str
    arguments: str
    """The JSON text exactly as the model wrote it, valid or not."""

    @property
    def canonical(self) -> str:
        """The arguments as text that does not depend on the order of keys or on spaces; as written where not JSON."""
        try:
            return json.dumps(json.loads(self.arguments or "{}"), sort_keys=True)
        except (ValueError, RecursionError):
            return self.arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, in the shape every chat API shares."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem: what the model is asked, the row it came from, the files it starts with."""

    id: str
    prompt: tuple[Message, ...]
    item: Mapping[str, Any] = field(default_factory=dict)
    """The dataset row. Graders read it; the model never sees it."""
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def ask(cls, question: str, *, system: str | None = None, id: str | None = None, **item: Any) -> Task:
        """A task that is one question; keyword arguments become its `item`.

        Without an `id` the task is named by a hash of its content, so that the same problem has the
        same name in every process and on every machine.
        """
        head = (Message(role="system", content=system),) if system else ()
        prompt = (*head, Message(role="user", content=question))
        return cls(id=id or content_id(prompt, item), prompt=prompt, item=item)


def content_id(prompt: tuple[Message, ...], item: Mapping[str, Any]) -> str:
    """A task id made of its content: 16 hex digits of SHA-256, the same in every process.

    Raises:
        InputError: the item holds something that has no lasting text: a set, an object of a class.
    """
    try:
        body = json.dumps([*map(asdict, prompt), item], sort_keys=True, default=_lasting)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a task's item can't be hashed into an id ({error}); use JSON values, or give the id"
        ) from error
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _lasting(value: Any) -> str:
    """Text for the values of table formats that JSON has no word for."""
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta, Decimal)):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"a {type(value).__name__} is no JSON value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a turn or an episode used."""

    prompt_tokens: int = 0
    """Tokens the model read, summed over turns."""
    sampled_tokens: int = 0
    tool_calls: int = 0
    seconds: float = 0.0
    money: float = 0.0
    """In US dollars, where a policy or a tool has a price."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            sampled_tokens=self.sampled_tokens + other.sampled_tokens,
            tool_calls=self.tool_calls + other.tool_calls,
            seconds=self.seconds + other.seconds,
            money=self.money + other.money,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the policy said in one turn, as a message and, where it sampled them, as tokens.

    `prompt_ids`, `token_ids` and `logprobs` are empty for policies that do not sample locally.
    """

    message: Message
    prompt_ids: tuple[int, ...] = ()
    """Everything the model had in front of it: previous prompt, sampled ids, tool-result ids."""
    token_ids: tuple[int, ...] = ()
    """The ids it sampled, its end-of-turn token included."""
    logprobs: tuple[float, ...] = ()
    """Natural-log probabilities of `token_ids` under the distribution they were drawn from."""
    finish: Finish = "stop"
    """"length": the turn ran into its token limit; "context": into the end of the model's context."""
    version: int = 0
    """The adapter version that sampled this turn; 0 is the policy before any update."""
    belief: float | None = None
    """How likely, from 0 to 1, the policy found the task's gold answer at the beginning of this turn; None where nobody
    asked, see `rl.belief`."""
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who decided on a call that needed a yes, when, and how. The call itself stands in the turn's message."""

    by: str
    granted: bool
    reason: str = ""
    at: str = ""
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What one call came to. A fault is the model's to read, not an error of ours."""

    call_id: str
    name: str
    content: str
    fault: Fault | None = None
    seconds: float = 0.0
    money: float = 0.0
    """In US dollars, where the tool has a price and was carried out."""
    approvals: tuple[Approval, ...] = ()
    """The decisions it took, the last of them a refusal if there was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One completion and what its calls came to, in the order of the calls."""

    completion: Completion
    results: tuple[ToolResult, ...] = ()


class Stop(StrEnum):
    """How an episode ended. Every episode that ended has exactly one."""

    DONE = "done"
    """The model answered without a call, or the environment said that the task is over."""
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    """The episode's token budget, or the model's context, was used up."""
    TRUNCATED = "truncated"
    """A single turn ran into its own token limit before it ended."""
    TIMEOUT = "timeout"
    ENV_LOST = "env_lost"
    """The environment went away: its sandbox, its server. Nobody's score."""
    FAULT = "fault"
    """The machinery failed. Retried, then left out of training and counted."""


@dataclass(slots=True, kw_only=True)
class Episode:
    """A task played to its end: the one record that rewards read and trainers learn from.

    Example: a turn with two calls adds three messages (the completion and two tool messages);
    an episode of three turns whose last one has no calls ends with `Stop.DONE` and its `answer` is
    that last message's text.
    """

    id: str
    env: str
    task: Task
    turns: list[Turn] = field(default_factory=list)
    stop: Stop | None = None
    fault: str | None = None
    """Why the machinery failed, for `Stop.FAULT` and `Stop.ENV_LOST`."""
    cost: Cost = field(default_factory=Cost)
    context: Mapping[str, Any] = field(default_factory=dict)
    """What the model was given to stand on: policy text, retrieved documents, constraints."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """What the environment looked like at the end: its database, its files."""

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, prompt included."""
        messages = list(self.task.prompt)
        for turn in self.turns:
            messages.append(turn.completion.message)
            messages += [
                Message(role="tool", content=result.content, tool_call_id=result.call_id) for result in turn.results
            ]
        return messages

    @property
    def answer(self) -> str:
        """The text of the last turn if it called no tool, else the empty string."""
        if not self.turns or self.turns[-1].completion.message.tool_calls:
            return ""
        return self.turns[-1].completion.message.content

    @property
    def broken(self) -> bool:
        """True where the end says nothing about the policy: no score, no update, only a count."""
        return self.stop in (Stop.FAULT, Stop.ENV_LOST)
