"""What the calls of an episode amounted to: a record of each that was carried out, as `rewards.process` reads them.

A tool notes its own call, and the environment gives the account as part of its state:

    @tool
    async def open(self, door: str) -> str:
        "Open a door."
        self.steps.note(progress=f"opened {door}", violation=None if self._knocked else "did not knock")
        self._doors[door] = "open"
        return "ok"

    def state(self) -> Mapping[str, Any]:
        return {"doors": self._doors} | self.steps.account()
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from envs.types import ToolCall

CALL: ContextVar[tuple[ToolCall, Mapping[str, Any]]] = ContextVar("the call being carried out, and its arguments")
"""Set by the environment. A context variable, because the tools of one turn may run at once."""


class Steps:
    """The account of one episode."""

    def __init__(self) -> None:
        self._taken: list[dict[str, Any]] = []
        self._violations: list[dict[str, Any]] = []
        self._made: set[str] = set()
        self._reached: set[str] = set()

    def note(
        self, *, progress: str | float | None = None, violation: str | None = None, like: Any = None, **facts: Any
    ) -> None:
        """Record the call that is being carried out: once, before its tool returns or raises.

        Args:
            progress: the step of the task that it is, under any name. A step counts the first time alone,
                so that it can't be collected again. A number is the share of the task that it newly brought in,
                for who keeps account of that.
            violation: the rule that it breaks, in words.
            like: what makes it a repeat of another call of the same tool; its arguments unless given.
            facts: what else to keep of it, in JSON values.
        """
        call, arguments = CALL.get()
        key = json.dumps([call.name, arguments if like is None else like], sort_keys=True, default=repr)
        about = {"call_id": call.id, "tool": call.name} | facts
        new = progress if isinstance(progress, float) else progress is not None and progress not in self._reached
        judged = {"progress": new, "violation": violation is not None, "repeat": key in self._made}
        self._taken.append(about | judged)
        self._made.add(key)
        if isinstance(progress, str):
            self._reached.add(progress)
        if violation is not None:
            self._violations.append(about | {"reason": violation})

    def account(self) -> dict[str, Any]:
        """`violations`, with their reasons, and `steps`: every call that was noted, in the order of execution."""
        return {"violations": self._violations, "steps": self._taken}
