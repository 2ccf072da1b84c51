"""The section `guard` of a config: scopes, budgets and approvals for every episode of a run."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs.approvals import Approvals, Rule, approver
from envs.guard import RESULT_CHARS, Guard, Scope


class RuleConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tool: str
    when: str | None = None
    """A condition on the arguments, as in `amount > 100`; without one every call needs an approval."""

    def rule(self) -> Rule:
        return Rule(self.tool, self.when)


class ApprovalConfig(BaseModel):
    """Which calls need somebody's yes, and whose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[RuleConfig, ...] = Field(min_length=1)
    approver: str
    """deny, allow, ask, a function as module:attribute, or a webhook's URL."""
    timeout: float | None = Field(None, gt=0)
    """Seconds a function or a webhook gets; without an answer it is a no."""

    def approvals(self) -> Approvals:
        return Approvals(tuple(rule.rule() for rule in self.rules), approver(self.approver, timeout=self.timeout))


class GuardConfig(Scope):
    prices: dict[str, float] = {}
    result_chars: int = RESULT_CHARS
    approval: ApprovalConfig | None = None

    def guard(self) -> Guard:
        """The guard it describes.

        Raises:
            InputError: it makes no sense.
        """
        approvals = () if self.approval is None else (self.approval.approvals(),)
        return Guard(**self.model_dump(exclude={"approval"}), approvals=approvals)

    @model_validator(mode="after")
    def _makes_sense(self) -> GuardConfig:
        if self.money is not None and not self.prices:
            raise ValueError("guard.money would have no effect: nothing has a price; give guard.prices")
        self.guard()
        return self
