"""An environment: a task, and the methods marked `@tool` that a model may call on it.

Single-use: one instance plays one episode, and there is no reset, so no state can leak from one
episode into the next.

    class Calculator(Environment):
        @tool
        def multiply(self, a: int, b: int) -> int:
            "Multiply two integers."
            return a * b
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeVar, get_type_hints, overload

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from envs.errors import EnvLost, InputError, ToolError
from envs.guard import Guard
from envs.threads import in_thread
from envs.types import Fault, Message, Task, ToolCall, ToolResult

F = TypeVar("F", bound=Callable[..., Any])

TOOL_SECONDS = 30.0
"""How long a tool may take, unless its `@tool(timeout=...)` says otherwise."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told about a tool, and what is needed to call it."""

    name: str
    description: str
    arguments: type[BaseModel]
    timeout: float
    """Seconds."""
    method: Callable[..., Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in the shape of OpenAI's `tools` list, which chat templates take too."""
        parameters = self.arguments.model_json_schema()
        parameters.pop("title", None)
        parameters.pop("additionalProperties", None)
        for field in parameters.get("properties", {}).values():
            field.pop("title", None)
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


@overload
def tool(method: F) -> F: ...
@overload
def tool(*, timeout: float = TOOL_SECONDS) -> Callable[[F], F]: ...
def tool(method: F | None = None, *, timeout: float = TOOL_SECONDS) -> F | Callable[[F], F]:
    """Let the model call this method. Its signature and docstring become the tool's JSON schema.

    Sync or async. A sync tool runs in a thread of its own, one at a time per environment, so that it
    need not be thread-safe and can't hold up other episodes; async tools of one turn run at once.
    """

    def mark(method: F) -> F:
        method.__tool_seconds__ = timeout  # type: ignore[attr-defined]
        return method

    return mark(method) if method is not None else mark


class Environment:
    """A task being played. Subclass it, mark methods with `@tool`, and say which `tasks` there are."""

    name: ClassVar[str] = ""
    """How configs and records call it; the class name in lower case unless set."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__dict__.get("name") or cls.__name__.lower()

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        self.task = task
        self.guard = guard or Guard()
        self.done = False
        """Set it in a tool to end the episode after this turn."""
        self._in_turn = asyncio.Lock()

    @classmethod
    def tasks(cls, split: str) -> list[Task]:
        """The tasks of a split: "train", "validation" or "test". Subclasses may take more options."""
        raise InputError(f"environment {cls.name!r} brings no tasks of its own: name a file under env.data")

    async def setup(self) -> None:
        """Prepare what the episode needs. Runs once, before the first turn."""

    async def close(self) -> None:
        """Give back what `setup` took. Runs once, however the episode ended."""

    def context(self) -> Mapping[str, Any]:
        """What the model was given to stand on, for the record: policy text, documents, constraints."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """What the world looks like now; read once at the end, for outcome graders. JSON values."""
        return {}

    @classmethod
    def tools(cls) -> Mapping[str, ToolSpec]:
        """The tools by name, in the order they were written."""
        return _tools(cls)  # type: ignore[arg-type]  # a class is hashable; the stub sees its instances

    async def step(self, message: Message) -> tuple[ToolResult, ...]:
        """Carry out every call of a message, results in the order of the calls."""
        return tuple(await asyncio.gather(*map(self.call, message.tool_calls)))

    async def call(self, call: ToolCall) -> ToolResult:
        """Carry out one call. Whatever is wrong with it becomes text for the model.

        Raises:
            EnvLost: the environment is gone.
        """
        started = time.perf_counter()

        def result(content: str, fault: Fault | None = None) -> ToolResult:
            seconds = time.perf_counter() - started
            return ToolResult(call_id=call.id, name=call.name, content=content, fault=fault, seconds=seconds)

        spec = self.tools().get(call.name)
        if spec is None:
            return result(f"Error: there is no tool {call.name!r}. Tools: {', '.join(self.tools())}.", "unknown_tool")
        try:
            arguments = spec.arguments.model_validate_json(call.arguments or "{}", strict=True)
        except ValidationError as error:
            return result(f"Error: {_reasons(error)}", "bad_arguments")
        if refusal := self.guard.admit(call):
            return result(f"Error: {refusal}", "denied")
        try:
            async with asyncio.timeout(spec.timeout):
                return result(as_text(await self._run(spec, dict(arguments))))
        except TimeoutError:
            return result(f"Error: {call.name} took longer than {spec.timeout:g} s and was stopped.", "timeout")
        except ToolError as error:
            return result(f"Error: {error}", "raised")
        except EnvLost:
            raise
        except Exception as error:  # the boundary to the author's code: a tool that breaks is news for the model
            return result(f"Error: {type(error).__name__}: {error}", "raised")

    async def _run(self, spec: ToolSpec, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(spec.method):
            return await spec.method(self, **arguments)
        async with self._in_turn:
            return await in_thread(lambda: spec.method(self, **arguments))


@cache
def _tools(cls: type[Environment]) -> Mapping[str, ToolSpec]:
    members: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        members |= {n: m for n, m in vars(base).items() if hasattr(m, "__tool_seconds__")}
    return {name: _spec(f"{cls.__name__}.{name}", name, method) for name, method in members.items()}


def _spec(where: str, name: str, method: Callable[..., Any]) -> ToolSpec:
    """Read a tool's schema off its signature and docstring.

    Raises:
        InputError: a parameter without a type, or one that can't be named in JSON.
    """
    doc = docstring_parser.parse(inspect.getdoc(method) or "")
    told = {p.arg_name: p.description for p in doc.params}
    hints = get_type_hints(method)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InputError(f"tool {where}: *{parameter.name} has no JSON schema; name each parameter")
        if parameter.name not in hints:
            raise InputError(
                f"tool {where}: parameter {parameter.name!r} has no type hint; add one, as in 'order_id: str'"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], Field(default, description=told.get(parameter.name)))
    arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    description = "\n".join(filter(None, (doc.short_description, doc.long_description)))
    return ToolSpec(name, description, arguments, method.__tool_seconds__, method)  # type: ignore[attr-defined]


def as_text(value: Any) -> str:
    """What the model reads of a tool's return value: strings as they are, the rest as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode()


def _reasons(error: ValidationError) -> str:
    """What was wrong with the arguments, in a line a model can act on."""
    parts = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(map(str, item["loc"]))
        parts.append(f"{where}: {item['msg']}" if where else item["msg"])
    return "bad arguments: " + "; ".join(parts)
