"""Approvals: which calls need somebody's yes before they are carried out, and who is asked.

    approvals = Approvals([Rule("refund", "amount > 100")], approver("https://desk.example/approve"))

Whatever goes wrong with the asking is a no, with the reason: nothing is carried out because nobody
could be asked.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx
from pydantic import BaseModel, StrictBool, ValidationError
from pydantic_core import to_jsonable_python

from envs.conditions import Condition, Undecided
from envs.errors import InputError, reasons, unknown
from envs.named import load_attribute
from envs.plain import visible
from envs.threads import in_thread
from envs.tools import ToolSpec
from envs.types import Approval, Task, ToolCall

TIMEOUT = 10.0
"""Seconds that a function or a webhook gets for its answer, unless the config says otherwise."""

ANSWER_BYTES = 65_536
"""How much of a webhook's answer is read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an approver said."""

    granted: bool
    reason: str = ""
    by: str = ""
    """Who, where the approver asks somebody else."""


class Approver(Protocol):
    """Whoever decides."""

    @property
    def name(self) -> str:
        """Goes into the record."""
        ...

    @property
    def interactive(self) -> bool:
        """True if a person has to sit at this process, so that nothing can be left to run by itself."""
        ...

    async def __call__(self, task: Task, call: ToolCall, arguments: Mapping[str, Any], /) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls of a tool that need an approval: all of them, or those a condition holds for.

    A call that does not say whether the condition holds (the argument is missing, or of another kind)
    needs one too.

    Raises:
        InputError: the condition is none.
    """

    tool: str
    when: str | None = None

    condition: Condition | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "condition", None if self.when is None else Condition(self.when))

    def applies(self, name: str, arguments: Mapping[str, Any]) -> bool:
        """Whether this call needs an approval by this rule."""
        if name != self.tool:
            return False
        try:
            return self.condition is None or self.condition.holds(arguments)
        except Undecided:
            return True


@dataclass(frozen=True, slots=True)
class Approvals:
    """Rules, and who decides on the calls that they name."""

    rules: tuple[Rule, ...]
    approver: Approver

    def check(self, tools: Mapping[str, ToolSpec]) -> None:
        """Refuse rules that name a tool or an argument there is not: they would protect nothing.

        Raises:
            InputError: with the nearest there is.
        """
        for rule in self.rules:
            if rule.tool not in tools:
                raise InputError(f"guard.approval: {unknown('tool', rule.tool, tools)}")
            parameters = tools[rule.tool].parameters.get("properties", {})
            for name in sorted(rule.condition.names if rule.condition else ()):
                if name not in parameters:
                    raise InputError(f"guard.approval: {unknown(f'argument of {rule.tool}', name, parameters)}")

    async def decide(self, task: Task, call: ToolCall, arguments: Mapping[str, Any]) -> Approval | None:
        """The decision on a call; None if it needs none."""
        if not any(rule.applies(call.name, arguments) for rule in self.rules):
            return None
        answer = await self.approver(task, call, arguments)
        return Approval(
            by=f"{self.approver.name}: {answer.by}" if answer.by else self.approver.name,
            granted=answer.granted,
            reason=answer.reason,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )


def approver(name: str, *, timeout: float | None = None) -> Approver:
    """The approver of that name: deny, allow, ask, a function (`module:attribute`), or a webhook (its URL).

    Args:
        timeout: seconds a function or a webhook gets; `TIMEOUT` unless given.

    Raises:
        InputError: there is none of that name, or it has no use for a timeout.
    """
    if name in SIMPLE:
        if timeout is not None:
            raise InputError(f"guard.approval.timeout would have no effect with approver {name!r}; remove it")
        return SIMPLE[name]
    if name.startswith(("http://", "https://")):
        return Webhook(name, timeout or TIMEOUT)
    if ":" not in name:
        raise InputError(f"{unknown('approver', name, SIMPLE)}; or a function as module:attribute, or a webhook's URL")
    function = load_attribute(name)
    if not callable(function):
        raise InputError(f"approver {name} is a {type(function).__name__}; it must be a function of task and call")
    return Function(name, function, timeout or TIMEOUT)


@dataclass(frozen=True, slots=True)
class Always:
    """Says the same to everything."""

    name: str
    granted: bool
    interactive: bool = False

    async def __call__(self, task: Task, call: ToolCall, arguments: Mapping[str, Any], /) -> Answer:
        return Answer(self.granted, "" if self.granted else "nobody is here to approve it")


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks at the terminal. What the model wrote is shown so that it can't pass for something else."""

    name: str = "ask"
    interactive: bool = True

    async def __call__(self, task: Task, call: ToolCall, arguments: Mapping[str, Any], /) -> Answer:
        question = f"approve {visible(call.name)} {visible(call.arguments)} ? (yes, or why not)> "
        try:
            said = (await in_thread(lambda: input(question))).strip()
        except EOFError:
            return Answer(False, "nobody answered")
        return Answer(True) if said.lower() in ("y", "yes") else Answer(False, said)


@dataclass(frozen=True, slots=True)
class Function:
    """Asks a function `(task, call) -> bool | str`, sync or async; a text is why not.

    A function that raises stops the run, like any bug of the user's; the call is not carried out.
    """

    name: str
    function: Callable[[Task, ToolCall], Any]
    timeout: float
    interactive: bool = False

    async def __call__(self, task: Task, call: ToolCall, arguments: Mapping[str, Any], /) -> Answer:
        clock = asyncio.timeout(self.timeout)
        try:
            async with clock:
                said = await self._say(task, call)
        except TimeoutError:
            if not clock.expired():
                raise
            return Answer(False, f"no answer within {self.timeout:g} s")
        if not isinstance(said, (bool, str)):
            raise TypeError(f"approver {self.name} returned a {type(said).__name__}; it must be True, False or why not")
        return Answer(said is True, said if isinstance(said, str) else "")

    async def _say(self, task: Task, call: ToolCall) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(task, call)
        said = await in_thread(lambda: self.function(task, call))
        return await said if isinstance(said, Awaitable) else said


class _Reply(BaseModel):
    """What a webhook answers; other keys are passed over."""

    approved: StrictBool
    reason: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Asks over HTTP: POST of `{"task", "call", "tool", "arguments"}`, 200 with `{"approved": true}` is a yes.

    `reason` and `by` in the answer go into the record. Everything else is a no: another status, a
    redirect, no answer in time, an answer that is not that JSON.
    """

    name: str
    timeout: float
    interactive: bool = False

    async def __call__(self, task: Task, call: ToolCall, arguments: Mapping[str, Any], /) -> Answer:
        given = to_jsonable_python(dict(arguments), fallback=str, inf_nan_mode="strings")
        asked = {"task": task.id, "call": call.id, "tool": call.name, "arguments": given}
        clock = asyncio.timeout(self.timeout)
        try:
            async with clock:
                status, body = await self._post(asked)
        except TimeoutError:
            if not clock.expired():
                raise
            return Answer(False, f"the approval webhook gave no answer within {self.timeout:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Answer(False, f"the approval webhook can't be reached ({type(error).__name__})")
        if status != 200:
            return Answer(False, f"the approval webhook answered with status {status}")
        try:
            reply = _Reply.model_validate_json(body)
        except ValidationError as error:
            return Answer(False, f"the approval webhook's answer is none ({reasons(error)})")
        return Answer(reply.approved, reply.reason, reply.by)

    async def _post(self, asked: Mapping[str, Any]) -> tuple[int, bytes]:
        async with (
            httpx.AsyncClient(timeout=None, follow_redirects=False) as client,
            client.stream("POST", self.name, json=asked) as answer,
        ):
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    break
            return answer.status_code, body


SIMPLE: dict[str, Approver] = {"deny": Always("deny", False), "allow": Always("allow", True), "ask": Ask()}
