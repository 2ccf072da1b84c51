"""Which sandboxes hold on this machine: found out by trying, and refused where none does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

from envs.errors import InputError
from envs.sandbox.box import Keeper
from envs.sandbox.client import Broker, Machine
from envs.sandbox.inside import kernel
from envs.sandbox.inside.slots import FIRST_UID
from envs.sandbox.probes import SMALL, Verdict, examine
from envs.sandbox.records import InfraError
from envs.sandbox.settings import SandboxSettings

SAFE = ("bwrap", "landlock")
"""Tiers, best first."""

INSTALL = "as root: apt-get install bubblewrap (Debian, Ubuntu)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the doctor found."""

    tier: str | None
    """The one to use; None where none holds."""
    verdicts: tuple[Verdict, ...] = ()
    """Of the tier that is used; of the last one tried where none holds."""
    refused: dict[str, str] = field(default_factory=dict)
    """Tier -> why it is not used."""
    versions: dict[str, str] = field(default_factory=dict)
    remedy: str = ""

    def record(self) -> dict[str, Any]:
        """JSON values."""
        holds = {verdict.name: verdict.holds for verdict in self.verdicts}
        return {"tier": self.tier, "holds": holds, "versions": self.versions}


async def find_tier(settings: SandboxSettings) -> tuple[Findings, Broker]:
    """The best tier that holds, probed, and a running broker of it.

    Raises:
        InputError: none holds, or not the one that was asked for; the message says what is missing.
    """
    findings, broker = await look(settings)
    if broker is None:
        reasons = "; ".join(f"{tier}: {reason}" for tier, reason in findings.refused.items())
        raise InputError(f"no sandbox holds on this machine ({reasons}). {findings.remedy}")
    return findings, broker


async def look(settings: SandboxSettings) -> tuple[Findings, Broker | None]:
    """Try the tiers that the settings allow, best first. The broker, if there is one, is the caller's to close."""
    refused: dict[str, str] = {}
    verdicts: list[Verdict] = []
    for tier in SAFE if settings.tier == "auto" else (settings.tier,):
        try:
            machine = prepare(tier, settings)
        except InfraError as error:
            refused[tier] = f"{error}"
            continue
        broker = Broker(machine)
        try:
            await broker.start()
            await (await Keeper.open(broker, "episode", SMALL)).close()  # one reason, where none starts
            verdicts = [] if tier == "unsafe" else await examine(broker)
        except InfraError as error:
            await broker.close()
            refused[tier] = f"{error}"
            continue
        except BaseException:
            await broker.close()
            raise
        failed = [f"{verdict.name} ({verdict.detail})" for verdict in verdicts if not verdict.holds]
        if not failed:
            versions = _versions(machine, broker.counted)
            return Findings(tier=tier, verdicts=tuple(verdicts), refused=refused, versions=versions), broker
        await broker.close()
        refused[tier] = f"does not hold: {', '.join(failed)}"
    return Findings(tier=None, verdicts=tuple(verdicts), refused=refused, remedy=_remedy(refused)), None


def prepare(tier: str, settings: SandboxSettings) -> Machine:
    """What a broker of this tier needs.

    Raises:
        InfraError: it is not there.
    """
    if not kernel.supported():
        raise InfraError("sandboxes need Linux on x86_64")
    bwrap = shutil.which("bwrap") or ""
    if tier == "bwrap" and not bwrap:
        raise InfraError("bubblewrap is not installed")
    if tier == "landlock" and os.geteuid() != 0:
        raise InfraError("needs root, to run code as another user")
    if tier == "landlock" and kernel.landlock_abi() < 1:
        raise InfraError("this kernel offers no Landlock")
    python, prefix = _python(settings)
    readable = (*settings.readable, *([] if prefix.startswith("/usr/") or prefix == "/usr" else [prefix]))
    return Machine(tier=tier, python=python, bwrap=bwrap, readable=readable, tmp=tempfile.gettempdir())


def _python(settings: SandboxSettings) -> tuple[str, str]:
    """An interpreter that a user without rights can run, and where its library lies."""
    tried = [settings.python] if settings.python else ["/usr/bin/python3", os.path.realpath(sys.executable)]
    ask = "import sys; assert sys.version_info >= (3, 10); import ctypes, json; print(sys.base_prefix)"
    as_nobody: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_nobody = {"user": FIRST_UID, "group": FIRST_UID, "extra_groups": []}
    for python in tried:
        try:
            done = subprocess.run(
                [python, "-I", "-c", ask], capture_output=True, text=True, timeout=20, check=True, env={}, cwd="/",
                **as_nobody,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        return python, done.stdout.strip()
    raise InfraError(
        f"no Python 3.10 or newer that every user may run (tried {', '.join(tried)}): "
        "install one under /usr or /opt, or name it as sandbox.python"
    )


def _versions(machine: Machine, counted: bool) -> dict[str, str]:
    versions = {"python": machine.python, "kernel": os.uname().release, "landlock": f"ABI {kernel.landlock_abi()}"}
    if machine.bwrap:
        done = subprocess.run([machine.bwrap, "--version"], capture_output=True, text=True, check=False)
        versions["bubblewrap"] = done.stdout.strip().rpartition(" ")[2]
    return versions | {"totals": "cgroup" if counted else "watcher"}


def _remedy(refused: dict[str, str]) -> str:
    if "not installed" in refused.get("bwrap", ""):
        return f"Install bubblewrap ({INSTALL})"
    return "To run code unprotected, which nobody should, set sandbox.tier to unsafe and sandbox.reason to why"
