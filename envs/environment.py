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
from contextlib import nullcontext
from typing import Any, ClassVar, TypeVar, overload

from pydantic_core import to_jsonable_python

from envs.errors import EnvLost, InputError, ToolError
from envs.guard import RESULT_CHARS, Admission, Guard, guard_of
from envs.steps import CALL, Steps
from envs.threads import in_thread
from envs.together import together
from envs.tools import ToolSpec, read_tools
from envs.types import Fault, Message, Task, ToolCall, ToolResult

__all__ = ["TOOL_SECONDS", "Environment", "ToolSpec", "as_text", "tool"]

F = TypeVar("F", bound=Callable[..., Any])

TOOL_SECONDS = 30.0
"""How long a tool may take, unless its `@tool(timeout=...)` says otherwise."""

_NOTHING = Admission()


@overload
def tool(method: F) -> F: ...
@overload
def tool(*, timeout: float = TOOL_SECONDS) -> Callable[[F], F]: ...
def tool(method: F | None = None, *, timeout: float = TOOL_SECONDS) -> F | Callable[[F], F]:
    """Let the model call this method. Its signature and docstring become the tool's JSON schema.

    Sync or async. A sync tool runs in a thread of its own, one at a time per environment, so that it
    need not be thread-safe and can't hold up other episodes; async tools of one turn run at once.
    """
    if not timeout > 0:
        raise InputError(f"a tool's timeout is in seconds and more than 0, not {timeout!r}")

    def mark(method: F) -> F:
        method.__tool_seconds__ = timeout  # type: ignore[attr-defined]
        return method

    return mark(method) if method is not None else mark


class Environment:
    """A task being played. Subclass it, mark methods with `@tool`, and say which `tasks` there are."""

    name: ClassVar[str] = ""
    """How configs and records call it; the class name in lower case unless set."""
    sandboxed: ClassVar[bool] = False
    """Whether it runs code in the sandboxes that all share; a run then opens them at its start. See `envs.sandbox`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__dict__.get("name") or cls.__name__.lower()

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        self.task = task
        self.guard = (guard or Guard()).narrowed(guard_of(task))
        self.guard.check(self.available())
        self.steps = Steps()
        """What its calls amounted to, where its tools note it; give the account in `state`."""
        self.done = False
        """Set it in a tool to end the episode after this turn."""
        self._in_turn = asyncio.Lock()

    @classmethod
    def tasks(cls, split: str) -> list[Task]:
        """The tasks of a split: "train", "validation" or "test". Subclasses may take more options."""
        raise InputError(f"environment {cls.name!r} brings no tasks of its own: name a file under env.data")

    @classmethod
    def configured(cls) -> type[Environment]:
        """The environment with what a config says under `env.settings`; those that take something override this."""
        return cls

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        """The assistant messages of a perfect episode, for environments that know one."""
        raise InputError(f"environment {cls.name!r} has no scripted expert")

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
        """The tools by name, in the order they were written.

        Raises:
            InputError: a tool that can't be offered to a model: a parameter without a type, say.
        """
        return read_tools(cls, Environment)  # type: ignore[arg-type]  # a class is hashable; the stub sees its instances

    def available(self) -> Mapping[str, ToolSpec]:
        """The tools of this episode: those of the class, unless the task brings its own."""
        return self.tools()

    async def step(self, message: Message) -> tuple[ToolResult, ...]:
        """Carry out every call of a message, results in the order of the calls.

        Raises:
            EnvLost: the environment is gone; the other calls were stopped.
        """
        return tuple(await together(map(self.call, message.tool_calls)))

    async def call(self, call: ToolCall) -> ToolResult:
        """Carry out one call. Whatever is wrong with it becomes text for the model.

        Raises:
            EnvLost: the environment is gone.
        """
        spec = self.available().get(call.name)
        if spec is None:
            known = ", ".join(self.available())
            return self._result(call, f"there is no tool {call.name!r}. Tools: {known}.", "unknown_tool")
        try:
            arguments = spec.parse(call.arguments)
        except ToolError as error:
            return self._result(call, f"bad arguments: {error}", "bad_arguments")
        admission = await self.guard.admit(self.task, call, arguments)
        if admission.refusal is not None:
            return self._result(call, admission.refusal, "denied", admission=admission)
        async with nullcontext() if spec.is_async else self._in_turn:
            return await self._execute(call, spec, arguments, admission)

    async def _execute(
        self, call: ToolCall, spec: ToolSpec, arguments: dict[str, Any], admission: Admission
    ) -> ToolResult:
        """Run the author's method. The clock starts here: waiting for another tool's turn is not its time."""
        CALL.set((call, arguments))
        started = time.perf_counter()

        def ended(text: str, fault: Fault | None = "raised") -> ToolResult:
            return self._result(call, text, fault, seconds=time.perf_counter() - started, admission=admission)

        timer = asyncio.timeout(spec.timeout)
        try:
            async with timer:
                value = await _run(spec, lambda: spec.method(self, **arguments))
            return ended(as_text(value), None)
        except EnvLost:
            raise
        except ToolError as error:
            return ended(str(error))
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # the boundary to the author's code
            if isinstance(error, asyncio.CancelledError) and _cancelled():
                raise
            if timer.expired():
                return ended(f"{call.name} took longer than {spec.timeout:g} s and was stopped.", "timeout")
            return ended(f"{type(error).__name__}: {error}")

    def _result(
        self,
        call: ToolCall,
        content: str,
        fault: Fault | None = None,
        *,
        seconds: float = 0.0,
        admission: Admission = _NOTHING,
    ) -> ToolResult:
        limit = RESULT_CHARS if self.guard.result_chars is None else self.guard.result_chars
        text = _cut(content if fault is None else f"Error: {content}", limit)
        return ToolResult(
            call_id=call.id,
            name=call.name,
            content=as_text(text),
            fault=fault,
            seconds=seconds,
            money=admission.price,
            approvals=admission.approvals,
        )


async def _run(spec: ToolSpec, method: Callable[[], Any]) -> Any:
    value = method() if spec.is_async else await in_thread(method)
    return await value if inspect.isawaitable(value) else value


def _cancelled() -> bool:
    """Whether somebody cancels this task, as opposed to a tool that raised `CancelledError` by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cut(text: str, limit: int) -> str:
    """What the model is shown of a long text. The mark says that it was cut, lest it be taken for the whole."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: the result has {len(text)} characters, of which the first {limit} are shown]"


def as_text(value: Any) -> str:
    """What the model reads of a tool's return value: strings as they are, the rest as JSON.

    Dataclasses and pydantic models become objects, sets become arrays, and what JSON has no word for
    becomes its `str`. Lone surrogates become "?", so that the text can be encoded.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_jsonable)
    return text.encode("utf-8", "replace").decode()


def _jsonable(value: Any) -> Any:
    return to_jsonable_python(value, fallback=str, bytes_mode="base64")
