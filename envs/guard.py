"""What stands between a call and its execution: which tools a task may use, how often, and with whose consent."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from envs.approvals import Approvals
from envs.errors import InputError, reasons, unknown
from envs.tools import ToolSpec
from envs.types import Approval, Cost, Task, ToolCall

RESULT_CHARS = 50_000
"""The default of `Guard.result_chars`: some 12,000 tokens of English."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of a call at the guard."""

    refusal: str | None = None
    """Why it may not be carried out, for the model."""
    price: float = 0.0
    """In US dollars, of a call that may."""
    approvals: tuple[Approval, ...] = ()


@dataclass(slots=True, kw_only=True)
class Guard:
    """Scopes, budgets and approvals for one episode. A refusal is text for the model, and a `denied` fault.

    A refused tool stays in the list the model is shown: whether it keeps away is its to learn. Only
    calls that would be carried out count against a budget, so neither a refusal nor a call with bad
    arguments uses it up. Calls of one turn are admitted in their order, one after the other.

    Raises:
        InputError: a budget that is no number of at least 0, or a tool both allowed and denied.
    """

    allow: Iterable[str] | None = None
    """Tools this episode may call; None means all."""
    deny: Iterable[str] = ()
    calls: int | None = None
    """How many calls in all."""
    calls_per_tool: Mapping[str, int] = field(default_factory=dict)
    """How many calls of a tool; those not named have no budget of their own."""
    tokens: int | None = None
    """Sampled tokens after which no call is carried out any more."""
    money: float | None = None
    """US dollars, of turns and calls together; a call that would pass it is refused."""
    prices: Mapping[str, float] = field(default_factory=dict)
    """US dollars a call, by tool."""
    result_chars: int | None = None
    """How many characters of a result the model is shown; `RESULT_CHARS` unless somebody says otherwise."""
    approvals: tuple[Approvals, ...] = ()
    """Each that has a rule for a call is asked, until one refuses."""
    used: Counter[str] = field(default_factory=Counter, init=False)
    """Calls admitted so far, by tool."""
    spent: Cost = field(default_factory=Cost, init=False)
    """What the episode has cost so far: whoever plays it adds its turns, the guard adds its calls."""
    _turnstile: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("allow", self.allow), ("deny", self.deny)):
            if isinstance(value, str):
                raise InputError(f"guard.{name} is a list of tools, as in [{value}]")
        self.allow = None if self.allow is None else frozenset(self.allow)
        self.deny = frozenset(self.deny)
        if both := sorted(self.deny & (self.allow or frozenset())):
            raise InputError(f"guard: {', '.join(both)} is both allowed and denied; remove it from one")
        budgets = {"calls": self.calls} | {f"calls_per_tool.{name}": n for name, n in self.calls_per_tool.items()}
        for name, budget in budgets.items():
            _check_count(f"guard.{name} is a number of calls", budget)
        _check_count("guard.tokens is a number of tokens", self.tokens)
        _check_count("guard.result_chars is a number of characters", self.result_chars)
        for name, dollars in {"money": self.money, **{f"prices.{n}": p for n, p in self.prices.items()}}.items():
            if dollars is not None and not (_is_number(dollars) and 0 <= dollars < math.inf):
                raise InputError(f"guard.{name} is an amount in US dollars, 0 or more, not {dollars!r}")

    def check(self, tools: Mapping[str, ToolSpec]) -> None:
        """Refuse a guard that names a tool there is not: a misspelt scope would protect nothing.

        Raises:
            InputError: with the nearest tool there is.
        """
        for name in (*(self.allow or ()), *self.deny, *self.calls_per_tool, *self.prices):
            if name not in tools:
                raise InputError(f"guard: {unknown('tool', name, tools)}")
        for approvals in self.approvals:
            approvals.check(tools)

    def narrowed(self, by: Guard) -> Guard:
        """A fresh guard that admits what both admit, so that nobody loosens what another has set."""
        deny = {*self.deny, *by.deny}
        scopes = [set(allow) for allow in (self.allow, by.allow) if allow is not None]
        both = {
            name: [g.calls_per_tool[name] for g in (self, by) if name in g.calls_per_tool]
            for name in (*self.calls_per_tool, *by.calls_per_tool)
        }
        return Guard(
            allow=set.intersection(*scopes) - deny if scopes else None,
            deny=deny,
            calls=_least(self.calls, by.calls),
            calls_per_tool={name: min(budgets) for name, budgets in both.items()},
            tokens=_least(self.tokens, by.tokens),
            money=_least(self.money, by.money),
            prices={**self.prices, **by.prices},
            result_chars=_least(self.result_chars, by.result_chars),
            approvals=(*self.approvals, *by.approvals),
        )

    async def admit(self, task: Task, call: ToolCall, arguments: Mapping[str, Any]) -> Admission:
        """Count the call, or refuse it and say why. Waits for whoever has to approve it."""
        async with self._turnstile:
            if refusal := self._refusal(call):
                return Admission(refusal=refusal)
            decided: list[Approval] = []
            for approvals in self.approvals:
                if decision := await approvals.decide(task, call, arguments):
                    decided.append(decision)
                    if not decision.granted:
                        why = f": {decision.reason}" if decision.reason else ""
                        refusal = f"{call.name} needs an approval here, and it was not given{why}."
                        return Admission(refusal=refusal, approvals=tuple(decided))
            self.used[call.name] += 1
            price = self.prices.get(call.name, 0.0)
            self.spent += Cost(tool_calls=1, money=price)
            return Admission(price=price, approvals=tuple(decided))

    def _refusal(self, call: ToolCall) -> str | None:
        if call.name in self.deny or (self.allow is not None and call.name not in self.allow):
            return f"{call.name} is not allowed in this task."
        if self.calls is not None and self.used.total() >= self.calls:
            return f"the budget of {_calls(self.calls)} is used up."
        limit = self.calls_per_tool.get(call.name)
        if limit is not None and self.used[call.name] >= limit:
            return f"the budget of {_calls(limit)} of {call.name} is used up."
        if self.tokens is not None and self.spent.sampled_tokens >= self.tokens:
            return f"the budget of {self.tokens} tokens is used up."
        if self.money is not None:
            after = self.spent.money + self.prices.get(call.name, 0.0)
            if after > self.money and not math.isclose(after, self.money):  # three times 0.1 is more than 0.3
                return (
                    f"{call.name} would pass the budget of ${self.money:g}, of which ${self.spent.money:g} are spent."
                )
        return None


class Scope(BaseModel):
    """What plain data may say of a guard: a config, and the `guard` of a task's item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    calls: int | None = None
    calls_per_tool: dict[str, int] = {}
    tokens: int | None = None
    money: float | None = None


def guard_of(task: Task) -> Guard:
    """What the item of a task says, under `guard`, of the tools it may use.

    Raises:
        InputError: that makes no sense.
    """
    said = task.item.get("guard")
    try:
        return Guard(**Scope.model_validate({} if said is None else said).model_dump())
    except ValidationError as error:
        raise InputError(f"guard: {reasons(error)}") from error


def _least(first: float | None, second: float | None) -> Any:
    return min((limit for limit in (first, second) if limit is not None), default=None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_count(what: str, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InputError(f"{what}, 0 or more, not {value!r}")


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"
