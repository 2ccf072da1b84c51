"""What all processes of a sandbox use together: counted by a cgroup, or added up by a watcher.

The kernel's own limits (rlimits) hold for one process or one file. A cgroup (version 1 here, where this process may
make one) holds for all; elsewhere a look at /proc ten times a second takes its place, and what it can't see, memory
that belongs to no process, is refused by the system-call filter.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from envs.sandbox.inside.plan import Limits

NAME = "localrft"
_CONTROLLERS = ("memory", "pids", "cpu")
_AROUND = (
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max"),
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""What a container uses, and may; version 2 and 1."""

RESERVE = 0.04
"""The share of memory below which a watcher ends every command, whoever it was."""


class Cgroup:
    """One sandbox's group in each of the version 1 hierarchies."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths

    @classmethod
    def make(cls, parents: dict[str, Path], name: str, limits: Limits) -> Cgroup:
        """Make the groups and set their limits.

        Raises:
            OSError: a limit could not be set.
        """
        group = cls({controller: parent / name for controller, parent in parents.items()})
        for path in group.paths.values():
            path.mkdir()
        group._set("memory", "memory.limit_in_bytes", limits.memory)
        with suppress(OSError):  # only where the kernel accounts for swap
            group._set("memory", "memory.memsw.limit_in_bytes", limits.memory)
        group._set("pids", "pids.max", limits.pids + 4)  # the keeper and what starts it count as well
        group._set("cpu", "cpu.cfs_period_us", 100_000)
        group._set("cpu", "cpu.cfs_quota_us", 100_000)
        return group

    def _set(self, controller: str, name: str, value: int) -> None:
        (self.paths[controller] / name).write_text(str(value))

    def join(self) -> None:
        """Put this very process in."""
        for path in self.paths.values():
            (path / "cgroup.procs").write_text("0")

    def out_of_memory(self) -> int:
        """How many processes the kernel has killed because the group was full."""
        with suppress(OSError):
            for line in (self.paths["memory"] / "memory.oom_control").read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def processes(self) -> list[int]:
        with suppress(OSError):
            return [int(line) for line in (self.paths["pids"] / "cgroup.procs").read_text().split()]
        return []

    def remove(self) -> None:
        """Needs every process gone; waits a moment for the kernel to notice."""
        for path in self.paths.values():
            for _ in range(200):
                try:
                    path.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.005)


def parents() -> dict[str, Path] | None:
    """The groups of this process, made ready for sandboxes; None where a cgroup can't be made.

    Empty groups that brokers of the past left behind are removed.
    """
    found: dict[str, Path] = {}
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, inner = line.split(":", 2)
            for controller in set(names.split(",")) & set(_CONTROLLERS):
                mounted = Path("/sys/fs/cgroup", controller)
                here = mounted / inner.lstrip("/")
                found[controller] = here if here.is_dir() else mounted
    if len(found) < len(_CONTROLLERS):
        return None
    made = {controller: path / f"{NAME}-{os.getpid()}" for controller, path in found.items()}
    try:
        for path in made.values():
            _sweep(path.parent)
            path.mkdir(exist_ok=True)
    except OSError:
        for path in made.values():
            with suppress(OSError):
                path.rmdir()
        return None
    return made


def _sweep(parent: Path) -> None:
    for old in parent.glob(f"{NAME}-*"):
        if not Path("/proc", old.name.rpartition("-")[2]).exists():
            for path in [*old.glob("*/"), old]:
                with suppress(OSError):
                    path.rmdir()


@dataclass
class Process:
    parent: int
    children: list[int] = field(default_factory=list)


def processes() -> dict[int, Process]:
    """Every process that /proc shows, by pid."""
    found: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                found[int(name)] = Process(parent=int(fields[1]))
    for pid, process in found.items():
        if process.parent in found:
            found[process.parent].children.append(pid)
    return found


def below(pid: int, found: dict[int, Process]) -> list[int]:
    """The descendants of a process, nearest first."""
    line, seen = list(found[pid].children) if pid in found else [], []
    while line:
        seen.append(line.pop(0))
        line += found[seen[-1]].children
    return seen


def held(pid: int) -> int:
    """Bytes of memory that a process holds, with the page tables that map it."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
        return sum(int(fields[name].split()[0]) << 10 for name in ("VmRSS", "VmPTE") if name in fields)
    return 0


def spare() -> float:
    """The share of its memory that this machine, or the container around us, has left."""
    shares = []
    with suppress(OSError, ValueError, KeyError):
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        shares.append(int(fields["MemAvailable"].split()[0]) / int(fields["MemTotal"].split()[0]))
    for used, limit in _AROUND:
        with suppress(OSError, ValueError, ZeroDivisionError):
            shares.append(1 - int(Path(used).read_text()) / int(Path(limit).read_text()))
    return min(shares, default=1.0)


def of_user(uid: int) -> list[int]:
    """The processes that run as a user, zombies included."""
    return [pid for pid, users in _users() if uid in users]


def users() -> set[int]:
    """Every user that some process runs as."""
    return {user for _, users in _users() for user in users}


def _users() -> Iterator[tuple[int, set[int]]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/status") as file:
                line = next(line for line in file if line.startswith("Uid:"))
                yield int(name), set(map(int, line.split()[1:]))


def exceeds(directory: str, size: int, files: int) -> bool:
    """Whether a tree holds more bytes or more files than that; one too deep to be measured does."""
    line = [directory]
    while line:
        try:
            with os.scandir(line.pop()) as entries:
                for entry in entries:
                    files -= 1
                    with suppress(FileNotFoundError):
                        size -= entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            line.append(entry.path)
                    if size < 0 or files < 0:
                        return True
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return True
    return False
