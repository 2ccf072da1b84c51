"""The processes vLLM starts: their environment, and what they may not take from ours."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from rl.ranks import LAUNCHED

TRAINER = "LOCALRFT_TRAINER"
"""Environment variable of workers: the process they end with, however it ends, and vLLM's engine process with them.
It would otherwise wait for requests for ever: nothing tells it that its client was killed."""

MEET = "VLLM_RPC_BASE_PATH"
"""Environment variable of vLLM: the directory of its sockets."""

ENVIRONMENT = {
    # Its warnings are about its own defaults; the reason of a failure is logged as an error.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    # On CPU the trainer shares the cores: spinning or pinned engine threads slow it down three-fold.
    "OMP_WAIT_POLICY": "passive",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
DETERMINISTIC = {
    # By whether it is a CPU. Attention there must not share a sequence out among threads by load; all else works
    # row by row. Accelerators have vLLM's own mode.
    True: {"VLLM_CPU_ATTN_SPLIT_KV": "0"},
    False: {"VLLM_BATCH_INVARIANT": "1"},
}


@contextlib.contextmanager
def environment(
    defaults: Mapping[str, str] = MappingProxyType({}), needed: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    """Environment for the processes started inside; what vLLM adds to it (LD_PRELOAD) goes again.

    The user's values win over `defaults`, and `needed` wins over the user's. What a launcher said to the
    trainer's ranks is not passed on.
    """
    before = dict(os.environ)
    os.environ.update({**defaults, **before, **needed})
    for name in LAUNCHED:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def rendezvous() -> Iterator[dict[str, str]]:
    """A directory where vLLM's processes meet, as their environment; to be left when they have answered.

    It would leave its sockets in the temporary directory. Once both ends are connected nobody looks for them by name,
    so that not even a killed trainer leaves any. A socket's path has 107 characters at most: a cluster's TMPDIR may be
    too long for that, /tmp is not.
    """
    with tempfile.TemporaryDirectory(prefix="localrft-", dir=os.environ.get(MEET, "/tmp")) as place:
        yield {MEET: place}


@contextlib.contextmanager
def importable_main() -> Iterator[None]:
    """Keep spawned processes from running the main script again: they need nothing from it; it may have no guard."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    main.__spec__ = None
    if "__file__" in kept:
        del main.__file__
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
