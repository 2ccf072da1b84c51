"""The tools of an MCP server as an environment, over stdio or streamable HTTP.

    Files = environment(Server(command="npx", args=["-y", "@modelcontextprotocol/server-filesystem", "."]))
    episode = await run_episode(Files(task), policy, limits, id="1")

Each episode has a session of its own, and over stdio a server process of its own. What a tool says is
wrong is the model's to read; a server that dies or that speaks no MCP ends the episode as
`Stop.ENV_LOST`. Subclass what `environment` returns to add tasks, a state or tools.
Protocol: https://modelcontextprotocol.io/specification
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TextIO, TypeVar

import httpx2
import mcp_types
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from envs.environment import Environment
from envs.errors import EnvLost, InputError, ToolError
from envs.guard import Guard
from envs.schemas import JsonSchema
from envs.tools import ToolSpec
from envs.types import Task

T = TypeVar("T")

TELL_PID = 'echo $$ >&2; exec "$@"'
"""Has sh write the process number that the program is going to have. The SDK starts it as the leader of a group."""

STOP_SECONDS = 10.0
"""How long a session may take to end before it is cut off; the SDK kills a process that ignores it sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How an MCP server is reached: a program that is started for every episode, or an address.

    Raises:
        InputError: it is both or neither, or a setting belongs to the other.
    """

    command: str | None = None
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to PATH, HOME and the few other variables that the program gets; it sees no others of ours."""
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 30.0
    """Seconds for the server to be ready, and for each call."""

    def __post_init__(self) -> None:
        if (self.command is None) == (self.url is None):
            raise InputError("an MCP server is a command to start or a url to connect to: name one of them")
        foreign = ("headers",) if self.url is None else ("args", "env", "cwd")
        if given := [name for name in foreign if getattr(self, name)]:
            raise InputError(f"{', '.join(given)} would have no effect with {'url' if self.url else 'command'}")

    @property
    def where(self) -> str:
        return f"MCP server {self.url or ' '.join([str(self.command), *self.args])}"


class Mcp(Environment):
    """An episode with an MCP server. `environment` makes the classes that can be played."""

    server: ClassVar[Server]
    offered: ClassVar[Mapping[str, ToolSpec]]
    """What the server offered when it was asked for its tools."""

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        super().__init__(task, guard)
        self.session = Session(self.server)

    async def setup(self) -> None:
        tools = await self.session.open()
        if gone := sorted(self.offered.keys() - {tool.name for tool in tools}):
            raise EnvLost(f"{self.server.where} no longer offers {', '.join(gone)}")

    async def close(self) -> None:
        await self.session.close()

    @classmethod
    def tools(cls) -> Mapping[str, ToolSpec]:
        """The server's tools; one marked in a subclass takes the place of the server's of that name."""
        return MappingProxyType({**cls.offered, **super().tools()})


def environment(server: Server) -> type[Mcp]:
    """An environment of the tools a server offers. Starts or calls it once, to ask.

    Raises:
        InputError: it can't be started or reached, offers no tools, or one that can't be offered to a model.
    """
    try:
        tools = _apart(_offered(server))
    except EnvLost as error:
        raise InputError(str(error)) from error
    specs = {tool.name: _spec(tool, server) for tool in tools}
    if not specs or len(specs) < len(tools):
        raise InputError(f"{server.where} offers {'two tools of one name' if specs else 'no tools'}")
    return type("Mcp", (Mcp,), {"name": "mcp", "server": server, "offered": MappingProxyType(specs)})


async def _offered(server: Server) -> list[mcp_types.Tool]:
    session = Session(server)
    try:
        return await session.open()
    finally:
        await session.close()


def _apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from code that is not async, whether or not a loop runs in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def _spec(tool: mcp_types.Tool, server: Server) -> ToolSpec:
    async def method(played: Mcp, /, **arguments: Any) -> str:
        return await played.session.call(tool.name, arguments)

    return ToolSpec(
        name=tool.name,
        description=tool.description or "",
        arguments=JsonSchema(tool.input_schema, f"{server.where}, tool {tool.name}"),
        timeout=server.timeout,
        method=method,
    )


class Session:
    """One session with a server, opened once and closed once.

    A task of its own holds it: the SDK's contexts have to be left by the task that entered them, and
    what breaks inside them cancels that task, which must not be the episode's.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._leave = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None
        self._log: TextIO | None = None

    async def open(self) -> list[mcp_types.Tool]:
        """Connect, and return what tools there are.

        Raises:
            EnvLost: it could not be started or reached, was not ready in time, or speaks no MCP.
        """
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[tuple[Client, list[mcp_types.Tool]]] = loop.create_future()
        self._lost: asyncio.Future[str] = loop.create_future()
        self._holder = asyncio.create_task(self._hold())
        first: set[asyncio.Future[Any]] = {self._ready, self._lost}
        await asyncio.wait(first, timeout=self._server.timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._ready.done():
            self._client, tools = self._ready.result()
            return tools
        raise self._gone(f"was not ready within {self._server.timeout:g} s")

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What a tool answers, as text.

        Raises:
            ToolError: the tool, or the server, says what was wrong with the call.
            EnvLost: the server is gone, or what it says is no MCP.
        """
        try:
            result = await self._answered(self._client.call_tool(name, arguments))
        except MCPError as error:
            if error.code != mcp_types.INVALID_PARAMS and not await self._alive():
                raise self._gone(error.message) from error
            raise ToolError(error.message) from error
        text = _text(result)
        if result.is_error:
            raise ToolError(text)
        return text

    async def close(self) -> None:
        """End the session, and the process that was started for it. Idempotent."""
        if self._holder is None:
            return
        self._leave.set()
        if not self._ready.done():
            self._holder.cancel()
        try:
            await asyncio.wait({self._holder}, timeout=STOP_SECONDS)
        finally:
            self._holder.cancel()
        await asyncio.wait({self._holder}, timeout=STOP_SECONDS)

    async def _answered(self, question: Coroutine[Any, Any, T]) -> T:
        """The answer, unless the session breaks first."""
        asked = asyncio.ensure_future(question)
        try:
            first: set[asyncio.Future[Any]] = {asked, self._lost}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise self._gone("is gone")
            return asked.result()
        except (ValueError, RuntimeError) as error:  # how the SDK says that an answer breaks the protocol or the schema
            raise self._gone(_short(error)) from error
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    def _gone(self, reason: str) -> EnvLost:
        """The end of the environment, with the first reason that was heard of."""
        reason = self._lost.result() if self._lost.done() else f"{reason}{self._last_words()}"
        return EnvLost(f"{self._server.where}: {reason}")

    def _last_words(self) -> str:
        """The last that the program wrote to stderr. `pread`, because the file's position is the program's as well."""
        if self._log is None or self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        start = len(os.pread(self._log.fileno(), 20, 0).partition(b"\n")[0])  # the first line is the process number
        said = os.pread(self._log.fileno(), 500, max(start, size - 500)).decode(errors="replace").strip()
        return f"; its last words: {said}" if said else ""

    async def _alive(self) -> bool:
        """Whether the server still answers, so that an error was about the call and not the end of it."""
        try:
            async with asyncio.timeout(self._server.timeout):
                await self._answered(self._client.list_tools())
        except (MCPError, EnvLost, TimeoutError):
            return False
        return True

    async def _hold(self) -> None:
        with tempfile.TemporaryFile("w+") as self._log:
            try:
                async with self._connected(self._log) as client:
                    self._ready.set_result((client, await _all_tools(client)))
                    await self._leave.wait()
            except Exception as error:  # the boundary to the SDK, whose tasks may raise anything, in groups
                self._lose(f"{_short(error)}{self._last_words()}")
            else:
                self._lose("the session has ended")
            finally:
                self._end_group(self._log)

    def _end_group(self, log: TextIO) -> None:
        """End what the program has started and left behind; the SDK ends the program alone if that goes by itself."""
        pid = os.pread(log.fileno(), 20, 0).partition(b"\n")[0]
        if self._server.command is not None and pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)

    @contextlib.asynccontextmanager
    async def _connected(self, log: TextIO) -> AsyncIterator[Client]:
        server = self._server
        if server.command is not None:
            program = StdioServerParameters(
                command="/bin/sh",
                args=["-c", TELL_PID, "sh", server.command, *server.args],
                env=dict(server.env),
                cwd=server.cwd,
                encoding_error_handler="replace",  # what is broken is text, or no MCP; strict hangs the SDK's reader
            )
            transport = stdio_client(program, errlog=log)
            async with Client(transport, cache=None, message_handler=self._hear) as client:
                yield client
            return
        assert server.url is not None
        async with httpx2.AsyncClient(headers=dict(server.headers), timeout=server.timeout) as http:
            transport = streamable_http_client(server.url, http_client=http)
            async with Client(transport, cache=None, message_handler=self._hear) as client:
                yield client

    async def _hear(self, message: mcp_types.ServerNotification | Exception) -> None:
        if isinstance(message, Exception):
            self._lose(f"speaks no MCP: {_short(message)}")

    def _lose(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)


async def _all_tools(client: Client) -> list[mcp_types.Tool]:
    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        if (cursor := page.next_cursor) is None:
            return tools


def _text(result: mcp_types.CallToolResult) -> str:
    """What a model can read of a result; of an image or a sound, that there was one."""
    parts = [_block_text(block) for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    return "\n".join(parts)


def _block_text(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent(text=text):
            return text
        case mcp_types.ImageContent(mime_type=kind) | mcp_types.AudioContent(mime_type=kind):
            return f"[{kind}, not shown]"
        case mcp_types.ResourceLink(uri=uri):
            return str(uri)
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents(text=text)):
            return text
        case mcp_types.EmbeddedResource(resource=resource):
            return f"[{resource.uri}, not shown]"


def _short(error: BaseException) -> str:
    """The first thing that went wrong, on one line; task groups wrap errors in groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
