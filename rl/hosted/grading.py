"""`/v1/fine_tuning/alpha/graders`: a grader checked, and run on one sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from envs.errors import InputError
from rewards.graders import Grader, Services, Settings, parse, spec
from rewards.graders.sample import of_text
from rl.hosted.errors import ApiError
from rl.hosted.wire import StrictRoute


class RunGrader(BaseModel):
    """The body of `graders/run`."""

    model_config = ConfigDict(extra="forbid")

    grader: dict[str, Any]
    model_sample: str
    item: dict[str, Any] = {}
    trace_id: str | None = None


class ValidateGrader(BaseModel):
    """The body of `graders/validate`."""

    model_config = ConfigDict(extra="forbid")

    grader: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """What graders of requests are run with: made once, shared by all."""

    services: Services
    settings: Settings = field(default_factory=Settings)

    def grader(self, tree: Any) -> Grader:
        """A grader, ready to run.

        Raises:
            ApiError: 400, it is none, or needs something that this server was not given.
        """
        try:
            return Grader(parse(tree), settings=self.settings, services=self.services)
        except InputError as error:
            raise ApiError(400, str(error), param="grader", code="invalid_grader") from error


def router(grading: Grading) -> APIRouter:
    """`/v1/fine_tuning/alpha/graders`."""
    api = APIRouter(prefix="/v1/fine_tuning/alpha/graders", route_class=StrictRoute, tags=["graders"])

    @api.post("/run")
    async def run(body: RunGrader) -> dict[str, Any]:
        """Grade one sample."""
        grader = grading.grader(body.grader)
        sample = of_text(body.model_sample)
        trace = body.trace_id or f"trace_{spec.content_hash(body.item, sample)[:32]}"
        try:
            grade = await grader.grade(body.item, sample, trace_id=trace)
        except InputError as error:  # no tier of sandbox holds on this machine
            raise ApiError(503, str(error), code="sandbox_unavailable") from error
        return grade.response()

    @api.post("/validate")
    def validate(body: ValidateGrader) -> dict[str, Any]:
        """Check a grader, and give it back as it is understood."""
        return {"grader": spec.as_json(grading.grader(body.grader).spec)}

    return api
