"""The section `credit` of a config: which estimator, its options, and what is done to its advantages."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs.errors import unknown
from rl.credit import CREDIT, GIVEN, WHITENED, needs
from rl.credit.say import annealed
from rl.options import checked

CRITICAL = frozenset(name for name in CREDIT if "values" in needs(name))
"""Estimators that ask a critic, which algorithm ppo has."""


class CreditConfig(BaseModel):
    """Which estimator, its options, and what is done to its advantages."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "grpo"
    rms: float | None = Field(None, gt=0)
    """What the advantages of a step's sampled tokens are scaled to have as root mean square."""
    anneal: tuple[float, float] | None = None
    """The shares of training between which the weight of turn rewards goes linearly to 0."""
    soft_gate: float | None = Field(None, ge=0)
    """How strongly turn rewards redistribute what the outcome earned; they then earn nothing themselves."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def at(self, done: float) -> CreditConfig:
        """The same when a share `done` of training is behind."""
        if self.anneal is None:
            return self
        left = annealed(done, *self.anneal)
        if self.soft_gate is not None:
            return self.model_copy(update={"soft_gate": left * self.soft_gate})
        return self.model_copy(update={"process": left * self.options.get("process", 1.0)})

    @model_validator(mode="after")
    def _known(self) -> CreditConfig:
        if self.name not in CREDIT:
            raise ValueError(f"credit.name: {unknown('estimator', self.name, CREDIT)}")
        for option in self.options.keys() & GIVEN:
            raise ValueError(f"credit.{option}: is what the trainer gives with each group; remove it")
        checked(CREDIT[self.name], self.options, f"credit, with {self.name}", given=2)
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> CreditConfig:
        if self.rms is not None and self.name in WHITENED:
            raise ValueError(f"credit.rms would have no effect: {self.name} whitens the batch; remove it")
        if self.soft_gate is not None and "process" in self.options:
            raise ValueError("credit.process would have no effect with credit.soft_gate, which is their say; remove it")
        if self.soft_gate is not None and self.name in CRITICAL:
            raise ValueError(f"credit.soft_gate: {self.name} gives turn rewards their say itself; remove one of them")
        if self.anneal is not None and not 0 <= self.anneal[0] < self.anneal[1] <= 1:
            raise ValueError("credit.anneal: two shares of training, the first below the second, as in [0.5, 0.8]")
        return self
