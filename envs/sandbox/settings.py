"""What a configuration may say of sandboxes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs.sandbox.inside.plan import TOOL, Limits


class SandboxSettings(BaseModel):
    """Which tier, for `unsafe` why, and what an episode may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: Literal["auto", "bwrap", "landlock", "unsafe"] = "auto"
    """`auto` takes the best that holds on this machine."""
    reason: str | None = None
    """Why code may run unprotected; printed at every start and recorded."""
    readable: tuple[str, ...] = Field(())
    """Directories that code in a sandbox may read, beside /usr: an interpreter's own, say."""
    python: str | None = None
    """The interpreter that graders run under; the system's unless given."""
    limits: Limits = TOOL
    """Of an episode's sandbox."""

    @model_validator(mode="after")
    def _unsafe_needs_a_reason(self) -> SandboxSettings:
        if (self.tier == "unsafe") != bool(self.reason and self.reason.strip()):
            raise ValueError("sandbox.tier unsafe and sandbox.reason go together: say why code may run unprotected")
        return self
