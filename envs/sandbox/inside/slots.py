"""One sandbox as the broker holds it: a user of its own, a place for files, a process, and its end."""

from __future__ import annotations

import fcntl
import os
import pwd
import resource
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from envs.sandbox.inside import bwrap, keeper, totals, wire
from envs.sandbox.inside.plan import Plan

FIRST_UID, LAST_UID = 50_000, 59_998
"""Users that no system hands out and every container's mapping has. A slot takes two: its own, and its killer's."""

_END = 5.0
"""Seconds within which a killed sandbox must be gone."""


class Uids:
    """Users for slots, each held by one broker of this machine at a time."""

    def __init__(self) -> None:
        self._next = FIRST_UID + 2 * (os.getpid() % 2048)
        self._strangers = totals.users()
        self._held: dict[int, socket.socket] = {}

    def take(self) -> int:
        """A user that has no name, no process and no other broker.

        Raises:
            OSError: there is none left.
        """
        for _ in range((LAST_UID - FIRST_UID) // 2):
            uid, self._next = self._next, self._next + 2
            if self._next >= LAST_UID:
                self._next = FIRST_UID
            if uid in self._held or {uid, uid + 1} & self._strangers or _named(uid) or _named(uid + 1):
                continue
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0localrft-slot-{uid}")
            except OSError:
                claim.close()
                continue
            self._held[uid] = claim
            return uid
        raise OSError("every user for sandboxes is taken")

    def give_back(self, uid: int) -> None:
        self._held.pop(uid).close()


def _named(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


@dataclass
class Slot:
    """A sandbox that runs."""

    plan: Plan
    pid: int
    words: int
    """A descriptor of what was said on stderr before there was somebody to listen."""
    directory: str | None = None
    cgroup: totals.Cgroup | None = None
    why: str = ""
    """Why it was ended, if it was."""
    ended: bool = False
    over_memory: int = 0
    over_disk: int = 0
    """How often the watcher had to kill what it ran."""
    born: float = field(default_factory=time.monotonic)

    def kills(self) -> dict[str, int]:
        """How often something in it was killed for the sake of a limit, since it started."""
        counted = self.cgroup.out_of_memory() if self.cgroup else 0
        return {"memory": self.over_memory + counted, "disk": self.over_disk}

    def said(self) -> str:
        """The last that it said on stderr."""
        size = os.fstat(self.words).st_size
        return os.pread(self.words, 2000, max(0, size - 2000)).decode(errors="replace").strip()

    def kill(self, members: list[int] | None = None) -> None:
        """Kill some of its processes; without any named, the keeper, and all goes with it."""
        for pid in [self.pid] if members is None else members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.plan.tier == "landlock" and "uid" in self.plan.layers:
            keeper.kill_user(self.plan.uid)

    def end(self, children: set[int]) -> None:
        """Kill all of it and bury it; its directory is left for `clean`.

        Args:
            children: processes that others will wait for.

        Raises:
            OSError: something of it is still there.
        """
        pids = self._members()
        watched = [fd for pid in pids if (fd := _pidfd(pid)) is not None]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _END
        for descriptor in watched:
            gone = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]
            os.close(descriptor)
            if not gone:
                raise OSError("a process of the sandbox would not die")
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self.words)
        if self.plan.tier == "landlock" and "uid" in self.plan.layers:
            self._kill_user(deadline, children)
        if self.cgroup:
            self._empty_cgroup(deadline, children)
            self.cgroup.remove()

    def clean(self) -> None:
        """Remove the directory. Takes as long as what lies in it makes it take."""
        if self.directory:
            keeper.empty(self.directory)
            os.rmdir(self.directory)

    def start_cleaning(self) -> int:
        """The same in a process of its own, so that no sandbox can hold up the others with what it leaves behind."""
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                self.clean()
                os._exit(0)
            finally:
                os._exit(1)
        return pid

    def _members(self) -> list[int]:
        """Keeper and everything below it. Under bwrap process 1 of the namespace is enough: all go with it."""
        found = totals.processes()
        members = totals.below(self.pid, found)
        if self.plan.tier == "bwrap" and "pid_ns" in self.plan.layers:
            members = members[:1]
        return [*members, self.pid]

    def _kill_user(self, deadline: float, children: set[int]) -> None:
        """With the keeper dead, nobody starts anything new for this user."""
        while True:
            keeper.kill_user(self.plan.uid)
            if not totals.of_user(self.plan.uid):
                return
            if time.monotonic() > deadline:
                raise OSError("a process of the sandbox would not die")
            bury_strangers(children)
            time.sleep(0.002)

    def _empty_cgroup(self, deadline: float, children: set[int]) -> None:
        while self.cgroup and (left := self.cgroup.processes()):
            if time.monotonic() > deadline:
                raise OSError(f"processes {left} of the sandbox would not die")
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            bury_strangers(children)
            time.sleep(0.002)


Programs = tuple[str, str]
"""bubblewrap, and the interpreter for the keeper."""


def start(
    plan: Plan, programs: Programs, runtime: str, cgroup: totals.Cgroup | None, directory: str | None
) -> tuple[Slot, int]:
    """Start a keeper, and with it a sandbox; the slot and the caller's end of the control socket.

    Must be called in the main thread of a process that outlives the sandbox: bubblewrap dies with the thread.
    """
    ours, theirs = wire.pair()
    words = os.memfd_create("words", os.MFD_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            _become_keeper(plan, programs, runtime, cgroup, theirs.fileno(), words)
        except BaseException as error:  # a fork of the broker must never go on as a second one
            _say(words, f"{type(error).__name__}: {error}")
        finally:
            os._exit(1)
    theirs.close()
    with suppress(BrokenPipeError):  # it is dead already; who waits for it will see, and read why
        wire.send(ours, plan.to_json())
    return Slot(plan=plan, pid=pid, words=words, cgroup=cgroup, directory=directory), ours.detach()


def _say(words: int, text: str) -> None:
    """Leave word of what went wrong, wherever the descriptor for it is by now."""
    data = text.encode(errors="replace")
    try:
        os.write(words, data)
    except OSError:  # moved to stderr already
        os.write(2, data)


def _become_keeper(
    plan: Plan, programs: Programs, runtime: str, cgroup: totals.Cgroup | None, control: int, words: int
) -> None:
    if cgroup:
        cgroup.join()
    nothing = os.open("/dev/null", os.O_RDWR)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in (nothing, nothing, words, control)]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number)
    if "descriptors" in plan.layers:
        os.closerange(len(high), os.sysconf("SC_OPEN_MAX"))
    if plan.tier != "bwrap":
        os.dup(3)  # so that the other side sees the end only when the reason for it is written down
        keeper.main(3)
        os._exit(0)
    if "oom" in plan.layers:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")  # the keeper, after what it runs and before anybody else
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "uid" in plan.layers and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(plan.uid, plan.uid, plan.uid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
    command = bwrap.argv(plan, programs, runtime, control=3)
    os.execvpe(command[0], command, dict(os.environ))


def bury_strangers(children: set[int]) -> None:
    """Reap adopted processes, but not those that somebody waits for.

    They are what a keeper, or the bubblewrap above it, leaves when it is killed first.
    """
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        for child in set(map(int, file.read().split())) - children:
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
