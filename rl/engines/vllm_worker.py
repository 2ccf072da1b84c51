"""What runs inside vLLM's workers: building merged weights next to the base they were merged from.

The trainer writes an adapter directory and names it; each worker reads the pristine weights of just the touched
layers from the model's own files (memory-mapped), adds the adapter in float32 and lets vLLM reload those layers.
Nobody holds a second copy of the base, and nothing is ever un-merged, so no version leaves a trace in the next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from rl.engines.adapter import Delta, read_deltas
from rl.engines.vllm_process import TRAINER

if TYPE_CHECKING:
    from torch import Tensor


LEAVE_SECONDS = 20.0
"""How long a worker whose trainer has ended may take to leave in order."""

RELOADERS = ("vllm.model_executor.model_loader.reload.layerwise", "vllm.v1.worker.gpu_model_runner")


class Base:
    """The tensors of a checkpoint, read one at a time from its safetensors files."""

    def __init__(self, model: Path) -> None:
        files = sorted(model.glob("*.safetensors"))
        if not files:
            raise ValueError(f"{model}: no .safetensors files; merged hand-over reads the base weights from them.")
        opened: list[Any] = [safe_open(file, framework="pt") for file in files]
        self._at = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 (not a dict)

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def shape(self, name: str) -> list[int] | None:
        """None if there is no such tensor, or none of floating-point numbers (a quantised base)."""
        if name not in self:
            return None
        part = self._at[name].get_slice(name)
        return list(part.get_shape()) if part.get_dtype() in ("F32", "F16", "BF16") else None

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._at[name].get_tensor(name)
        return tensor


def touched(base: Base, deltas: Mapping[str, Delta], fused: Mapping[str, Sequence[str]]) -> list[str]:
    """Every module whose weights vLLM must get anew.

    vLLM fuses some layers (`fused`: q, k, v into qkv) and reloads a fused layer only as a whole, so the untouched
    members of a touched layer are among them.

    Raises:
        ValueError: the adapter does not fit the base, or the base can't be merged into.
    """
    siblings = {member: group for group in fused.values() for member in group}
    modules: dict[str, None] = {}
    for name, delta in deltas.items():
        shape = base.shape(f"{name}.weight")
        if shape != [delta.b.shape[0], delta.a.shape[1]]:
            raise ValueError(
                f"the adapter changes {name!r}, which has shape {shape} in the base model: another model's?"
            )
        stem, dot, last = name.rpartition(".")
        group = [f"{stem}{dot}{member}" for member in siblings.get(last, (last,))]
        modules.update(dict.fromkeys(module for module in group if f"{module}.weight" in base))
    return list(modules)


def merged(
    base: Base, deltas: Mapping[str, Delta], modules: Sequence[str], device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every parameter of `modules`, biases included, under the checkpoint's names.

    Weights are added up in float32; vLLM rounds them to what it serves.
    """
    for module in modules:
        weight = base[f"{module}.weight"].to(device)
        if delta := deltas.get(module):
            a, b = (matrix.to(device, torch.float32) for matrix in (delta.a, delta.b))
            weight = torch.addmm(weight.float(), b, a, alpha=delta.scale)
        yield f"{module}.weight", weight
        if f"{module}.bias" in base:
            yield f"{module}.bias", base[f"{module}.bias"].to(device)


@contextlib.contextmanager
def _quiet(names: Sequence[str]) -> Iterator[None]:
    """Without the warnings of these loggers: vLLM warns of every layer that a reload leaves as it is."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@dataclass(frozen=True, slots=True)
class TwoRows:
    """A CPU linear kernel that never sees a single row."""

    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.shape[0] > 1:
            return self.linear(x, weight, bias)
        return self.linear(x.expand(2, -1).contiguous(), weight, bias)[:1]


def _follow(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        select.select([os.pidfd_open(process)], [], [])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LEAVE_SECONDS)
    os._exit(1)


class Handover:
    """Mixed into vLLM's worker class through `worker_extension_cls`; called by `collective_rpc`."""

    if TYPE_CHECKING:  # what the worker brings
        device: torch.device
        model_runner: Any
        model_config: Any
        load_config: Any

        def reload_weights(self, weights_iterator: Iterator[tuple[str, Tensor]]) -> None: ...

    def merge_adapter(self, adapter: str) -> None:
        """Serve base + adapter from now on. The prefix cache is the caller's to reset."""
        model = self.model_runner.get_model()
        fused = getattr(model, "packed_modules_mapping", {})
        base, deltas = self._base(), read_deltas(Path(adapter))
        modules = touched(base, deltas, fused)
        # What only the last adapter changed must become pristine again.
        stale = getattr(self, "_merged_modules", ())
        with _quiet(RELOADERS), torch.inference_mode():
            self.reload_weights(merged(base, deltas, list(dict.fromkeys([*modules, *stale])), self.device))
        self._merged_modules = modules
        if getattr(self, "_two_rows", False):
            self.never_one_row()

    def never_one_row(self) -> None:
        """On CPU: multiply a single row as one of two.

        oneDNN shares the sum over a wide layer's inputs out among threads for one row and not for more, so that a
        token's last digits would depend on whether it was alone. Reloaded layers lose this; call it again.
        """
        self._two_rows = True
        for layer in self.model_runner.get_model().modules():
            if (linear := getattr(layer, "cpu_linear", None)) and not isinstance(linear, TwoRows):
                layer.cpu_linear = TwoRows(linear)

    def shared_memory(self) -> list[str]:
        """Names of what stays behind in /dev/shm when the engine process is killed."""
        return sorted(set(re.findall(r"/dev/shm/(psm_\w+)", Path("/proc/self/maps").read_text())))

    def _base(self) -> Base:
        if not hasattr(self, "_base_files"):
            self._base_files = Base(local_model(self.model_config, self.load_config))
        return self._base_files


def local_model(model_config: Any, load_config: Any) -> Path:
    """Where the checkpoint lies on this machine: vLLM has already downloaded it."""
    path = Path(model_config.model)
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            model_config.model,
            revision=model_config.revision,
            cache_dir=load_config.download_dir,
            local_files_only=True,
            allow_patterns="*.safetensors",
        )
    )


if trainer := os.environ.get(TRAINER):
    # Here, and not in a call once all is up: a trainer may be killed while vLLM starts.
    threading.Thread(target=_follow, args=(int(trainer),), daemon=True, name="follow-trainer").start()
