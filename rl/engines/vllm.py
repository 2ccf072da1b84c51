"""vLLM as the engine: `AsyncLLM`, token ids in, token ids and logprobs out.

Two ways to hand over an adapter. `adapter` registers it under a new name and number per version, because vLLM
keys its prefix cache by the name: a reused name would answer from the old version's cache. `merged` has the
workers rebuild the touched weights from the base checkpoint (`vllm_worker.py`), and then empties that cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ValidationError

from envs.errors import InputError, reasons
from envs.types import Finish
from rl.engines import EngineError, Piece, Sampled, Sampling
from rl.engines.adapter import read_config, refuse_unsupported, uniform
from rl.engines.vllm_arguments import defaults, owned, refuse_sharing, resolve, room
from rl.engines.vllm_process import DETERMINISTIC, ENVIRONMENT, TRAINER, environment, importable_main, rendezvous
from rl.ranks import device

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

Handover = Literal["adapter", "merged"]

CLOSE_SECONDS = 15.0
"""How long vLLM's processes may take to leave by themselves; it would kill them after 5, and they leave
shared memory behind when killed."""


class VllmEngine:
    """One policy on vLLM. Make it with `open`; use it from the event loop that opened it, and no other."""

    def __init__(self, llm: AsyncLLM, *, handover: Handover, max_model_len: int, max_rank: int, cpu: bool) -> None:
        self.version = 0
        self.max_model_len = max_model_len
        self.handover: Handover = handover
        self._running: AsyncLLM | None = llm
        self._max_rank = max_rank
        self._cpu = cpu
        self._lora: Any = None
        self._sampling = 0
        self._shared: set[str] = set()
        self._deterministic = False
        self._served: dict[Path, Any] = {}
        self._copies = contextlib.ExitStack()

    @classmethod
    async def open(
        cls,
        *,
        model: str | Path,
        lora: Mapping[str, Any] | None = None,
        handover: Literal["auto", "adapter", "merged"] = "auto",
        dtype: str = "auto",
        max_model_len: int = 4096,
        deterministic: bool = False,
        seed: int = 0,
        adapters: int = 1,
        engine_args: Mapping[str, Any] = MappingProxyType({}),
    ) -> Self:
        """Start vLLM on `model` (a directory or a Hub name) and wait until it answers: seconds to minutes.

        Args:
            lora: `peft.LoraConfig` fields of the adapters that will come; None if none will.
            handover: `auto` is `adapter` on an accelerator and `merged` on CPU, where vLLM's LoRA kernels are slow.
            deterministic: a turn's ids and logprobs depend on its prompt, seed and version alone, to the bit, whatever
                else is sampled at the time. Proved on a few turns before the engine is handed out.
            adapters: how many adapters `stream` has answer side by side; more than these take turns.
            engine_args: fields of vLLM's `AsyncEngineArgs` by their own names.

        Raises:
            InputError: an unknown or conflicting engine argument, or an adapter that can't be served.
            EngineError: vLLM did not start, or `deterministic` can't be kept on this machine.
        """
        if lora is not None:
            refuse_unsupported(lora, "lora")
        refuse_sharing(engine_args)
        with rendezvous() as sockets:
            with environment(ENVIRONMENT, device()):
                from vllm.platforms import current_platform

                cpu = current_platform.is_cpu()
                how: Handover = ("merged" if cpu else "adapter") if handover == "auto" else handover
                if deterministic and cpu and how == "adapter":
                    raise InputError(
                        "engine.handover: adapter on CPU is not reproducible to the bit. Set it to merged."
                    )
                rank = room(lora) if lora is not None and how == "adapter" else 0
                ours = owned(cpu, rank, adapters) | {"dtype": dtype, "max_model_len": max_model_len, "seed": seed}
                arguments = resolve(ours | {"model": str(model)}, defaults(cpu, engine_args), engine_args)
                needed = sockets | (DETERMINISTIC[cpu] if deterministic else {})
                with environment(needed={**needed, TRAINER: str(os.getpid())}), importable_main():
                    llm = _start(arguments, engine_args)
            engine = cls(llm, handover=how, max_model_len=llm.model_config.max_model_len, max_rank=rank, cpu=cpu)
            # An import that failed on the way keeps this frame alive, and would keep vLLM until the interpreter ends.
            del llm
            try:
                engine._shared = {name for names in await engine._llm.collective_rpc("shared_memory") for name in names}
                if deterministic:
                    await engine._become_deterministic()
            except BaseException:
                await engine.close()
                raise
        # What is loaded by now stays: a collection that walks through all of it holds up every episode.
        gc.collect()
        gc.freeze()
        return engine

    async def _become_deterministic(self) -> None:
        """Make every later turn a function of its prompt, seed and version alone."""
        if self._cpu:
            await self._llm.collective_rpc("never_one_row")
        self._deterministic = True
        await self._prove_deterministic()

    async def _prove_deterministic(self) -> None:
        vocabulary = self._llm.model_config.get_vocab_size()
        lengths = [min(length, self.max_model_len // 3) for length in (150, 3, 40, 299, 17, 64, 90, 1)]
        prompts = [[(7 * place + length) % vocabulary for place in range(length)] for length in lengths]
        sampling = Sampling(max_tokens=max(1, min(24, self.max_model_len // 8)))

        async def turn(prompt: Sequence[int], seed: int) -> Sampled:
            return await self.generate(prompt, sampling, stop_ids=(), seed=seed)

        alone = await turn(prompts[0], 0)
        together = await asyncio.gather(*(turn(prompt, seed) for seed, prompt in enumerate(prompts)))
        after = [*prompts[0], *alone.token_ids, *prompts[2]]
        cached = await turn(after, 9)
        await self._llm.reset_prefix_cache()
        if alone != together[0] or cached != await turn(after, 9):
            raise EngineError(
                "deterministic: on this machine the same turn gives other logprobs in other company. "
                "Set engine.max_num_seqs to 1 and engine.enable_prefix_caching to false, or deterministic to false."
            )

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, stop_ids: Sequence[int], seed: int | None = None
    ) -> Sampled:
        """Sample one turn; see `rl.engines.Engine`. A turn ends on one of `stop_ids` and on nothing else."""
        params = _params(sampling, stop_ids, seed, logprobs=0, whole=True)
        if self._deterministic and seed is None:
            raise ValueError("a deterministic engine needs a seed for every turn")
        version = self.version
        self._sampling += 1
        try:
            async with _failures("sample"):
                stream = self._llm.generate(
                    {"prompt_token_ids": list(prompt_ids)}, params, uuid.uuid4().hex, lora_request=self._lora
                )
                outputs = [output async for output in stream]
        finally:
            self._sampling -= 1
        out = outputs[-1].outputs[0]
        if out.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a request with {out.finish_reason!r}")
        ids: tuple[int, ...] = tuple(out.token_ids)
        per_token: Any = out.logprobs
        logprobs = tuple(at[token].logprob for token, at in zip(ids, per_token, strict=True))
        finish: Finish = "stop" if out.finish_reason == "stop" else "length"
        return Sampled(token_ids=ids, logprobs=logprobs, finish=finish, version=version)

    async def logprobs(self, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> tuple[float, ...]:
        """Logprobs of given tokens; see `rl.engines.Engine`.

        vLLM works out those of the whole prompt, without its prefix cache: memory for as many rows of the vocabulary as
        it reads tokens at once (`max_num_batched_tokens`).
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            prompt_logprobs=0, max_tokens=1, temperature=0.0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        whole = [*prompt_ids, *token_ids]
        self._sampling += 1
        try:
            async with _failures("work out logprobs"):
                prompt: Any = {"prompt_token_ids": whole}
                stream = self._llm.generate(prompt, params, uuid.uuid4().hex, lora_request=self._lora)
                outputs = [output async for output in stream]
        finally:
            self._sampling -= 1
        places: Any = outputs[-1].prompt_logprobs
        behind = places[len(prompt_ids) :]
        return tuple(float(at[token].logprob) for token, at in zip(token_ids, behind, strict=True))

    async def stream(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        *,
        stop_ids: Sequence[int],
        seed: int | None = None,
        adapter: Path | None = None,
        top_logprobs: int = 0,
    ) -> AsyncIterator[Piece]:
        """Sample one turn of the base or of any adapter, as it comes; closing the iterator ends it.

        For serving, beside `load`, which is for training: an adapter is told by its directory, which must stay as it
        is for as long as the engine lives.

        Args:
            top_logprobs: how many alternatives come with every token.

        Raises:
            InputError: an adapter that can't be served, or an engine that was not opened for any.
            EngineError: the engine is dead or refused the request.
        """
        params = _params(sampling, stop_ids, seed, logprobs=top_logprobs, whole=False)
        async with _failures("sample"):
            lora = None if adapter is None else await self._serve(adapter)
            stream = self._llm.generate(
                {"prompt_token_ids": list(prompt_ids)}, params, uuid.uuid4().hex, lora_request=lora
            )
            async with contextlib.aclosing(stream) as outputs:
                async for output in outputs:
                    yield _piece(output.outputs[0])

    async def _serve(self, adapter: Path) -> Any:
        """vLLM's handle of an adapter that it has loaded."""
        from vllm.lora.request import LoRARequest

        if adapter not in self._served:
            if room(read_config(adapter)) > self._max_rank:
                raise InputError(f"{adapter}: its rank is more than the {self._max_rank} that the engine has room for")
            path = self._copies.enter_context(uniform(adapter))
            self._served[adapter] = LoRARequest(str(adapter), len(self._served) + 1, str(path))
        handle = self._served[adapter]
        # Loaded here, where a failure is this request's; on the way through the engine it would be everybody's.
        if not await self._llm.add_lora(handle):
            raise EngineError(f"vLLM refused adapter {adapter}")
        return handle

    async def load(self, adapter: Path, version: int) -> None:
        """Serve `adapter` as `version`; see `rl.engines.Engine`."""
        if version <= self.version:
            raise ValueError(f"version {version} must be greater than {self.version}, which is being served")
        if self._sampling:
            raise EngineError(f"{self._sampling} turns are being sampled: an adapter can't be loaded under them")
        config = read_config(adapter)
        async with _failures(f"load {adapter}"):
            if self.handover == "merged":
                await self._llm.collective_rpc("merge_adapter", args=(str(adapter),))
                if not await self._llm.reset_prefix_cache():
                    raise EngineError("vLLM did not empty its prefix cache: the next turns would mix two versions")
            else:
                await self._register(adapter, version, config)
        first, self.version = self.version == 0, version
        if first and self._deterministic and self.handover == "adapter":
            # Adapters are served by kernels that the proof at start has not seen.
            await self._prove_deterministic()

    async def _register(self, adapter: Path, version: int, config: Mapping[str, Any]) -> None:
        from vllm.lora.request import LoRARequest

        if room(config) > self._max_rank:
            raise InputError(f"{adapter}: rank {config['r']}, but `lora` made room for {self._max_rank}.")
        with uniform(adapter) as path:
            new = LoRARequest(f"v{version}", version, str(path))
            if not await self._llm.add_lora(new):
                raise EngineError(f"vLLM refused adapter {adapter}")
        old, self._lora = self._lora, new
        if old is not None:
            await self._llm.remove_lora(old.lora_int_id)

    @property
    def _llm(self) -> AsyncLLM:
        if self._running is None:
            raise EngineError("the engine is closed")
        return self._running

    async def healthy(self) -> bool:
        """True if vLLM's processes are alive."""
        return self._running is not None and not self._running.errored

    async def sleep(self) -> None:
        """Give the accelerator's memory back; nothing on CPU."""
        # Level 1: the weights wait in host memory. Level 2 drops them, and crashes with LoRA.
        if not self._cpu:
            async with _failures("sleep"):
                await self._llm.sleep(level=1)

    async def wake(self) -> None:
        """Undo `sleep`."""
        if not self._cpu:
            async with _failures("wake up"):
                await self._llm.wake_up()

    async def close(self) -> None:
        """Stop vLLM's processes. Idempotent."""
        llm, self._running = self._running, None
        self._copies.close()
        if llm is not None:
            if llm.output_handler is not None:
                # Else it hears the engine go and logs that as a failure.
                llm.output_handler.cancel()
                await asyncio.wait([llm.output_handler])
            await asyncio.to_thread(llm.shutdown, timeout=CLOSE_SECONDS)
            for name in self._shared:
                with contextlib.suppress(FileNotFoundError):  # gone, unless its owner was killed
                    left = SharedMemory(name)
                    left.close()
                    left.unlink()
            del llm
            gc.unfreeze()
            gc.collect()  # else it is deleted with the interpreter, and fails aloud at it


def _params(sampling: Sampling, stop_ids: Sequence[int], seed: int | None, *, logprobs: int, whole: bool) -> Any:
    """vLLM's own; `whole` has a turn come in one piece."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop_token_ids=list(stop_ids),
        ignore_eos=True,
        seed=seed,
        logprobs=logprobs,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY if whole else RequestOutputKind.DELTA,
    )


def _piece(out: Any) -> Piece:
    """What vLLM has sampled since the last piece."""
    if out.finish_reason not in ("stop", "length", None):
        raise EngineError(f"vLLM ended a request with {out.finish_reason!r}")
    ids = tuple(out.token_ids)
    finish: Finish | None = out.finish_reason
    places = tuple({token: float(one.logprob) for token, one in at.items()} for at in out.logprobs or ())
    return Piece(token_ids=ids, logprobs=places, finish=finish)


def _start(arguments: Mapping[str, Any], given: Mapping[str, Any]) -> AsyncLLM:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except ValidationError as error:
        raise InputError(f"engine: {reasons(error)}") from error
    except TypeError as error:
        named = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise InputError(f"engine: vLLM can't use a value among {named}: {error}") from error
    except (RuntimeError, ValueError, OSError) as error:
        raise EngineError(f"vLLM did not start: {error}") from error


@contextlib.asynccontextmanager
async def _failures(doing: str) -> AsyncIterator[None]:
    """vLLM's errors as EngineError. Whatever failed in its processes arrives as a plain Exception."""
    try:
        yield
    except (InputError, EngineError):
        raise
    except Exception as error:
        raise EngineError(f"vLLM failed to {doing}: {error}") from error
