"""Where attacks are played out: one tier with its broker, things worth stealing beside it, and a look at what is left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from envs.sandbox import Graded, GraderError, InfraError, Limits, Outcome, PolicyError, Result, Sandbox, SandboxSettings
from envs.sandbox import client as broker_client
from envs.sandbox.box import Keeper
from envs.sandbox.client import Broker
from envs.sandbox.doctor import prepare
from envs.sandbox.graders import Graders
from envs.sandbox.inside import kernel, totals
from envs.sandbox.inside.layers import ALL
from envs.sandbox.inside.slots import FIRST_UID, LAST_UID
from runs import settled

T = TypeVar("T")
MIB = 2**20

SMALL = Limits(wall=5.0, memory=192 * MIB, pids=24, disk=24 * MIB, inodes=2000, output=64 * 1024, lifetime=60.0)
"""Limits small enough to be attacked."""

GRADER = Limits(
    wall=2.0, memory=192 * MIB, pids=24, disk=16 * MIB, inodes=500, open_files=64, output=32 * 1024, lifetime=300.0
)

CONTAINER = ("/usr/bin/python3", str(Path(__file__).parent / "container.py"))
"""What a broker is started through to find itself in an unprivileged container."""

GOOD = "def grade(sample, item): return 1.0 if sample['answer'] == item['answer'] else 0.0"


class Prey:
    """What no attack may read, change or reach."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="prey-"))
        self.place.chmod(0o777)
        self.secret = f"canary-{secrets.token_hex(16)}"
        for name, mode in (("private", 0o600), ("public", 0o644), ("open", 0o666)):
            (self.place / name).write_text(self.secret)
            (self.place / name).chmod(mode)
        self.variables = {
            "HF_TOKEN": self.secret,
            "WANDB_API_KEY": self.secret,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "MY_PLAIN_SETTING": self.secret,
        }
        os.environ.update(self.variables)
        self.name = f"prey-{secrets.token_hex(8)}"
        self.path = str(self.place / "socket")
        self._servers = [socket.create_server(("127.0.0.1", 0))]
        for address in (f"\0{self.name}", self.path):
            server = socket.socket(socket.AF_UNIX)
            server.bind(address)
            server.listen()
            self._servers.append(server)
        os.chmod(self.path, 0o777)
        self.port: int = self._servers[0].getsockname()[1]
        self._before = self._state()

    def _state(self) -> dict[str, tuple[int, int, str]]:
        files = [path for path in self.place.rglob("*") if path.is_file()]
        return {
            path.name: (path.stat().st_mode, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in files
        }

    def untouched(self) -> bool:
        return self._state() == self._before

    def given(self) -> dict[str, Any]:
        """What an attacker may know."""
        return {"port": self.port, "name": self.name, "socket": self.path, "place": str(self.place)}

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for name in self.variables:
            os.environ.pop(name, None)
        shutil.rmtree(self.place)


class Ground:
    """A tier to attack. Everything said in it is kept, to be searched for the secret."""

    def __init__(self, tier: str, layers: frozenset[str] = ALL) -> None:
        self.tier = tier
        self.layers = layers
        self.contained = tier == "container"
        self.runner = asyncio.Runner()
        self.prey = Prey()
        self.said: list[bytes] = []
        try:
            self.runner.run(self._start())
        except BaseException:
            self.close()
            raise
        time.sleep(0.2)
        self._baseline = self._residue() | {"processes": []}

    @property
    def counted(self) -> bool:
        """Whether a cgroup counts what is used."""
        return self.broker.counted

    @property
    def inside(self) -> bool:
        """Whether there are namespaces."""
        return self.tier == "bwrap"

    async def _start(self) -> None:
        import dataclasses

        machine = prepare("landlock" if self.contained else self.tier, SandboxSettings())
        self.broker = Broker(dataclasses.replace(machine, layers=self.layers))
        before, broker_client.PREFIX = broker_client.PREFIX, CONTAINER if self.contained else ()
        try:
            await self.broker.start()
        finally:
            broker_client.PREFIX = before
        self.graders = Graders(self.broker, GRADER, 1)
        await (await self.open()).close()
        if self.layers == ALL:
            await self.works()

    def run(self, attack: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(attack)

    async def open(self, limits: Limits = SMALL) -> Ground.Box:
        keeper = await Keeper.open(self.broker, "episode", limits)
        return Ground.Box(self, Sandbox(keeper))

    class Box:
        """A sandbox that remembers what was said in it, and sees to it that no command takes longer than it may."""

        def __init__(self, ground: Ground, sandbox: Sandbox) -> None:
            self.ground, self.sandbox = ground, sandbox
            self.limits, self.read, self.write, self.workspace = (
                sandbox.limits,
                sandbox.read,
                sandbox.write,
                sandbox.workspace,
            )

        async def exec(self, argv: list[str], **options: Any) -> Result:
            started = time.monotonic()
            result = await self.sandbox.exec(argv, **options)
            took = time.monotonic() - started
            most = min(options.get("wall") or self.limits.wall, self.limits.wall) + 2
            assert took < most, f"a command came back after {took:.1f} s"
            self.ground.said += [result.stdout, result.stderr]
            return result

        async def sh(self, line: str, **options: Any) -> Result:
            return await self.exec(["/bin/bash", "-c", line], **options)

        async def python(self, code: str, *arguments: str, **options: Any) -> Result:
            return await self.exec([self.ground.broker.machine.python, "-c", PRELUDE + code, *arguments], **options)

        async def close(self) -> None:
            await self.sandbox.close()

    @contextlib.asynccontextmanager
    async def box(self, limits: Limits = SMALL) -> AsyncIterator[Ground.Box]:
        box = await self.open(limits)
        try:
            yield box
        finally:
            await box.close()

    async def python(self, code: str, *arguments: str, limits: Limits = SMALL, **options: Any) -> Result:
        """Run Python in a sandbox of its own."""
        async with self.box(limits) as box:
            return await box.python(code, *arguments, **options)

    async def sh(self, line: str, limits: Limits = SMALL, **options: Any) -> Result:
        async with self.box(limits) as box:
            return await box.sh(line, **options)

    async def grade(self, source: str, sample: Any = None, item: Any = None, high: float = 1.0) -> Outcome:
        started = time.monotonic()
        outcome = await self.graders.grade(source, sample, item or {}, high=high)
        assert time.monotonic() - started < 2 * (GRADER.wall + 2), "a grader call took longer than it may"
        assert isinstance(outcome, Graded | PolicyError | GraderError | InfraError)
        self.said.append(repr(outcome).encode())
        return outcome

    async def works(self) -> None:
        """A harmless call still does what it should, and so does a harmless command."""
        for answer, score in (("42", 1.0), ("41", 0.0)):
            outcome = await self.graders.grade(GOOD, {"answer": answer}, {"answer": "42"})
            assert isinstance(outcome, Graded) and outcome.value == score, f"a good grader gave {outcome!r}"
        async with self.box() as box:
            result = await box.sh("echo fine")
            assert result.stdout == b"fine\n", result

    async def outside(self, box: Ground.Box) -> list[int]:
        """A process that runs in a sandbox, as this machine sees it."""
        marker = f"{600 + secrets.randbelow(10**9) / 10**9:.9f}"
        await box.sh(f"(setsid sleep {marker} >/dev/null 2>&1 &)")
        assert appears(marker), "nothing runs in the sandbox"
        return running(marker)

    async def users_outside(self, box: Ground.Box) -> set[int]:
        """Who a sandbox's processes are, as this machine sees them."""
        return {user for pid in await self.outside(box) for user in _users(pid)}

    def _residue(self) -> dict[str, Any]:
        """What is left of sandboxes on this machine, and what the broker and this process hold."""
        self.runner.run(self.graders.close())
        mine = f"/proc/{self.broker.pid}"
        groups = Path("/sys/fs/cgroup/memory").glob(f"{totals.NAME}-{self.broker.pid}/*/")
        return {
            "processes": totals.below(self.broker.pid, totals.processes()),
            "cgroups": [path.name for path in groups],
            "slot directories": list(Path(self.broker.runtime or "/nowhere").glob("slot-*")),
            "files of slots": _files_of_slots(),
            "mounts": Path("/proc/self/mountinfo").read_text().count("\n"),
            "shared memory": Path("/proc/sysvipc/shm").read_text().count("\n"),
            "broker's descriptors": len(os.listdir(f"{mine}/fd")),
            "broker's threads": len(os.listdir(f"{mine}/task")),
            "own descriptors": len(os.listdir("/proc/self/fd")),
        }

    def check(self) -> None:
        """The conditions that hold after every attack, whatever it was."""
        self.run(self.works())
        left = self._residue()
        for _ in range(20):
            if left == self._baseline:
                break
            time.sleep(0.1)
            left = self._residue()
        differing = {name: (self._baseline[name], left[name]) for name in left if left[name] != self._baseline[name]}
        assert not differing, f"left behind (before, after): {differing}"
        assert self.prey.untouched(), "a canary was touched"
        assert not [said for said in self.said if self.prey.secret.encode() in said], "a secret got out"
        self.said.clear()

    def close(self) -> None:
        broker = getattr(self, "broker", None)
        try:
            if broker is not None:
                self.runner.run(broker.close())
        finally:
            self.runner.close()
            self.prey.close()


PRELUDE = """
import ctypes, errno, json, os, signal, socket, struct, sys, time
C = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = C.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), errno.errorcode.get(ctypes.get_errno(), "?"))
    return result
def worked(**tries):
    for name, action in tries.items():
        try:
            action()
        except (OSError, AttributeError, ValueError) as error:
            print("stopped", name, type(error).__name__, error, file=sys.stderr)
        else:
            print("WORKED", name)
"""


def stopped(result: Result) -> None:
    """None of what was tried worked; and it was tried."""
    assert b"WORKED" not in result.stdout, result.stdout.decode()
    assert b"stopped" in result.stderr and b"Traceback" not in result.stderr, result


def running(marker: str) -> list[int]:
    """The processes that have this word in their command line."""
    found = []
    for pid in totals.processes():
        with contextlib.suppress(OSError):
            if marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def appears(marker: str) -> bool:
    """Whether such a process is there, or comes within seconds: what a shell starts in the background may take a while."""
    return settled(lambda: bool(running(marker)))


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _users(pid: int) -> set[int]:
    try:
        line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
        return set(map(int, line.split()[1:]))
    except (OSError, StopIteration):
        return set()


def _files_of_slots() -> list[str]:
    found = []
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"):
        with contextlib.suppress(OSError):
            for entry in os.scandir(place):
                with contextlib.suppress(OSError):
                    if FIRST_UID <= entry.stat(follow_symlinks=False).st_uid <= LAST_UID:
                        found.append(entry.path)
    return found


def tiers() -> list[Any]:
    """What can be attacked here; the rest with the reason why not."""
    return [
        pytest.param(name, marks=[pytest.mark.skip(reason=reason)] if (reason := missing(name)) else [])
        for name in ("bwrap", "landlock", "container")
    ]


@functools.cache
def missing(tier: str) -> str | None:
    """Why a tier can't run here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "sandboxes need Linux on x86_64"
    if tier == "bwrap":
        if not shutil.which("bwrap"):
            return "bubblewrap is not installed (apt-get install bubblewrap)"
        return _fails("bwrap", "--unshare-user", "--ro-bind", "/", "/", "true", uid=FIRST_UID)
    if os.geteuid() != 0:
        return "needs root, to run code as another user"
    if kernel.landlock_abi() < 1:
        return "this kernel offers no Landlock"
    return _fails("true", uid=FIRST_UID) if tier == "landlock" else _fails(*CONTAINER, "true")


def _fails(*command: str, uid: int | None = None) -> str | None:
    user: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []} if uid and os.geteuid() == 0 else {}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20, cwd="/", **user)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]}: {error}"
    return f"{command[0]}: {done.stderr.strip()[-200:]}" if done.returncode else None
