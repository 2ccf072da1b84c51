"""A running `vllm serve` as the engine: rollouts on its GPUs, the trainer on others.

The server must share a file system with the trainer, for adapters travel by path, and be started so:

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora --max-lora-rank R --max-cpu-loras 2
        --logprobs-mode processed_logprobs
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from envs.errors import InputError
from envs.types import Finish
from rl.engines import EngineError, Sampled, Sampling
from rl.engines.adapter import refuse_unsupported, uniform

PATIENCE = httpx.Timeout(10.0, read=3600.0)
"""Seconds. A turn may wait long for its place in the server's batch."""


class ServerEngine:
    """One policy on a vLLM server. Make it with `open`; use it from the event loop that opened it, and no other."""

    def __init__(self, client: httpx.AsyncClient, *, model: str, max_model_len: int) -> None:
        self.version = 0
        self.max_model_len = max_model_len
        self._client = client
        self._model = self._base = model
        # Other trainers, or this one's earlier runs, may have left adapters of the same version behind.
        self._run = uuid.uuid4().hex[:8]
        self._sampling = 0

    @classmethod
    async def open(cls, *, url: str, lora: Mapping[str, Any] | None = None, api_key: str | None = None) -> Self:
        """Connect to the server at `url` ("http://host:8000") and check that it answers as a trainer needs it to.

        Args:
            lora: `peft.LoraConfig` fields of the adapters that will come; None if none will.

        Raises:
            InputError: an adapter that can't be served, or a server started without what this engine needs.
            EngineError: no server answers.
        """
        refuse_unsupported(lora or {}, "lora")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        client = httpx.AsyncClient(base_url=url.rstrip("/"), headers=headers, timeout=PATIENCE, limits=unlimited)
        try:
            card = (await _ask(client, "GET", "/v1/models"))["data"][0]
            engine = cls(client, model=card["id"], max_model_len=card["max_model_len"])
            # The only token left has probability 1 once the distribution is processed, and less before.
            certain = await engine.generate([1], Sampling(top_k=1, max_tokens=1), stop_ids=())
        except BaseException:
            await client.aclose()
            raise
        if certain.logprobs[0] < -1e-4:
            await client.aclose()
            raise InputError(f"engine.url: start the server at {url} with --logprobs-mode processed_logprobs.")
        return engine

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, stop_ids: Sequence[int], seed: int | None = None
    ) -> Sampled:
        """Sample one turn; see `rl.engines.Engine`."""
        request = {
            "model": self._model,
            "prompt": list(prompt_ids),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            # Named so that no default of the model's own generation config takes their place.
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "max_tokens": min(sampling.max_tokens, self.max_model_len - len(prompt_ids)),
            "stop_token_ids": list(stop_ids),
            "ignore_eos": True,
            "seed": seed,
            "logprobs": 0,
            "return_token_ids": True,
            # Or the server decodes every token, for which it may have no tokenizer.
            "return_tokens_as_token_ids": True,
        }
        version = self.version
        self._sampling += 1
        try:
            choice = (await _ask(self._client, "POST", "/v1/completions", request))["choices"][0]
        finally:
            self._sampling -= 1
        if choice["finish_reason"] not in ("stop", "length"):
            raise EngineError(f"the server ended a request with {choice['finish_reason']!r}")
        finish: Finish = "stop" if choice["finish_reason"] == "stop" else "length"
        logprobs = tuple(choice["logprobs"]["token_logprobs"])
        if not all(map(math.isfinite, logprobs)):
            raise EngineError("the server gave a logprob that is no number")
        return Sampled(token_ids=tuple(choice["token_ids"]), logprobs=logprobs, finish=finish, version=version)

    async def logprobs(self, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> tuple[float, ...]:
        """Logprobs of given tokens; see `rl.engines.Engine`."""
        request = {
            "model": self._model,
            "prompt": [*prompt_ids, *token_ids],
            "prompt_logprobs": 0,
            "max_tokens": 1,
            "temperature": 0.0,
            "return_tokens_as_token_ids": True,
        }
        self._sampling += 1
        try:
            choice = (await _ask(self._client, "POST", "/v1/completions", request))["choices"][0]
        finally:
            self._sampling -= 1
        behind = choice["prompt_logprobs"][len(prompt_ids) :]
        return tuple(float(at[str(token)]["logprob"]) for token, at in zip(token_ids, behind, strict=True))

    async def load(self, adapter: Path, version: int) -> None:
        """Serve `adapter` as `version`; see `rl.engines.Engine`."""
        if version <= self.version:
            raise ValueError(f"version {version} must be greater than {self.version}, which is being served")
        if self._sampling:
            raise EngineError(f"{self._sampling} turns are being sampled: an adapter can't be loaded under them")
        name = f"{self._run}-v{version}"
        with uniform(adapter) as path:
            new = {"lora_name": name, "lora_path": str(path.resolve())}
            await _ask(self._client, "POST", "/v1/load_lora_adapter", new)
        old, self._model, self.version = self._model, name, version
        if old != self._base:
            await _ask(self._client, "POST", "/v1/unload_lora_adapter", {"lora_name": old})

    async def healthy(self) -> bool:
        """True if the server answers."""
        try:
            return (await self._client.get("/health", timeout=10.0)).is_success
        except (httpx.HTTPError, RuntimeError):  # httpx raises the latter once closed
            return False

    async def sleep(self) -> None:
        """Nothing: the server's memory is its own."""

    async def wake(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Unload the adapter and let go of the server, which runs on. Idempotent."""
        if not self._client.is_closed:
            if self._model != self._base and await self.healthy():
                await _ask(self._client, "POST", "/v1/unload_lora_adapter", {"lora_name": self._model})
            await self._client.aclose()


async def _ask(client: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON that the server answers with; None where it answers with plain text."""
    try:
        response = await client.request(method, path, json=body)
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        hint = ""
        if error.response.status_code == 404 and path.endswith("_lora_adapter"):
            hint = " Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora."
        raise EngineError(f"{client.base_url}{path}: {error.response.text[:500]}{hint}") from error
    except (httpx.HTTPError, RuntimeError) as error:
        raise EngineError(f"{client.base_url}{path}: {error or type(error).__name__}") from error
    return (
        json.loads(response.content)
        if response.headers.get("content-type", "").startswith("application/json")
        else None
    )
