"""What stands between a call and its execution: which tools a task may use, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from envs.errors import InputError, unknown
from envs.types import ToolCall


@dataclass(slots=True, kw_only=True)
class Guard:
    """Scopes and budgets for one episode. A refusal is text for the model, and a `denied` fault.

    A refused tool stays in the list the model is shown: whether it keeps away is its to learn. Only
    calls that would be carried out count against a budget, so neither a refusal nor a call with bad
    arguments uses it up. Calls of one turn are admitted in their order.

    Raises:
        InputError: a budget that is not a whole number of at least 0, or a tool both allowed and denied.
    """

    allow: Iterable[str] | None = None
    """Tools this episode may call; None means all."""
    deny: Iterable[str] = ()
    calls: int | None = None
    """How many calls in all."""
    calls_per_tool: Mapping[str, int] = field(default_factory=dict)
    """How many calls of a tool; those not named have no budget of their own."""
    used: Counter[str] = field(default_factory=Counter, init=False)
    """Calls admitted so far, by tool."""

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
            if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget < 0):
                raise InputError(f"guard.{name} is a number of calls, 0 or more, not {budget!r}")

    def check(self, tools: Iterable[str]) -> None:
        """Refuse a guard that names a tool there is not: a misspelt scope would protect nothing.

        Raises:
            InputError: with the nearest tool there is.
        """
        tools = list(tools)
        for name in (*(self.allow or ()), *self.deny, *self.calls_per_tool):
            if name not in tools:
                raise InputError(f"guard: {unknown('tool', name, tools)}")

    def admit(self, call: ToolCall) -> str | None:
        """Count the call and return None, or refuse it and return why."""
        if call.name in self.deny or (self.allow is not None and call.name not in self.allow):
            return f"{call.name} is not allowed in this task."
        if self.calls is not None and self.used.total() >= self.calls:
            return f"the budget of {_calls(self.calls)} is used up."
        limit = self.calls_per_tool.get(call.name)
        if limit is not None and self.used[call.name] >= limit:
            return f"the budget of {_calls(limit)} of {call.name} is used up."
        self.used[call.name] += 1
        return None


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"
