"""What `rft doctor` finds: is this machine fit to play, to train, to serve, and what to do if it is not."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from envs.sandbox import Findings, SandboxSettings
from envs.sandbox.doctor import look
from envs.sandbox.inside.kernel import landlock_abi
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
    """Look at everything. Takes a few seconds, most of them for sandboxes, and loads no model and no torch."""
    packages = [_package(name, installed(name), tested) for name, tested in TESTED.items() if name != "vllm"]
    return [
        _python(),
        _cores(cores()),
        _memory(memory()),
        _gpus(gpus(), installed("torch")),
        *packages,
        _engines(installed("vllm")),
        _bubblewrap(output("bwrap", "--version")),
        _landlock(landlock_abi() or None),
        *_sandboxes(),
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


def _sandboxes() -> list[Check]:
    """Start sandboxes and try whether they hold."""

    async def tried() -> Findings:
        findings, broker = await look(SandboxSettings())
        if broker is not None:
            await broker.close()
        return findings

    return _judged(asyncio.run(tried()))


def _judged(findings: Findings) -> list[Check]:
    """The tier, and each property that was probed."""
    passed_over = "; ".join(f"{tier}: {reason}" for tier, reason in findings.refused.items())
    if findings.tier is None:
        tier = Check(
            name="sandbox",
            verdict="warn",
            detail=f"none holds here ({passed_over})",
            remedy=f"environments that run code refuse to start. {findings.remedy}",
        )
    else:
        versions = ", ".join(f"{name} {version}" for name, version in findings.versions.items())
        detail = f"tier {findings.tier} ({versions})" + (f"; not {passed_over}" if passed_over else "")
        tier = Check(name="sandbox", verdict="ok", detail=detail)
    unmet = "no sandbox of this tier is given out"
    properties = [
        Check(
            name=verdict.name,
            verdict="ok" if verdict.holds else "warn",
            detail=verdict.detail,
            remedy="" if verdict.holds else unmet,
        )
        for verdict in findings.verdicts
    ]
    return [tier, *properties]


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
