"""What stands between a call and its execution: which tools a task may use, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from envs.types import ToolCall


@dataclass(slots=True, kw_only=True)
class Guard:
    """Scopes and budgets for one episode. A refusal is text for the model, and a `denied` fault."""

    allow: frozenset[str] | None = None
    """Tools this episode may call; None means all."""
    deny: frozenset[str] = frozenset()
    calls: int | None = None
    """How many calls in all."""
    calls_per_tool: Mapping[str, int] = field(default_factory=dict)
    _used: Counter[str] = field(default_factory=Counter)

    def admit(self, call: ToolCall) -> str | None:
        """Count the call and return None, or refuse it and return why."""
        if call.name in self.deny or (self.allow is not None and call.name not in self.allow):
            return f"{call.name} is not allowed in this task."
        if self.calls is not None and self._used.total() >= self.calls:
            return f"the budget of {self.calls} calls is used up."
        limit = self.calls_per_tool.get(call.name)
        if limit is not None and self._used[call.name] >= limit:
            return f"the budget of {limit} calls of {call.name} is used up."
        self._used[call.name] += 1
        return None
