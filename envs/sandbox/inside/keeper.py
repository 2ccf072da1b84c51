"""The process that keeps one sandbox: it starts every call as a confined child and ends whatever outlives it.

Under bwrap it runs inside, as process 1 of the sandbox, which nothing inside can kill; under landlock outside, as
another user than the code it runs. It takes one call at a time from its control socket and answers each with how the
child ended. When the other end of that socket closes, it kills what is left and ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from envs.sandbox.inside import kernel, layers, wire
from envs.sandbox.inside.calls import CALLS
from envs.sandbox.inside.plan import Plan

_DEADLINE = 2.0
"""Seconds within which everything killed must be gone."""


@dataclass
class Ending:
    """How a child came to its end."""

    status: int
    how: str = "ended"
    """Or `timeout`, `killed` on request, or `unconfined`: its layers could not be put on, and it did nothing."""
    reason: str = ""
    cpu: float = 0.0
    peak: int = 0


class Keeper:
    def __init__(self, control: socket.socket, plan: Plan) -> None:
        self.control = control
        self.plan = plan
        self._wake, tail = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(tail, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def serve(self) -> None:
        """Answer calls until the other side is gone."""
        kernel.adopt_orphans()
        layers.put_on(layers.PREPARE, self.plan)
        wire.send(self.control, {"ready": True, "workspace": self.plan.workspace})
        try:
            while self._idle():
                message, descriptors = wire.receive(self.control)
                if message is None:
                    return
                if message["op"] == "kill":  # what it was meant for has ended already
                    continue
                started = time.monotonic()
                ending = self._call(message, descriptors)
                seconds = time.monotonic() - started
                answer = {"status": ending.status, "how": ending.how, "reason": ending.reason}
                answer |= {"cpu": ending.cpu, "peak": ending.peak}
                wire.send(self.control, {**answer, "seconds": seconds, "call": message["call"]})
        finally:
            self._kill_all()

    def _idle(self) -> bool:
        """Wait for a message, burying orphans."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self.control.fileno():
                    return True
                self._bury()

    def _call(self, message: dict[str, Any], descriptors: list[int]) -> Ending:
        trouble, report = os.pipe2(os.O_CLOEXEC)
        keeper = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._child(message, descriptors, report, keeper)
        for descriptor in (*descriptors, report):
            os.close(descriptor)
        try:
            ending = self._attend(pid, time.monotonic() + message["wall"])
            if select.select([trouble], [], [], 0)[0] and (reason := os.read(trouble, 4096)):
                ending.how, ending.reason = "unconfined", reason.decode(errors="replace")
        finally:
            os.close(trouble)
        if ending.how != "ended" or self.plan.kind == "grader":
            self._kill_all()
        if self.plan.kind == "grader":
            self._wipe()
        return ending

    def _attend(self, pid: int, deadline: float) -> Ending:
        """Wait for a child, for the order to kill it, or for the end of its time."""
        how = "ended"
        while True:
            if (ending := self._bury(pid)) is not None:
                ending.how = how
                return ending
            left = deadline - time.monotonic()
            if how == "ended" and left <= 0 and "deadline" in self.plan.layers:
                how = "timeout"
                self._end(pid)
            ready = [d for d, _ in self._poll.poll(max(1, left * 1000) if how == "ended" else 100)]
            if self.control.fileno() in ready and how == "ended":
                message, _ = wire.receive(self.control)
                how = "killed"
                self._end(pid)
                if message is None:
                    raise SystemExit

    def _end(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._kill_all(keep=pid)

    def _bury(self, pid: int = 0) -> Ending | None:
        """Take note of every dead child; the ending of `pid`, if it is among them."""
        with suppress(BlockingIOError):
            os.read(self._wake, 4096)
        ending = None
        while True:
            try:
                dead, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return ending
            if dead == 0:
                return ending
            if dead == pid:
                cpu = usage.ru_utime + usage.ru_stime
                ending = Ending(os.waitstatus_to_exitcode(status), cpu=cpu, peak=usage.ru_maxrss * 1024)

    def _child(self, message: dict[str, Any], descriptors: list[int], report: int, keeper: int) -> None:
        """In the fork: never returns, and whatever goes wrong here ends the child, not the keeper.

        `report` is closed by the time foreign code runs, so that only a failure before that is ever read from it.
        """
        try:
            if self.plan.tier == "landlock":
                kernel.die_with(keeper)  # until it is the slot's user, and dies with that one
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            report = _arrange(descriptors, report, "descriptors" in self.plan.layers)
            if self.plan.tier == "bwrap" and self.plan.kind == "grader" and "fresh" in self.plan.layers:
                self._into_fresh_namespaces()
            layers.put_on(layers.CONFINE, self.plan)
            if message["op"] != "exec":  # which closes it by itself, if it comes so far
                os.close(report)
        except BaseException as error:  # a child must not go on as a second keeper
            os.write(report, f"{error}".encode(errors="replace")[:4096] or b"failed")
            os._exit(1)
        try:
            CALLS[message["op"]](self.plan, message)
        finally:
            os._exit(0)

    def _into_fresh_namespaces(self) -> None:
        """Go on as process 1 of a new PID namespace; the one that was forked waits for it and ends as it does."""
        kernel.unshare(kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
        inner = os.fork()
        if inner:
            os.closerange(0, os.sysconf("SC_OPEN_MAX"))
            status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
            if status < 0:
                signal.signal(-status, signal.SIG_DFL)
                os.kill(os.getpid(), -status)
            os._exit(status & 0xFF)

    def _kill_all(self, keep: int = 0) -> None:
        """Kill everything that runs for this sandbox and wait until it is gone; a child to `keep` is not waited for.

        Raises:
            RuntimeError: something would not die.
        """
        if "kill" not in self.plan.layers:
            return
        end = time.monotonic() + _DEADLINE
        while True:
            self._kill_once()
            if keep:
                return
            self._bury()
            if self._alone():
                return
            if time.monotonic() > end:
                raise RuntimeError("a process of the sandbox would not die")
            time.sleep(0.001)

    def _kill_once(self) -> None:
        if self.plan.tier == "bwrap" and os.getpid() == 1:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # as process 1 of a namespace: all of it, and nothing else
            return
        if self.plan.tier == "landlock" and "uid" in self.plan.layers:
            kill_user(self.plan.uid)
        for child in self._children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def _children(self) -> Iterator[int]:
        """The processes that this one is parent of, adopted ones included."""
        with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
            yield from map(int, file.read().split())

    def _alone(self) -> bool:
        """Whether nothing is left that could be waited for."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return False
        except ChildProcessError:
            return True

    def _wipe(self) -> None:
        """Leave a grader's files to nobody. Under bwrap they went with their namespace."""
        if self.plan.tier == "bwrap" or "fresh" not in self.plan.layers:
            return
        for directory in (self.plan.workspace, self.plan.tmp):
            empty(directory)


def kill_user(slot: int) -> None:
    """Kill every process of a slot's user, at one stroke that none of them can forestall.

    Done by a child that is the slot's user in one respect alone: able to kill it, and not to be killed by it.
    """
    killer = slot + 1
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresuid(killer, slot, killer)
            if os.getresuid() == (killer, slot, killer) and slot > 0:
                os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        finally:
            os._exit(0)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _arrange(descriptors: list[int], report: int, close: bool) -> int:
    """Put a call's descriptors on 0, 1, 2 ... and the report behind them; leave nothing else open."""
    high = [os.dup2(d, 100 + n, inheritable=False) for n, d in enumerate([*descriptors, report])]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number, inheritable=descriptor != high[-1])
    if close:
        os.closerange(len(high), os.sysconf("SC_OPEN_MAX"))
    return len(descriptors)


def empty(directory: str) -> None:
    """Remove what is in a directory, however deep and whatever its modes, without following a link.

    Directories are moved up before they are looked into, so that no depth makes a path too long. Nobody else may be
    at work in there.
    """
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        moved = 0
        while found := list(os.scandir(top)):
            for entry in found:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=top)
                    continue
                os.chmod(entry.name, 0o700, dir_fd=top)
                inner = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
                for below in list(os.scandir(inner)):
                    if below.is_dir(follow_symlinks=False):
                        moved += 1
                        os.rename(below.name, f".{moved}.{os.getpid()}.removed", src_dir_fd=inner, dst_dir_fd=top)
                    else:
                        os.unlink(below.name, dir_fd=inner)
                os.close(inner)
                os.rmdir(entry.name, dir_fd=top)
    finally:
        os.close(top)


def main(descriptor: int) -> None:
    """Keep the sandbox that the first message describes."""
    control = socket.socket(fileno=descriptor)
    message, _ = wire.receive(control)
    if message is not None:
        Keeper(control, Plan.from_json(message)).serve()
