"""vLLM's engine arguments: which are ours to set, which we choose when the user does not, which we refuse."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

from envs.errors import InputError, unknown
from rl.engines.vllm_process import ENVIRONMENT, environment
from rl.ranks import world

SHARING = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""Engine arguments that spread one engine over several devices."""

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks vLLM has room for; an adapter is served in the next larger one."""

CPU_CACHE_BYTES = 2 << 30
"""KV cache on CPU unless the user says otherwise; vLLM's own default would take most of the machine's memory."""


def owned(cpu: bool, rank: int, adapters: int = 1) -> dict[str, Any]:
    """Engine arguments that `VllmEngine` leans on.

    Args:
        rank: of adapters to be registered, 0 if none are.
        adapters: how many of them answer side by side.
    """
    ours: dict[str, Any] = {
        "logprobs_mode": "processed_logprobs",
        "skip_tokenizer_init": True,
        "worker_extension_cls": "rl.engines.vllm_worker.Handover",
        "enable_lora": rank > 0,
    }
    if cpu:
        # vLLM 0.30 rewinds a seeded request's random numbers after each part of a prompt, which the CPU
        # generator can't do: the engine would die. Whole prompts need no rewinding.
        ours["enable_chunked_prefill"] = False
    if rank:
        # One more on the host: a new version is registered before the old one goes.
        ours |= {"max_lora_rank": rank, "max_loras": adapters, "max_cpu_loras": adapters + 1}
    return ours


def room(lora: Mapping[str, Any]) -> int:
    """The smallest of `RANKS` with room for every module's rank.

    Raises:
        InputError: none has.
    """
    rank = max([lora.get("r") or 8, *(lora.get("rank_pattern") or {}).values()])
    if rank > RANKS[-1]:
        raise InputError(f"lora.r: {rank} is more than vLLM's {RANKS[-1]}. Lower it or set handover: merged.")
    return next(room for room in RANKS if room >= rank)


def defaults(cpu: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    """What we choose when the user does not."""
    chosen: dict[str, Any] = {"disable_log_stats": True, "enable_prefix_caching": True, "use_tqdm_on_load": False}
    if not cpu:
        return chosen | {"enable_sleep_mode": True}
    chosen["enforce_eager"] = True
    if not any(given.get(name, 1) != 1 for name in SHARING):
        # vLLM's own choice is a worker process beside the engine's, which spins on a core while it waits for it.
        # By its class: the name would be turned into that choice again.
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        chosen["distributed_executor_backend"] = UniProcExecutor
    said = "VLLM_CPU_KVCACHE_SPACE" in os.environ or "gpu_memory_utilization" in given
    return chosen if said else chosen | {"kv_cache_memory_bytes": CPU_CACHE_BYTES}


def check(given: Iterable[str], *, also: Iterable[str] = ()) -> None:
    """Refuse names that are no engine arguments of vLLM; `also` holds what else might have been meant.

    Raises:
        InputError: with the nearest name there is.
    """
    with environment(ENVIRONMENT):
        from vllm.engine.arg_utils import AsyncEngineArgs

    names = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for name in given:
        if name not in names:
            raise InputError(f"engine: {unknown('engine argument', name, {*names, *also})}")


def resolve(owned: Mapping[str, Any], defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """One set of engine arguments, or an InputError that names the one that can't be."""
    check(given)
    for name, value in given.items():
        if name in owned and owned[name] != value:
            raise InputError(f"engine.{name}: set to {value!r}, but it is ours to set, to {owned[name]!r}. Remove it.")
    return {**defaults, **given, **owned}


def refuse_sharing(given: Mapping[str, Any]) -> None:
    """Refuse to spread an engine over devices that other ranks have engines on.

    Raises:
        InputError: the argument that does.
    """
    for name in SHARING:
        if world() > 1 and given.get(name, 1) != 1:
            raise InputError(
                f"engine.{name}: with several training processes each has an engine on its own device. Remove it, or "
                "train with one process."
            )
