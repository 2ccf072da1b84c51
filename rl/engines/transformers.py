"""Transformers' continuous batching as the engine, for platforms without vLLM: slower, in this process, one device.

Sampling draws from one generator for all turns, so a turn's own seed can't be honoured, and `deterministic` is
refused. Blocks of the KV cache are not shared between turns: a shared block would outlive the adapter it came from.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from envs.errors import InputError, unknown
from envs.types import Finish
from rl.engines import EngineError, Sampled, Sampling
from rl.engines.adapter import read_config, refuse_unsupported

if TYPE_CHECKING:
    from transformers import ContinuousBatchingManager

MEMORY = 0.3
"""Share of the free memory that the KV cache takes unless the user says otherwise: the trainer needs the rest, and
transformers' own default leaves it a tenth."""

NEVER = -1
"""No token has this id: a turn without stop ids ends by length alone."""


class TransformersEngine:
    """One policy on transformers. Make it with `open`; use it from the event loop that opened it, and no other."""

    def __init__(self, model: Any, manager: ContinuousBatchingManager, *, max_model_len: int) -> None:
        self.version = 0
        self.max_model_len = max_model_len
        self._model = model
        self._manager = manager
        self._sampling: dict[str, asyncio.Future[Any]] = {}
        self._closed = False

    @classmethod
    async def open(
        cls,
        *,
        model: str | Path,
        lora: Mapping[str, Any] | None = None,
        dtype: str = "auto",
        max_model_len: int = 4096,
        deterministic: bool = False,
        seed: int = 0,
        engine_args: Mapping[str, Any] | None = None,
    ) -> Self:
        """Load `model` (a directory or a Hub name) onto the accelerator, or the CPU if there is none.

        Args:
            lora: `peft.LoraConfig` fields of the adapters that will come; None if none will.
            engine_args: fields of transformers' `ContinuousBatchingConfig` by their own names.

        Raises:
            InputError: a setting this engine would have to ignore, or an adapter that can't be served.
        """
        import torch
        from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

        if deterministic:
            raise InputError("deterministic: the transformers engine can't keep it. Set engine.kind to vllm.")
        refuse_unsupported(lora or {}, "lora")
        owned: dict[str, Any] = {
            "return_logprobs": True,
            "per_request_processors": True,
            "allow_block_sharing": False,
            "seed": seed,
        }
        given = {"max_memory_percent": MEMORY} | dict(engine_args or {})
        if clash := owned.keys() & given:
            raise InputError(f"engine.{min(clash)}: it is ours to set, to {owned[min(clash)]!r}. Remove it.")
        try:
            batching = ContinuousBatchingConfig(**given, **owned)
        except TypeError as error:
            raise InputError(f"engine: {error}") from None
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
        loaded.to(device).eval()
        # A turn can have its own value only of what is not left at its neutral value here.
        configure: Any = GenerationConfig
        shape = configure(do_sample=True, temperature=0.5, top_k=1, top_p=0.5, eos_token_id=NEVER)
        manager = loaded.init_continuous_batching(generation_config=shape, continuous_batching_config=batching)
        manager.start()
        return cls(loaded, manager, max_model_len=min(max_model_len, loaded.config.max_position_embeddings))

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, stop_ids: Sequence[int], seed: int | None = None
    ) -> Sampled:
        """Sample one turn; see `rl.engines.Engine`. `seed` is not honoured."""
        room = self.max_model_len - len(prompt_ids)
        if room < 1:
            raise EngineError(f"a prompt of {len(prompt_ids)} tokens does not fit into {self.max_model_len}")
        greedy = sampling.temperature == 0
        name, version = uuid.uuid4().hex, self.version
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._manager.register_result_handler(name, done.set_result)
        self._sampling[name] = done
        try:
            accepted = self._manager.add_request(
                list(prompt_ids),
                request_id=name,
                max_new_tokens=min(sampling.max_tokens, room),
                eos_token_id=list(stop_ids) or NEVER,
                temperature=1.0 if greedy else float(sampling.temperature),
                top_k=1 if greedy else sampling.top_k or self._model.config.vocab_size,
                top_p=float(sampling.top_p),
            )
            if accepted is None:
                raise EngineError("transformers' generation loop has stopped")
            out = await done
        finally:
            del self._sampling[name]
            if not done.done() or done.cancelled():
                self._manager.cancel_request(name)
        if out.error is not None:
            raise EngineError(f"transformers failed to sample: {out.error}")
        finish: Finish = "stop" if out.generated_tokens[-1] in stop_ids else "length"
        return Sampled(
            token_ids=tuple(out.generated_tokens), logprobs=tuple(out.logprobs), finish=finish, version=version
        )

    async def logprobs(self, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> tuple[float, ...]:
        """Logprobs of given tokens; see `rl.engines.Engine`. Sampling pauses meanwhile."""
        if len(prompt_ids) + len(token_ids) >= self.max_model_len:
            raise EngineError(f"{len(prompt_ids) + len(token_ids)} tokens do not fit into {self.max_model_len}")
        name = uuid.uuid4().hex
        self._sampling[name] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.to_thread(self._forward, list(prompt_ids), list(token_ids))
        finally:
            del self._sampling[name]

    def _forward(self, prompt_ids: list[int], token_ids: list[int]) -> tuple[float, ...]:
        import torch

        with self._manager.pause(), torch.inference_mode():
            ids = torch.tensor([[*prompt_ids, *token_ids]], device=self._model.device)
            logits = self._model(ids, logits_to_keep=len(token_ids) + 1, use_cache=False).logits[0, :-1].float()
            chosen = logits.log_softmax(-1).gather(-1, ids[0, len(prompt_ids) :, None])[:, 0]
            return tuple(chosen.tolist())

    async def load(self, adapter: Path, version: int) -> None:
        """Serve `adapter` as `version`; see `rl.engines.Engine`."""
        if version <= self.version:
            raise ValueError(f"version {version} must be greater than {self.version}, which is being served")
        if self._sampling:
            raise EngineError(f"{len(self._sampling)} turns are being sampled: an adapter can't be loaded under them")
        read_config(adapter)
        with self._manager.pause():
            self._model.load_adapter(str(adapter), adapter_name=f"v{version}")
            self._model.set_adapter(f"v{version}")
            if self.version:
                self._model.delete_adapter(f"v{self.version}")
        self.version = version

    async def healthy(self) -> bool:
        """True if the generation loop runs."""
        return not self._closed and self._manager.is_running()

    async def sleep(self) -> None:
        """Nothing: the model lies in this process, next to the trainer's."""

    async def wake(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Stop the generation loop. Idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._manager.stop, block=True)


def check_arguments(given: Iterable[str], *, also: Iterable[str] = ()) -> None:
    """Refuse names that transformers' `ContinuousBatchingConfig` does not have; `also` might have been meant.

    Raises:
        InputError: with the nearest name there is.
    """
    from transformers import ContinuousBatchingConfig

    names = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)} | {"max_model_len"}
    for name in given:
        if name not in names:
            raise InputError(f"engine: {unknown('engine argument', name, {*names, *also})}")
