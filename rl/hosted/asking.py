"""What a chat request says, and what of it can be had here: the body of `POST /v1/chat/completions`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from envs.schemas import JsonSchema
from envs.tasks import messages_of
from envs.tools import ToolSpec
from envs.types import Message
from rl.engines import Sampling

CHOICES = 16
"""The most answers to one request."""


class Part(BaseModel):
    """Nothing is passed over: a field that would have no effect here is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Function(Part):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class Tool(Part):
    type: Literal["function"]
    function: Function


class StreamOptions(Part):
    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(Part):
    type: Literal["text"]


class ChatRequest(Part):
    """One conversation to be answered."""

    model: str
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    tools: list[Tool] = []
    tool_choice: Literal["auto", "none"] = "auto"
    parallel_tool_calls: bool | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
        | None
    ) = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: TextFormat | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    @field_validator("temperature", "top_p", "n", "stream", "logprobs", "tools", "tool_choice", mode="before")
    @classmethod
    def _null_is_the_default(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].get_default() if value is None else value

    @field_validator("parallel_tool_calls")
    @classmethod
    def _calls_are_the_models(cls, value: bool | None) -> bool | None:
        if value is False:
            raise ValueError("how many calls a turn makes is the model's to say here; leave it out")
        return value

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs would have no effect without logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options would have no effect without stream: true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def offered(self) -> tuple[ToolSpec, ...]:
        """What may be called.

        Raises:
            InputError: a tool's parameters are no JSON schema of an object.
        """
        return () if self.tool_choice == "none" else tuple(map(_offered, self.tools))

    def conversation(self) -> tuple[Message, ...]:
        """The messages as records.

        Raises:
            InputError: one that is none, or content other than text.
        """
        return messages_of(self.messages, "messages")

    def sampling(self, room: int) -> Sampling:
        """How an answer is sampled that has `room` tokens of context left."""
        asked = self.max_completion_tokens or self.max_tokens or room
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=min(asked, room))


def _offered(tool: Tool) -> ToolSpec:
    function = tool.function
    schema = {"type": "object", "properties": {}} | function.parameters
    return ToolSpec(
        name=function.name,
        description=function.description,
        arguments=JsonSchema(schema, f"tools: {function.name}"),
        timeout=math.inf,
        method=_elsewhere,
    )


def _elsewhere(environment: object, **arguments: Any) -> Any:
    raise NotImplementedError("who offers a tool in a chat carries out its calls")
