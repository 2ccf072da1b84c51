"""A model as judge, over any OpenAI-compatible endpoint: mapped names, retries, rate limit, cache, cost."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.errors import InputError, reasons
from rewards.graders.pace import Pace
from rewards.graders.spec import content_hash

USAGE = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")


class JudgeError(RuntimeError):
    """The judge could not be had: its server is down, refuses the key, or answers with no completion."""


class Price(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class JudgeConfig(BaseModel):
    """Where judges are, and what graders' model names mean there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str
    """As in `http://127.0.0.1:8000/v1`."""
    models: dict[str, str] = {}
    """Name in a grader -> name at the endpoint, as in {"o3-mini-2025-01-31": "Qwen/Qwen3-32B"}; others stay."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the key; a local server may need none."""
    retries: int = Field(4, ge=0)
    """Of a request that met no server, a busy one or a broken one."""
    timeout: float = Field(120.0, gt=0)
    """Seconds of one try."""
    concurrency: int = Field(16, ge=1)
    requests_per_second: float | None = Field(None, gt=0)
    cache: Path | None = None
    """A folder of answers by the content of their questions; asked twice is then paid once."""
    prices: dict[str, Price] = {}
    """By the name at the endpoint."""

    @classmethod
    def read(cls, value: Mapping[str, Any], where: str = "judge") -> JudgeConfig:
        """A config of plain data.

        Raises:
            InputError: an unknown key or a value that does not fit.
        """
        try:
            return cls.model_validate(dict(value))
        except ValidationError as error:
            raise InputError(f"{where}: {reasons(error)}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a judge said, and what it took."""

    text: str
    model: str
    """Its name at the endpoint."""
    refusal: str | None = None
    cut_off: bool = False
    """It ran into its token limit."""
    usage: Mapping[str, int] = field(default_factory=dict)
    cached: bool = False
    """Read from the cache: nothing was used."""


class Judge:
    """Asks models. Belongs to the event loop it is first used on, as its client does."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config
        self.usage: dict[str, Counter[str]] = {}
        """Model at the endpoint -> tokens used so far; what the cache answered is not among them."""
        key = os.environ.get(config.api_key_env) or "none"
        self._client = AsyncOpenAI(
            base_url=config.base_url, api_key=key, max_retries=config.retries, timeout=config.timeout
        )
        self._slots = asyncio.Semaphore(config.concurrency)
        self._asking: dict[str, asyncio.Lock] = {}
        self._pace = Pace(config.requests_per_second)

    def without_cache(self) -> Judge:
        """The same judge, asked every time: for seeing whether it says the same twice."""
        return Judge(self.config.model_copy(update={"cache": None}))

    @property
    def money(self) -> float:
        """US dollars used so far, where the config has prices."""
        return sum(self.price(model, used) for model, used in self.usage.items())

    def price(self, model: str, usage: Mapping[str, int]) -> float:
        """What so many tokens of a model at the endpoint cost, in US dollars; 0 without a price."""
        price = self.config.prices.get(model)
        if price is None:
            return 0.0
        return (price.input * usage.get("prompt_tokens", 0) + price.output * usage.get("completion_tokens", 0)) / 1e6

    async def ask(self, model: str, messages: list[dict[str, Any]], schema: Mapping[str, Any], **params: Any) -> Answer:
        """One answer in the shape of a JSON schema.

        Args:
            model: as the grader calls it.
            messages: in chat-completions shape.
            schema: `response_format`'s json_schema: name, strict and schema.
            params: further parameters of the request.

        Raises:
            JudgeError: none could be had, after all retries.
        """
        local = self.config.models.get(model, model)
        response_format = {"type": "json_schema", "json_schema": dict(schema)}
        request = {"model": local, "messages": messages, "response_format": response_format} | params
        if self.config.cache is None:
            return await self._paid(request)
        key = content_hash(self.config.base_url, request)
        # Samples of one prompt are often the same: who asks second waits for the answer to the first.
        async with self._asking.setdefault(key, asyncio.Lock()):
            answer = self._read(self.config.cache, key)
            if answer is None:
                answer = await self._paid(request)
                self._write(self.config.cache, key, answer)
        self._asking.pop(key, None)
        return answer

    async def _paid(self, request: dict[str, Any]) -> Answer:
        """An answer from the endpoint, within its limits, its tokens counted."""
        async with self._slots:
            await self._pace.wait()
            answer = await self._request(request)
        self.usage.setdefault(request["model"], Counter()).update(answer.usage)
        return answer

    async def _request(self, request: dict[str, Any]) -> Answer:
        try:
            said = await self._client.chat.completions.create(**request)
        except openai.BadRequestError as error:
            if (answer := _about_the_sample(error, request["model"])) is not None:
                return answer
            raise JudgeError(f"{self.config.base_url}, model {request['model']}: {error}") from error
        except (openai.OpenAIError, ValueError) as error:  # a proxy's web page in place of JSON is a ValueError
            raise JudgeError(f"{self.config.base_url}, model {request['model']}: {error}") from error
        if not isinstance(said, ChatCompletion) or not said.choices or said.choices[0].message is None:
            raise JudgeError(f"{self.config.base_url}: what it answers is no chat completion")
        choice = said.choices[0]
        return Answer(
            text=choice.message.content or "",
            model=request["model"],
            refusal=choice.message.refusal or ("content filter" if choice.finish_reason == "content_filter" else None),
            cut_off=choice.finish_reason == "length",
            usage=_usage(said),
        )

    def _read(self, cache: Path, key: str) -> Answer | None:
        try:
            tree = json.loads((cache / f"{key}.json").read_text(encoding="utf-8"))
            return Answer(text=tree["text"], model=tree["model"], refusal=tree["refusal"], cached=True)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or not whole: it is asked again and written again

    def _write(self, cache: Path, key: str, answer: Answer) -> None:
        """Whole or not at all; an answer that was cut off is not kept."""
        if answer.cut_off:
            return
        cache.mkdir(parents=True, exist_ok=True)
        tree = {"text": answer.text, "model": answer.model, "refusal": answer.refusal}
        with tempfile.NamedTemporaryFile("w", dir=cache, delete=False, encoding="utf-8") as file:
            json.dump(tree, file)
        os.replace(file.name, cache / f"{key}.json")


def _about_the_sample(error: openai.BadRequestError, model: str) -> Answer | None:
    """What a server says that refuses what it was given to judge: the sample's doing, and no fault of the server's."""
    if error.code == "context_length_exceeded" or "context length" in error.message:
        return Answer(text="", model=model, cut_off=True)
    if error.code in ("content_filter", "content_policy_violation"):
        return Answer(text="", model=model, refusal=error.message)
    return None


def _usage(said: ChatCompletion) -> dict[str, int]:
    if said.usage is None:
        return {}
    details = said.usage.prompt_tokens_details
    cached = details.cached_tokens if details else None
    numbers = (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens, cached)
    return {name: number or 0 for name, number in zip(USAGE, numbers, strict=True)}
