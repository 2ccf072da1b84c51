"""Rows of hosted reinforcement fine-tuning, played: one turn, or many with tools that servers carry out.

A row is `messages`, whose last is the user's, `tools` in the shape of chat completions, and whatever else graders
read. Where a job names a server for the tools, their calls go there over HTTP as the hosted service sends them (one
`trace_id` for all calls of a rollout). Where it names none, the model's first turn is the whole episode, and its
calls are what is graded. What is known of the protocol, and what was decided, is in docs/hosted.md.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from envs.environment import Environment, ToolSpec, as_text
from envs.errors import EnvLost, InputError, ToolError, reasons
from envs.guard import Guard
from envs.tasks import from_row, jsonl_rows, messages_of
from envs.types import Message, Task, ToolResult

BYTES = 1_000_000
"""The most that goes to a server, and the most that is taken from one: 1 MB."""
SECONDS = 600.0
"""How long one try may take."""
RETRIES = 3
"""How often a call is sent again after the server has failed."""
BACKOFF = 0.5
"""Seconds before the first of them; twice as many before each further one."""


EMPTY = {"type": "object", "properties": {}}
"""The schema of a tool that names no parameters."""


class ToolServer(BaseModel):
    """Where the calls of a tool go."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    server_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+")]
    headers: dict[str, str] = {}


class _Function(BaseModel):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(BaseModel):
    type: Literal["function"]
    function: _Function


_TOOLS = TypeAdapter(list[_Tool])


class Hosted(Environment):
    """One row. Its tools are the row's; `servers` of the class say who carries them out."""

    servers: ClassVar[Mapping[str, ToolServer]] = {}

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        self._specs = tools_of(task.item, f"task {task.id}")
        self.trace_id = f"trace_{uuid.uuid4().hex}"
        """What tool servers and endpoint graders know this rollout by; a rollout that is played again has another."""
        self._client: httpx.AsyncClient | None = None
        super().__init__(task, guard)

    @classmethod
    def configured(cls, servers: dict[str, ToolServer] | None = None) -> type[Environment]:
        """The environment with the servers of a job: tool -> where its calls go."""
        return type(cls.__name__, (cls,), {"name": cls.name, "servers": servers or {}})

    @classmethod
    def tasks(cls, split: str, files: dict[str, str] | None = None) -> list[Task]:
        """The rows of a split's file, JSONL.

        Raises:
            InputError: no such file, or a row of it that can't be used.
        """
        if split not in (files or {}):
            raise InputError(f"env.options.files names no file for split {split!r}, only {', '.join(files or {})}")
        path = Path((files or {})[split])
        return collect((f"{path}, line {n}", row) for n, row in jsonl_rows(path))

    def available(self) -> Mapping[str, ToolSpec]:
        return self._specs

    def context(self) -> Mapping[str, Any]:
        return {"trace_id": self.trace_id}

    async def setup(self) -> None:
        if self.servers:
            self._client = httpx.AsyncClient(timeout=SECONDS, verify=_certificates())

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def step(self, message: Message) -> tuple[ToolResult, ...]:
        if not self.servers:  # nobody answers: what was called is the end of the episode, and what is graded
            self.done = True
            return ()
        return await super().step(message)

    async def ask(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What the server of a tool answers to a call.

        Raises:
            ToolError: it complained about the call.
            EnvLost: it failed, and failed again at every retry.
        """
        server = self.servers[name]
        body = json.dumps(
            {
                "type": "function_call",
                "id": f"fc_{uuid.uuid4().hex}",
                "call_id": f"call_{uuid.uuid4().hex}",
                "name": name,
                "arguments": json.dumps(arguments, ensure_ascii=False),
                "trace_id": self.trace_id,
                "item": dict(self.task.item),
            }
        ).encode()
        if len(body) > BYTES:
            raise ToolError(_too_large("call"))
        failed = ""
        for attempt in range(RETRIES + 1):
            if attempt:
                await asyncio.sleep(BACKOFF * 2 ** (attempt - 1))
            try:
                return _said(*await self._post(server, body))
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, _ServerFailed) as error:
                failed = f"{type(error).__name__.strip('_')} {error}".strip()
        raise EnvLost(f"the tool server {server.server_url} failed {RETRIES + 1} times: {failed}")

    async def _post(self, server: ToolServer, body: bytes) -> tuple[int, bytes | None]:
        """Status and body of an answer; None for one that is too large to be read."""
        assert self._client is not None, "setup() comes first"
        headers = {"content-type": "application/json", **server.headers}
        request = self._client.stream("POST", server.server_url, content=body, headers=headers)
        async with asyncio.timeout(SECONDS), request as answer:
            read = bytearray()
            async for chunk in answer.aiter_bytes():
                read += chunk
                if len(read) > BYTES:
                    return answer.status_code, None
        return answer.status_code, bytes(read)


class _ServerFailed(Exception):
    """A status or an answer that says nothing about the call."""


def _said(status: int, body: bytes | None) -> str:
    if status >= 500 or 300 <= status < 400:
        raise _ServerFailed(f"HTTP {status}")
    if body is None:
        raise ToolError(_too_large("answer"))
    text = body.decode("utf-8", "replace")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = None
    output = tree.get("output") if isinstance(tree, Mapping) else None
    if output is None and status < 400:
        raise _ServerFailed(f"expected {{'output': text}}, found {text[:200]!r}")
    said = text or f"HTTP {status}" if output is None else as_text(output)
    if status >= 400:
        raise ToolError(said)
    return said


def _too_large(what: str) -> str:
    said = f"the {what} is larger than {BYTES:,} bytes"
    return json.dumps({"error": {"code": 413, "message": said}})


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: making a client of its own for each episode is cheap but for this."""
    return httpx.create_ssl_context()


@dataclass(frozen=True, slots=True)
class _Object:
    """Arguments that the tool's server judges: any object."""

    text: str
    """The schema, as JSON: equal schemas make equal tools, and conversations that begin alike are rendered once."""

    @property
    def schema(self) -> dict[str, Any]:
        return _schema(self.text)

    def parse(self, text: str) -> dict[str, Any]:
        try:
            return _OBJECT.validate_json(text or "{}", strict=True)
        except ValidationError as error:
            raise ToolError(reasons(error)) from error


_OBJECT = TypeAdapter(dict[str, Any])


@cache
def _schema(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def _method(name: str) -> Callable[..., Any]:
    async def method(played: Hosted, /, **arguments: Any) -> str:
        return await played.ask(name, arguments)

    return method


def tools_of(row: Mapping[str, Any], where: str) -> dict[str, ToolSpec]:
    """The tools that a row offers, by name.

    Raises:
        InputError: they are no function tools, or two have one name.
    """
    try:
        tools = _TOOLS.validate_python([] if row.get("tools") is None else row["tools"], strict=True)
    except ValidationError as error:
        raise InputError(f"{where}: tools: {reasons(error)}") from error
    found = {}
    for function in (tool.function for tool in tools):
        if function.name in found:
            raise InputError(f"{where}: tools: {function.name!r} is there twice")
        found[function.name] = ToolSpec(
            name=function.name,
            description=function.description or "",
            arguments=_Object(json.dumps(function.parameters or EMPTY, sort_keys=True)),
            timeout=(RETRIES + 2) * SECONDS,
            method=_method(function.name),
        )
    return found


def collect(rows: Iterator[tuple[str, Any]]) -> list[Task]:
    """Tasks of rows, each with the place it came from. A row that is there twice is two tasks.

    Keys that have a meaning in other files of tasks, `id` and `files`, have none here: they are the row's own.

    Raises:
        InputError: a row that can't be used.
    """
    seen: Counter[str] = Counter()
    tasks = []
    for where, row in rows:
        task = task_of(row, where)
        seen[task.id] += 1
        repeated = seen[task.id] > 1
        tasks.append(replace(task, id=f"{task.id}-{seen[task.id]}") if repeated else task)
    return tasks


def task_of(row: Any, where: str) -> Task:
    """The task of one row.

    Raises:
        InputError: it is no object, has no messages, their last is not the user's, or its tools can't be used.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected an object, found {type(row).__name__}")
    if not isinstance(row.get("messages"), Sequence) or isinstance(row["messages"], str):
        raise InputError(f"{where}: a row needs 'messages', a list; this one has {', '.join(row) or 'nothing'}")
    task = from_row({key: value for key, value in row.items() if key not in ("id", "files")}, where)
    if task.prompt[-1].role != "user":
        raise InputError(f"{where}: the last message is the {task.prompt[-1].role}'s; it must be the user's")
    tools_of(row, where)
    return replace(task, item=dict(row))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What supervised fine-tuning learns from a row: one reply, and all that was said before it."""

    prompt: tuple[Message, ...]
    reply: Message
    tools: tuple[ToolSpec, ...]


def examples_of(row: Any, where: str) -> list[Example]:
    """The replies of a row: every assistant message but those of `weight` 0.

    Raises:
        InputError: it is no row, nobody asks before the first reply, or there is nothing to learn.
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("messages"), list):
        raise InputError(f"{where}: a row is an object with 'messages', a list")
    messages = messages_of(row["messages"], f"{where}: messages")
    tools = tuple(tools_of(row, where).values())
    found = []
    for i, (message, said) in enumerate(zip(messages, row["messages"], strict=True)):
        if message.role != "assistant" or said.get("weight") == 0:
            continue
        if not any(before.role == "user" for before in messages[:i]):
            raise InputError(f"{where}: messages.{i}: nobody has asked before this reply; a user's message comes first")
        found.append(Example(prompt=messages[:i], reply=message, tools=tools))
    if not found:
        raise InputError(f"{where}: there is no assistant message to learn from")
    return found
