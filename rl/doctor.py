"""What `rft doctor` finds: is this machine fit to play, to train, to serve, and what to do if it is not."""

from __future__ import annotations

import ctypes
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rl.machine import cores, gpus, installed, memory, output

Verdict = Literal["ok", "warn", "missing"]

TESTED = {
    "torch": "2.13.0",
    "vllm": "0.30.0",
    "trl": "1.16.0",
    "transformers": "5.23.0",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
}
"""The versions that were run together; see constraints-cpu.txt."""

SETUP = "run scripts/setup"
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    """`missing`: something that training can't do without. `warn`: it will run, but differently or less."""
    detail: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty where all is well."""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine() -> list[Check]:
    """Look at everything. Takes about a second and loads no model and no torch."""
    packages = [_package(name, installed(name), tested) for name, tested in TESTED.items() if name != "vllm"]
    return [
        _python(),
        _cores(cores()),
        _memory(memory()),
        _gpus(gpus(), installed("torch")),
        *packages,
        _engines(installed("vllm")),
        _bubblewrap(output("bwrap", "--version")),
        _landlock(landlock_abi()),
        _disk(Path.cwd()),
    ]


def _python() -> Check:
    recent = sys.version_info >= (3, 11)
    return Check(
        name="python",
        verdict="ok" if recent else "missing",
        detail=f"{platform.python_version()} at {sys.executable}",
        remedy="" if recent else "install Python 3.11 or newer",
    )


def _cores(count: int) -> Check:
    detail = f"{count} core{'s' if count > 1 else ''}, {platform.machine()}"
    if count < 2:
        remedy = "rollouts and the update share one core: expect a multiple of the usual time"
        return Check(name="CPU", verdict="warn", detail=detail, remedy=remedy)
    return Check(name="CPU", verdict="ok", detail=detail)


def _memory(size: int) -> Check:
    little = size < 8 * _GIB
    remedy = "the demo needs about 8 GiB" if little else ""
    return Check(name="memory", verdict="warn" if little else "ok", detail=_gib(size), remedy=remedy)


def _gpus(names: Sequence[str], torch: str | None) -> Check:
    if not names:
        return Check(
            name="GPU",
            verdict="warn",
            detail="none found",
            remedy="fine for the demo and the tests; real models need one",
        )
    detail = ", ".join(dict.fromkeys(f"{names.count(name)} x {name}" for name in names))
    if torch is not None and torch.endswith("+cpu"):
        remedy = "torch is the CPU build and can't use it: remove .venv and " + SETUP
        return Check(name="GPU", verdict="warn", detail=detail, remedy=remedy)
    return Check(name="GPU", verdict="ok", detail=detail)


def _package(name: str, version: str | None, tested: str) -> Check:
    if version is None:
        return Check(name=name, verdict="missing", detail="not installed", remedy=SETUP)
    if version.split("+")[0] != tested:
        return Check(
            name=name,
            verdict="warn",
            detail=f"{version}; tested with {tested}",
            remedy=f"if something breaks, pip install {name}=={tested}",
        )
    return Check(name=name, verdict="ok", detail=version)


def _engines(vllm: str | None) -> Check:
    """vLLM, or transformers where vLLM can't be had."""
    if vllm is not None and find_spec("vllm") is not None:
        return _package("vllm", vllm, TESTED["vllm"])
    if find_spec("transformers") is not None:
        return Check(
            name="vllm",
            verdict="warn",
            detail="not installed; engine.kind transformers works without it",
            remedy=f"for fast rollouts, {SETUP}",
        )
    return Check(name="vllm", verdict="missing", detail="not installed, and neither is transformers", remedy=SETUP)


def _bubblewrap(version: str | None) -> Check:
    if version is None:
        return Check(
            name="bubblewrap",
            verdict="warn",
            detail="not installed",
            remedy="environments that run code want it: apt install bubblewrap",
        )
    return Check(name="bubblewrap", verdict="ok", detail=version)


def _landlock(abi: int | None) -> Check:
    if abi is None:
        return Check(
            name="landlock",
            verdict="warn",
            detail="not offered by this kernel",
            remedy="environments that run code need bubblewrap then",
        )
    return Check(name="landlock", verdict="ok", detail=f"ABI {abi}")


def _disk(path: Path) -> Check:
    free = shutil.disk_usage(path).free
    little = free < 10 * _GIB
    remedy = "an install takes about 4 GiB, checkpoints and records come on top" if little else ""
    return Check(name="disk", verdict="warn" if little else "ok", detail=f"{_gib(free)} free at {path}", remedy=remedy)


def landlock_abi() -> int | None:
    """Which Landlock ABI the kernel offers, None where it has none. Restricts nothing.

    Source: landlock_create_ruleset(2); the number is the same on every architecture.
    """
    if platform.system() != "Linux":
        return None
    create_ruleset, ask_version = 444, 1
    syscall: Callable[..., int] = ctypes.CDLL(None).syscall
    abi = syscall(create_ruleset, None, ctypes.c_size_t(0), ask_version)
    return abi if abi > 0 else None


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
