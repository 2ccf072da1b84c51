"""`/v1/chat/completions`: conversations with the base, with fine-tuned models and with their checkpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from envs.errors import InputError
from envs.tools import ToolSpec
from envs.types import Message
from rl.engines import EngineError
from rl.hosted.asking import ChatRequest
from rl.hosted.errors import ApiError
from rl.hosted.models import Models
from rl.hosted.speech import Speech
from rl.hosted.store import new_id, now
from rl.hosted.voice import Ask, Open, Voice
from rl.hosted.wire import StrictRoute
from rl.policy import as_openai

END = "data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request on its way: what is sampled, and how the answer is headed."""

    request: ChatRequest
    tools: tuple[ToolSpec, ...]
    opened: Open
    asks: tuple[Ask, ...]
    """One for each choice."""
    head: dict[str, Any]

    def speech(self) -> Speech:
        turn = sum(message["role"] == "assistant" for message in self.request.messages)
        return Speech(self.opened.chat, self.tools, self.request.stops, turn=turn)

    def usage(self, sampled: int) -> dict[str, int]:
        prompt = len(self.asks[0].prompt_ids)
        return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}


def router(models: Models, voice: Voice) -> APIRouter:
    """`/v1/chat/completions`."""
    api = APIRouter(prefix="/v1/chat", route_class=StrictRoute, tags=["chat"])

    @api.post("/completions", response_model=None)
    async def complete(request: ChatRequest, http: Request) -> dict[str, Any] | StreamingResponse:
        """Answer a conversation."""
        answer = await _prepared(request, models, voice)
        if request.stream:
            return StreamingResponse(_streamed(answer, voice), media_type="text/event-stream")
        return await _whole(answer, voice, http)

    return api


async def _prepared(request: ChatRequest, models: Models, voice: Voice) -> Answer:
    adapter = models.adapter(request.model)
    with _about("messages"):
        conversation = request.conversation()
    with _about("tools"):
        tools = request.offered()
    try:
        opened = await voice.open()
    except (EngineError, InputError) as error:
        raise ApiError(503, f"The engine for chats can't be had: {error}", code="engine_unavailable") from error
    with _about("messages"):
        ids = await asyncio.to_thread(opened.chat.prompt, conversation, tools)
    room = opened.context - len(ids)
    asked = request.max_completion_tokens or request.max_tokens
    if room < 1 or (asked is not None and asked > room):
        raise ApiError(
            400,
            f"This model's maximum context length is {opened.context} tokens; the messages have {len(ids)}"
            + (f" and {asked} were asked for" if asked else "")
            + ". Shorten them, or ask for fewer",
            param="messages",
            code="context_length_exceeded",
        )
    ask = Ask(
        prompt_ids=tuple(ids),
        sampling=request.sampling(room),
        seed=request.seed,
        adapter=adapter,
        top_logprobs=request.top_logprobs or 0,
    )
    seeds = [None if ask.seed is None else (ask.seed + k) % 2**63 for k in range(request.n)]
    head = {"id": new_id("chatcmpl"), "created": now(), "model": request.model, "system_fingerprint": None}
    asks = tuple(replace(ask, seed=seed) for seed in seeds)
    return Answer(request=request, tools=tools, opened=opened, asks=asks, head=head)


@contextmanager
def _about(param: str) -> Iterator[None]:
    """What can't be used is told by the field it stands in."""
    try:
        yield
    except InputError as error:
        raise ApiError(400, str(error), param=param) from error


async def _whole(answer: Answer, voice: Voice, http: Request) -> dict[str, Any]:
    speeches = [answer.speech() for _ in answer.asks]

    async def one(ask: Ask, speech: Speech) -> None:
        async with aclosing(voice.stream(ask)) as pieces:
            async for piece in pieces:
                speech.hear(piece)
                if speech.finish is not None or await http.is_disconnected():
                    return

    try:
        await asyncio.gather(*(one(ask, speech) for ask, speech in zip(answer.asks, speeches, strict=True)))
    except (EngineError, InputError) as error:
        raise ApiError(503, f"The engine failed: {error}", code="engine_unavailable") from error
    choices = []
    for index, speech in enumerate(speeches):
        logprobs = None
        if answer.request.logprobs:
            logprobs = {"content": speech.logprobs(top=answer.request.top_logprobs or 0), "refusal": None}
        choices.append(
            {
                "index": index,
                "message": shown(speech.message()),
                "logprobs": logprobs,
                "finish_reason": speech.finish or "length",
            }
        )
    usage = answer.usage(sum(speech.tokens for speech in speeches))
    return {**answer.head, "object": "chat.completion", "choices": choices, "usage": usage}


async def _streamed(answer: Answer, voice: Voice) -> AsyncIterator[str]:
    """Server-sent events; what fails on the way is one of them, for the status is long sent."""
    heard = asyncio.Queue[dict[str, Any] | None]()
    speeches = [answer.speech() for _ in answer.asks]

    async def one(index: int, ask: Ask) -> None:
        async with aclosing(voice.stream(ask)) as pieces:
            async for delta in _deltas(answer.request, speeches[index], pieces):
                heard.put_nowait({"index": index, "logprobs": None, "finish_reason": None} | delta)

    async def every() -> None:
        try:
            await asyncio.gather(*(one(index, ask) for index, ask in enumerate(answer.asks)))
        finally:
            heard.put_nowait(None)

    work = asyncio.create_task(every())
    chunk = {**answer.head, "object": "chat.completion.chunk"}
    options = answer.request.stream_options
    try:
        while (choice := await heard.get()) is not None:
            yield _event(chunk | {"choices": [choice]})
        await work
        if options is not None and options.include_usage:
            yield _event(chunk | {"choices": [], "usage": answer.usage(sum(s.tokens for s in speeches))})
    except (EngineError, InputError) as error:
        yield _event(ApiError(503, f"The engine failed: {error}", code="engine_unavailable").body())
    finally:
        work.cancel()
    yield END


async def _deltas(request: ChatRequest, speech: Speech, pieces: AsyncIterator[Any]) -> AsyncIterator[dict[str, Any]]:
    """What of one choice is told with each piece, and at its end."""
    yield {"delta": {"role": "assistant", "content": ""}}
    told = 0
    async for piece in pieces:
        text = speech.hear(piece)
        if text or request.logprobs:
            part: dict[str, Any] = {"delta": {"content": text}}
            if request.logprobs:
                part["logprobs"] = {"content": speech.logprobs(told, top=request.top_logprobs or 0), "refusal": None}
                told = speech.tokens
            yield part
        if speech.finish is not None:
            break
    calls = shown(speech.message()).get("tool_calls", [])
    if calls:
        yield {"delta": {"tool_calls": [{"index": k, **call} for k, call in enumerate(calls)]}}
    yield {"delta": {}, "finish_reason": speech.finish or "length"}


def shown(message: Message) -> dict[str, Any]:
    """An answer in the shape of the chat API: a turn that only calls has no content."""
    body = as_openai(message) | {"refusal": None}
    return body | {"content": None} if message.tool_calls and not message.content else body


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"
