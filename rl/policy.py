"""What decides the next turn: a script, a chat endpoint, or the model in training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from envs.environment import ToolSpec
from envs.types import Completion, Cost, Episode, Message, ToolCall
from rl.belief import Belief
from rl.chat import Chat
from rl.engines import Engine, EngineError, Sampling


class PolicyError(RuntimeError):
    """The policy could not answer: its server is down, its script is over. The machinery's fault."""


class ContextFull(Exception):
    """There is no room left in the model's context for another turn."""


class Policy(Protocol):
    """Anything that plays: given the episode so far and the tools, the next completion.

    Raises:
        PolicyError: no answer could be had, this time.
        ContextFull: the conversation no longer fits.
        EngineError: no answer can be had any more: the run has to stop.
    """

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion: ...


class ScriptPolicy:
    """Plays messages that are known beforehand, or that a function makes of the episode so far.

    For environments and rewards: it needs no model.
    """

    def __init__(self, script: Iterable[Message] | Callable[[Episode], Message]) -> None:
        self._next = script if callable(script) else _reader(script)

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        return Completion(message=self._next(episode))


def _reader(script: Iterable[Message]) -> Callable[[Episode], Message]:
    messages = tuple(script)

    def read(episode: Episode) -> Message:
        if len(episode.turns) >= len(messages):
            raise PolicyError(f"the script has {len(messages)} turns, and the episode goes on")
        return messages[len(episode.turns)]

    return read


class ChatPolicy:
    """Plays through any OpenAI-compatible chat endpoint, with that server's own tool calling.

    Keyword arguments (`temperature`, `max_tokens`, `seed` ...) go into every request as they are.
    Completions carry no tokens, so such episodes can be scored, not trained on.
    """

    def __init__(self, client: AsyncOpenAI, model: str, **request: Any) -> None:
        self._client, self._model, self._request = client, model, request

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        request = dict(self._request)
        if tools:
            request["tools"] = [spec.schema for spec in tools.values()]
        messages: list[Any] = [as_openai(message) for message in episode.messages]
        try:
            answer = await self._client.chat.completions.create(model=self._model, messages=messages, **request)
        except openai.BadRequestError as error:
            if error.code == "context_length_exceeded" or "context length" in error.message:
                raise ContextFull(error.message) from error
            raise PolicyError(f"{self._client.base_url}: {error}") from error
        except openai.OpenAIError as error:
            raise PolicyError(f"{self._client.base_url}: {error}") from error
        # The client hands over whatever came with status 200, be it a proxy's web page.
        if not isinstance(answer, ChatCompletion) or not answer.choices:
            raise PolicyError(f"{self._client.base_url}: what it answers is no chat completion")
        choice = answer.choices[0]
        calls = tuple(
            ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in choice.message.tool_calls or ()
            if call.type == "function"
        )
        message = Message(role="assistant", content=choice.message.content or "", tool_calls=calls)
        usage = answer.usage
        return Completion(
            message=message,
            finish="length" if choice.finish_reason == "length" else "stop",
            cost=Cost(
                prompt_tokens=usage.prompt_tokens if usage else 0,
                sampled_tokens=usage.completion_tokens if usage else 0,
            ),
        )


def as_openai(message: Message) -> dict[str, Any]:
    """A message in the JSON shape of the chat completions API."""
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body


class EnginePolicy:
    """Plays with a local engine, token ids in and token ids out.

    With a `seed`, every turn has a seed of its own, made of it, the episode's id and the turn: the
    same episode is sampled in the same way whatever else is being sampled. With a `belief`, every turn
    notes how likely the gold answer was at its beginning.
    """

    def __init__(
        self, engine: Engine, chat: Chat, sampling: Sampling, *, seed: int | None = None, belief: Belief | None = None
    ) -> None:
        self._engine, self._chat, self._sampling, self._seed = engine, chat, sampling, seed
        self._belief = belief

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        prompt_ids = self._prompt(episode, tools)
        room = self._engine.max_model_len - len(prompt_ids)
        if room <= 0:
            raise ContextFull(f"{len(prompt_ids)} tokens, and the context is {self._engine.max_model_len}")
        limit = min(self._sampling.max_tokens, room)
        seed = None if self._seed is None else turn_seed(self._seed, episode.id, len(episode.turns))
        try:
            sampled = await self._engine.generate(
                prompt_ids,
                dataclasses.replace(self._sampling, max_tokens=limit),
                stop_ids=self._chat.stop_ids,
                seed=seed,
            )
            belief = None if self._belief is None else await self._belief(episode.task, prompt_ids)
        except EngineError as error:
            if not await self._engine.healthy():
                raise  # no episode can go on: better to stop than to record all of them as broken
            raise PolicyError(str(error)) from error
        cut_by_context = sampled.finish == "length" and limit < self._sampling.max_tokens
        return Completion(
            message=self._chat.parse(sampled.token_ids, list(tools.values()), turn=len(episode.turns)),
            prompt_ids=tuple(prompt_ids),
            token_ids=sampled.token_ids,
            logprobs=sampled.logprobs,
            finish="context" if cut_by_context else sampled.finish,
            version=sampled.version,
            belief=belief,
            cost=Cost(prompt_tokens=len(prompt_ids), sampled_tokens=len(sampled.token_ids)),
        )

    def _prompt(self, episode: Episode, tools: Mapping[str, ToolSpec]) -> list[int]:
        if not episode.turns:
            return self._chat.prompt(episode.task.prompt, list(tools.values()))
        last = episode.turns[-1]
        said = last.completion
        return self._chat.extend([*said.prompt_ids, *said.token_ids], said, last.results)


def turn_seed(seed: int, episode_id: str, turn: int) -> int:
    """A 32-bit seed for one turn of one episode, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{episode_id}/{turn}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
