"""What a fine-tuning job is asked for: the body of `POST /v1/fine_tuning/jobs`, and of a bundle's `job.json`.

The models are our own: the official SDK's lack `response_format`, `tools` and `max_episode_steps`, and
mistype the grader. The limits are those of the published specification; docs/hosted.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from envs.errors import InputError, unknown
from rewards.graders import Settings
from rewards.graders import parse as parse_grader
from rewards.graders.sample import format_of
from rewards.graders.spec import Spec, TextSimilarity, walk
from rl.hosted.refusal import Refused

T = TypeVar("T")
Auto: TypeAlias = T | Literal["auto"]
Text: TypeAlias = Annotated[str, Field(min_length=1)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """Every object of a body: strict types, no fields but those there are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SupervisedHyperparameters(Part):
    batch_size: Auto[Annotated[int, Field(ge=1, le=256)]] = "auto"
    """Examples an update."""
    learning_rate_multiplier: Auto[Annotated[Finite, Field(gt=0)]] = "auto"
    n_epochs: Auto[Annotated[int, Field(ge=1, le=50)]] = "auto"


class ReinforcementHyperparameters(SupervisedHyperparameters):
    """`batch_size` counts prompts, each of which is sampled several times."""

    compute_multiplier: Auto[Annotated[Finite, Field(gt=0.00001, le=10)]] = "auto"
    eval_interval: Auto[Annotated[int, Field(ge=1)]] = "auto"
    """Steps between evaluations."""
    eval_samples: Auto[Annotated[int, Field(ge=1)]] = "auto"
    """Samples of each validation row at an evaluation."""
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"


class ToolServer(Part):
    """Who executes a tool that rows offer to the model."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    server_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+")]
    headers: dict[str, str] = {}


class JsonSchema(Part):
    name: Text
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Part):
    """What outputs have to look like, in the form of chat completions."""

    type: Literal["json_schema", "json_object", "text"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_goes_with_its_type(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to type 'json_schema', and that one needs it")
        return self


class Reinforcement(Part):
    grader: dict[str, Any]
    """As it was written; `graded` is what it says."""
    response_format: ResponseFormat | None = None
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    tools: list[ToolServer] = []
    max_episode_steps: Annotated[int, Field(ge=1)] | None = None
    """The most turns of a rollout, in jobs with tools."""

    @property
    def graded(self) -> Spec:
        return parse_grader(self.grader)

    @field_validator("tools")
    @classmethod
    def _one_server_a_tool(cls, tools: list[ToolServer]) -> list[ToolServer]:
        names = [tool.name for tool in tools]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the tool {name!r} is there twice; name one server for it")
        return tools

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Reinforcement:
        if self.max_episode_steps is not None and not self.tools:
            raise ValueError("max_episode_steps would have no effect: without tools a rollout is one turn; remove it")
        return self


class Supervised(Part):
    hyperparameters: SupervisedHyperparameters = SupervisedHyperparameters()


class ReinforcementMethod(Part):
    type: Literal["reinforcement"]
    reinforcement: Reinforcement


class SupervisedMethod(Part):
    type: Literal["supervised"]
    supervised: Supervised = Supervised()


class Wandb(Part):
    project: Text
    name: str | None = None
    entity: str | None = None
    tags: list[str] = []


class Integration(Part):
    type: Literal["wandb"]
    wandb: Wandb


class Body(Part):
    """A job, checked as far as it can be without its files."""

    model: Text
    training_file: Text
    """A file's id, or in a bundle its name."""
    validation_file: Text | None = None
    method: Annotated[ReinforcementMethod | SupervisedMethod, Field(discriminator="type")]
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None
    integrations: list[Integration] | None = None

    @property
    def reinforcement(self) -> Reinforcement | None:
        return self.method.reinforcement if isinstance(self.method, ReinforcementMethod) else None


_BODY = TypeAdapter(Body)


def read(tree: Any) -> Body:
    """A job of plain data, its grader included.

    A body without `method` is a supervised job, with `hyperparameters` beside the rest, as before methods were.

    Raises:
        Refused: what is wrong, by its first mistake, with the field and the service's code for it.
    """
    if not isinstance(tree, Mapping):
        raise Refused(f"a job is a JSON object, not {type(tree).__name__}", code="invalid_type")
    tree = dict(tree)
    if tree.get("method") is None:
        supervised = {"hyperparameters": tree.pop("hyperparameters", None) or {}}
        tree["method"] = {"type": "supervised", "supervised": supervised}
    if isinstance(tree["method"], Mapping) and tree["method"].get("type") == "dpo":
        raise Refused(
            "preferences are not trained on by jobs; use the method reinforcement or supervised",
            param="method.type",
            code="unsupported_value",
        )
    try:
        body = _BODY.validate_python(tree)
    except ValidationError as error:
        raise _refusal(error) from None
    if body.reinforcement is not None:
        _check_grader(body.reinforcement)
        if body.validation_file is None:
            raise Refused(
                "a reinforcement job needs a validation_file: its rows say which checkpoint is the best",
                param="validation_file",
                code="missing_required_parameter",
            )
    return body


def settings(job: Reinforcement, given: Mapping[str, Any]) -> Settings:
    """What the service leaves unsaid of graders, with the job's own response_format.

    Raises:
        InputError: a setting that does not exist, or a schema that is none.
    """
    own = job.response_format
    tree = dict(given)
    if own is not None and own.type != "text":
        tree["response_format"] = own.model_dump(mode="json", by_alias=True, exclude_none=True)
    found = Settings.read(tree)
    format_of(found)
    return found


def _check_grader(job: Reinforcement) -> None:
    try:
        parsed = job.graded
    except InputError as error:
        raise Refused(str(error), param="method.reinforcement.grader", code="invalid_grader") from None
    for place, part in walk(parsed):
        if isinstance(part, TextSimilarity) and part.evaluation_metric == "cosine":
            raise Refused(
                f"{place}: cosine is not for reinforcement fine-tuning; use another evaluation_metric",
                param=f"method.reinforcement.{place}.evaluation_metric",
                code="invalid_grader",
            )
    try:
        settings(job, {})
    except InputError as error:
        raise Refused(str(error), param="method.reinforcement.response_format") from None


CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
    "greater_than": "{kind}_below_min_value",
    "greater_than_equal": "{kind}_below_min_value",
    "less_than_equal": "{kind}_above_max_value",
    "string_too_long": "string_above_max_length",
    "string_too_short": "empty_string",
    "literal_error": "invalid_value",
    "union_tag_invalid": "unsupported_value",
}
"""What pydantic calls a mistake -> what the service calls it; `kind` is integer or decimal, and what ends in `_type`
is "invalid_type"."""


def _refusal(error: ValidationError) -> Refused:
    """The first mistake; where a value is none of several kinds, what is wrong with it as the first of them."""
    item = error.errors(include_url=False)[0]
    path = [str(part) for part in item["loc"]]
    param = ".".join(part for i, part in enumerate(path) if not _is_tag(path, i))
    kind, said = item["type"], item["msg"].removeprefix("Value error, ")
    code = CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    code = code.format(kind="integer" if isinstance(item["input"], int) else "decimal")
    if kind == "extra_forbidden":
        return Refused(f"{param}: {_unknown(path[-1], param)}", param=param, code=code)
    if kind == "missing":
        return Refused(f"missing required parameter: {param!r}", param=param, code=code)
    got = "" if kind in ("value_error", "too_long") else f", not {item['input']!r}"
    auto = " or 'auto'" if path[-1].startswith("constrained-") else ""
    return Refused(f"{param}: {said}{auto}{got if len(got) < 200 else ''}", param=param, code=code)


def _is_tag(path: list[str], i: int) -> bool:
    """Whether a part of pydantic's path is no field: the tag of the method, or the kind of number that was tried."""
    return (i == 1 and path[0] == "method" and len(path) > 2) or path[i].startswith("constrained-")


_SECTIONS: dict[str, type[BaseModel]] = {
    "": Body,
    "method": ReinforcementMethod,
    "method.reinforcement": Reinforcement,
    "method.supervised": Supervised,
    "method.reinforcement.hyperparameters": ReinforcementHyperparameters,
    "method.supervised.hyperparameters": SupervisedHyperparameters,
}


def _unknown(name: str, param: str) -> str:
    section = _SECTIONS.get(param.rpartition(".")[0])
    return "unknown parameter" if section is None else unknown("parameter", name, section.model_fields)
