"""The process that starts sandboxes, watches over them and ends them.

It is small, has one thread, knows no secret, and does what its client says over one socket. When that client is gone,
by closing the socket or by dying, it ends every sandbox, removes what they left, and ends itself.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from envs.sandbox.inside import kernel, totals, wire
from envs.sandbox.inside.plan import Limits, Plan
from envs.sandbox.inside.slots import Slot, Uids, bury_strangers, start

_TICK = 0.1
"""Seconds between two looks of the watcher."""


class Broker:
    def __init__(self, client: socket.socket, orders: dict[str, Any]) -> None:
        self.client = client
        self.tier: str = orders["tier"]
        self.bwrap: str = orders["bwrap"]
        self.layers = frozenset(orders["layers"])
        self.python: str = orders["python"]
        self.readable = tuple(orders["readable"])
        self.root = os.geteuid() == 0
        self.uids = Uids()
        self.slots: dict[int, Slot] = {}
        self.cleaners: dict[int, tuple[Slot, dict[str, Any]]] = {}
        """Process -> the slot whose directory it removes, and the answer that waits for it."""
        self._number = 0
        self._looked = 0.0
        self._parents = totals.parents() if "totals" in self.layers else None
        self.runtime: str = orders["runtime"]

    @property
    def watches(self) -> bool:
        """Whether the watcher has something to do that no cgroup and no file system does."""
        return "totals" in self.layers and (self._parents is None or self.tier != "bwrap")

    def start(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        limits = Limits(**message["limits"])
        self._number += 1
        uid = self.uids.take() if self.root else os.getuid()
        try:
            return self._start(message["kind"], limits, uid)
        except OSError:
            if self.root:
                self.uids.give_back(uid)
            raise

    def _start(self, kind: str, limits: Limits, uid: int) -> tuple[dict[str, Any], list[int]]:
        inside = self.tier == "bwrap"
        directory = None if inside else self._directory(uid)
        work, tmp = ("/work", "/tmp") if inside else (f"{directory}/work", f"{directory}/tmp")
        plan = Plan(
            tier=self.tier, kind=kind, layers=self.layers, limits=limits, uid=uid, workspace=work, tmp=tmp,
            readable=self.readable, counted=self._parents is not None,
        )  # fmt: skip
        cgroup = None
        try:
            if self._parents:
                cgroup = totals.Cgroup.make(self._parents, str(self._number), limits)
            slot, control = start(plan, (self.bwrap, self.python), self.runtime, cgroup, directory)
        except OSError:
            if cgroup:
                cgroup.remove()
            if directory:
                shutil.rmtree(directory, ignore_errors=True)
            raise
        self.slots[self._number] = slot
        return {"slot": self._number}, [control]

    def _directory(self, uid: int) -> str:
        """A slot's own place on the machine's disk, for tiers that can't mount one."""
        path = tempfile.mkdtemp(prefix="slot-", dir=self.runtime)
        os.chmod(path, 0o711)
        for name in ("work", "tmp"):
            os.mkdir(f"{path}/{name}", 0o700)
            if self.root and "uid" in self.layers:
                os.chown(f"{path}/{name}", uid, uid)
        return path

    def stop(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]] | None:
        """None where the answer comes later, from `bury`."""
        slot = self.slots.pop(message["slot"], None)
        if slot is None:
            return {"why": "gone", "kills": {}, "said": ""}, []
        answer = self.usage(message, slot)[0]
        slot.end(self._children())
        if slot.directory:
            self.cleaners[slot.start_cleaning()] = slot, {**answer, "call": message["call"]}
            return None
        self._give_back(slot)
        return answer, []

    def usage(self, message: dict[str, Any], slot: Slot | None = None) -> tuple[dict[str, Any], list[int]]:
        slot = slot or self.slots.get(message["slot"])
        if slot is None:
            return {"why": "gone", "kills": {}, "said": ""}, []
        return {"why": slot.why, "kills": slot.kills(), "said": slot.said()}, []

    def _children(self) -> set[int]:
        """Processes whose end is waited for."""
        return {*self.cleaners, *(slot.pid for slot in self.slots.values())}

    def renew(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """Let a sandbox's lifetime begin now."""
        if (slot := self.slots.get(message["slot"])) is not None:
            slot.born = time.monotonic()
        return {}, []

    def _give_back(self, slot: Slot) -> None:
        if self.root:
            self.uids.give_back(slot.plan.uid)

    def answer(self, message: dict[str, Any]) -> None:
        """Do what the client asks and say how it went; a failure is the answer, not the end."""
        verbs = {"start": self.start, "renew": self.renew, "usage": self.usage, "stop": self.stop}
        descriptors: list[int] = []
        try:
            answered = verbs[message["op"]](message)
            if answered is None:
                return
            answer, descriptors = answered
        except (OSError, ValueError, RuntimeError) as error:
            answer = {"error": f"{error}"}
        try:
            wire.send(self.client, {**answer, "call": message["call"]}, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def bury(self) -> None:
        """Tell the client of sandboxes that ended by themselves, and of those that are gone to the last file."""
        for number, slot in self.slots.items():
            if not slot.ended and _dead(slot.pid):
                slot.ended = True
                wire.send(self.client, {"event": "ended", "slot": number})
        for pid, (slot, answer) in list(self.cleaners.items()):
            if _dead(pid):
                del self.cleaners[pid]
                os.waitpid(pid, 0)
                failed = slot.directory is not None and os.path.exists(slot.directory)
                self._give_back(slot)
                wire.send(self.client, answer | ({"error": "a sandbox's files could not be removed"} if failed else {}))
        bury_strangers(self._children())

    def watch(self) -> None:
        """Kill what goes over its memory, its disk or its time."""
        now = time.monotonic()
        if now - self._looked < _TICK:
            return
        self._looked = now
        for slot in self.slots.values():
            if now - slot.born > slot.plan.limits.lifetime and not slot.why:
                slot.why = "lifetime"
                slot.kill()
        if not self.watches or not self.slots:
            return
        found = totals.processes()
        scarce = totals.spare() < totals.RESERVE  # what sockets hold, for one, is nobody's in /proc
        for slot in self.slots.values():
            self._watch(slot, found, scarce)

    def _watch(self, slot: Slot, found: dict[int, totals.Process], scarce: bool) -> None:
        limits = slot.plan.limits
        members = totals.below(slot.pid, found)
        if slot.plan.tier == "bwrap":
            members = members[1:]  # the keeper, inside
        if self._parents is None:
            over = sum(map(totals.held, members)) > limits.memory or len(members) > limits.pids + 4
            if members and (over or scarce):
                slot.over_memory += 1
                slot.kill(members)
        if slot.directory and members and totals.exceeds(slot.directory, limits.disk, limits.inodes):
            slot.over_disk += 1
            slot.kill(members)

    def close(self) -> bool:
        """End everything, leave nothing; whether that went well."""
        well = True
        for slot in self.slots.values():
            try:
                slot.end(self._children())
                slot.clean()
            except OSError:
                well = False
        for pid in self.cleaners:
            with suppress(ChildProcessError):
                well = os.waitpid(pid, 0)[1] == 0 and well
        for path in (self._parents or {}).values():
            with suppress(OSError):
                path.rmdir()
        shutil.rmtree(self.runtime, ignore_errors=True)
        return well


def _dead(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def serve(client: socket.socket, parent: int) -> bool:
    """Do the client's bidding until it is gone; whether nothing was left then."""
    lease = os.pidfd_open(parent)
    wake, tail = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(tail, warn_on_full_buffer=False)
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: ended.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    kernel.adopt_orphans()
    orders, _ = wire.receive(client)
    if orders is None:
        return True
    broker = Broker(client, orders)
    try:
        wire.send(client, {"ready": True, "counted": broker._parents is not None})
        watched = [client.fileno(), wake, *([lease] if "lease" in broker.layers else [])]
        while not ended and lease not in (ready := select.select(watched, [], [], _TICK if broker.slots else None)[0]):
            if wake in ready:
                with suppress(BlockingIOError):
                    os.read(wake, 4096)
            if client.fileno() in ready:
                message, _ = wire.receive(client)
                if message is None:
                    break
                broker.answer(message)
            broker.bury()
            broker.watch()
    except (BrokenPipeError, ConnectionResetError):
        pass  # as good a sign as any that the client is gone
    finally:
        well = broker.close()
    return well


def main(descriptor: int, parent: int) -> None:
    """Exit status 1: something could not be removed."""
    sys.exit(not serve(socket.socket(fileno=descriptor), parent))
