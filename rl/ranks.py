"""One process among several that a launcher (torchrun, accelerate) started: each has an engine of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

LAUNCHED = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "ROLE_NAME",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_ERROR_FILE",
    "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_USE_AGENT_STORE",
)
"""What a launcher tells its processes. An engine that hears of it takes itself for one of the trainer's ranks, and
waits at the launcher's store for a meeting that never takes place."""


def world() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device() -> dict[str, str]:
    """The environment that shows an engine its own rank's accelerator and no other; empty for a single process.

    Set anew for whatever was visible to all ranks: rank 1 of `CUDA_VISIBLE_DEVICES=4,6` has device 6.
    """
    if world() == 1:
        return {}
    mine = int(os.environ.get("LOCAL_RANK", "0"))
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return {"CUDA_VISIBLE_DEVICES": str(mine)}
    ids = [name for name in shown.split(",") if name.strip()]
    return {"CUDA_VISIBLE_DEVICES": ids[mine]} if mine < len(ids) else {}


def alone(work: Callable[..., T], *arguments: Any) -> T:
    """What `work(*arguments)` returns, done in a process that knows of no other ranks.

    For one rank to train something by itself: a trainer that knows of the others waits for them.
    """
    told = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    finally:
        os.environ.update(told)
