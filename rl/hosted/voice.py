"""The engine that answers chats: one base, every fine-tuned model an adapter of it, opened when first asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.errors import InputError
from rl.config import ChatConfig, EngineConfig
from rl.engines import EngineError, Piece, Sampling
from rl.loop import BackgroundLoop
from rl.machine import gpus

if TYPE_CHECKING:
    from rl.chat import Chat
    from rl.engines.vllm import VllmEngine

SIDE_BY_SIDE = 4
"""Adapters that answer at once; more than these take turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is sampled: a conversation's ids, and how."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int | None = None
    adapter: Path | None = None
    """None is the base."""
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An engine that runs, and who reads its tokens."""

    chat: Chat
    engine: VllmEngine
    loop: BackgroundLoop

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.engine.max_model_len


@dataclass(slots=True, kw_only=True)
class Voice:
    """The engine of a server. It runs on a thread of its own, for it blocks while it starts.

    Args:
        engine, chat, lora: what training goes by.
        base: makes sure that the base model is there, and says where.
    """

    engine: EngineConfig
    chat: ChatConfig
    lora: Mapping[str, Any]
    base: Callable[[], Coroutine[Any, Any, str]]
    _training: bool = False
    _opened: Open | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self) -> Open:
        """The running engine; the first call waits until it answers.

        Raises:
            InputError: the config can't be served.
            EngineError: it did not start.
        """
        async with self._opening:
            if self._opened is not None and not await self._opened.engine.healthy():
                await self._close()
            if self._opened is None:
                model = await self.base()
                if self._training:
                    raise EngineError("a job is training on the accelerator; chats are answered once it has ended")
                self._opened = await asyncio.to_thread(self._start, model)
            return self._opened

    async def make_room(self) -> None:
        """Leave the accelerator to a job, until `resume`; on CPU both have their turn."""
        self._training = bool(await asyncio.to_thread(gpus))
        if self._training:
            await self.close()

    def resume(self) -> None:
        """The accelerator is free again."""
        self._training = False

    async def stream(self, ask: Ask) -> AsyncGenerator[Piece, None]:
        """Sample one answer, as it comes; who stops listening ends it.

        Raises:
            InputError: an adapter that can't be served.
            EngineError: the engine died.
        """
        opened = await self.open()
        here, heard = asyncio.get_running_loop(), asyncio.Queue[Piece | None]()

        async def sample() -> None:
            async for piece in opened.engine.stream(
                ask.prompt_ids,
                ask.sampling,
                stop_ids=opened.chat.stop_ids,
                seed=ask.seed,
                adapter=ask.adapter,
                top_logprobs=ask.top_logprobs,
            ):
                here.call_soon_threadsafe(heard.put_nowait, piece)

        sampling = opened.loop.submit(sample())
        sampling.add_done_callback(lambda _: _tell(here, heard))
        try:
            while (piece := await heard.get()) is not None:
                yield piece
            await asyncio.wrap_future(sampling)
        finally:
            sampling.cancel()

    async def close(self) -> None:
        """Stop the engine and give back what it holds; the next call opens it anew. Idempotent."""
        async with self._opening:
            await self._close()

    def _start(self, model: str) -> Open:
        from rl.session import open_chat, read_tokenizer

        if self.engine.kind != "vllm":
            raise InputError(f"chats need engine.kind vllm, which has many adapters at once, not {self.engine.kind}")
        chat = open_chat(self.chat, read_tokenizer(model))
        loop = BackgroundLoop()
        try:
            return Open(chat=chat, engine=loop.run(self._engine(model)), loop=loop)
        except BaseException:
            loop.close()
            raise

    async def _engine(self, model: str) -> VllmEngine:
        from rl.engines.vllm import VllmEngine
        from rl.trainers.settings import LORA_DEFAULTS

        arguments = self.engine.arguments
        limits = {"max_model_len": arguments.pop("max_model_len")} if "max_model_len" in arguments else {}
        return await VllmEngine.open(
            model=model,
            lora={**LORA_DEFAULTS, **self.lora},
            handover="adapter",
            dtype=self.engine.dtype,
            adapters=SIDE_BY_SIDE,
            engine_args=arguments,
            **limits,
        )

    async def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await asyncio.to_thread(_shut, opened)


def _tell(loop: asyncio.AbstractEventLoop, heard: asyncio.Queue[Piece | None]) -> None:
    with suppress(RuntimeError):  # the server's loop is closed already
        loop.call_soon_threadsafe(heard.put_nowait, None)


def _shut(opened: Open) -> None:
    opened.loop.run(opened.engine.close())
    opened.loop.close()
