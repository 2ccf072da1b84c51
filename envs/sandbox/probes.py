"""What must hold of a sandbox, tried: each probe does what its property forbids and looks whether it was stopped."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from envs.errors import EnvLost
from envs.sandbox.box import Keeper, Sandbox
from envs.sandbox.client import Broker
from envs.sandbox.graders import Graders
from envs.sandbox.inside import totals
from envs.sandbox.inside.plan import ENVIRONMENT, MIB, Limits
from envs.sandbox.records import Graded, GraderError, PolicyError, Result

SMALL = Limits(wall=10.0, memory=128 * MIB, pids=24, disk=24 * MIB, inodes=2000, output=64 * 1024, lifetime=120.0)
"""Limits small enough to be run into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One property, and whether it holds."""

    name: str
    holds: bool
    detail: str
    """What was seen."""


class _Untried(Exception):
    """A probe could not be made, so that nothing is known."""

    @classmethod
    def after(cls, result: Result) -> _Untried:
        return cls(result.stderr.decode(errors="replace")[-200:].strip() or f"it ended by {result.ended}")


_TRY = """
import ctypes, errno, json, os, socket, sys
C = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if C.syscall(number, *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "refused")
def connect(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(1)
        s.connect(address)
        s.send(b"x")
def unless(held):
    if held:
        raise OSError("as it should be")
def tried(action):
    try:
        action()
    except OSError:
        return False
    return True
given = json.loads(sys.argv[1])
print(json.dumps([name for name, action in TRIES.items() if tried(action)]))
"""


async def _python(broker: Broker, code: str, given: object = None) -> Result:
    async with _sandbox(broker) as sandbox:
        return await sandbox.exec([broker.machine.python, "-c", code, json.dumps(given)])


async def _nothing_works(broker: Broker, tries: str, given: object = None) -> tuple[bool, str]:
    result = await _python(broker, _TRY.replace("TRIES", "{" + tries + "}"), given)
    if not result.ok:
        raise _Untried.after(result)
    worked = json.loads(result.stdout)
    return not worked, f"possible: {', '.join(worked)}" if worked else "nothing that was tried is possible"


@asynccontextmanager
async def _sandbox(broker: Broker, limits: Limits = SMALL) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(await Keeper.open(broker, "episode", limits))
    try:
        yield sandbox
    finally:
        await sandbox.close()


async def no_network(broker: Broker) -> tuple[bool, str]:
    """Neither the machine's own ports nor its sockets nor an address outside can be reached."""
    tries = """
        "tcp": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", given["port"])),
        "udp": lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53)),
        "abstract socket": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\\0" + given["name"]),
        "socket file": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, given["path"]),
        "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
        "packets": lambda: socket.socket(17, socket.SOCK_RAW),
        "netlink": lambda: socket.socket(16, socket.SOCK_RAW),
    """
    name = f"probe-{secrets.token_hex(8)}"
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(dir=broker.machine.tmp))
        os.chmod(place, 0o755)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for address in (f"\0{name}", f"{place}/socket"):
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(address)
            server.listen()
        os.chmod(f"{place}/socket", 0o777)
        given = {"port": tcp.getsockname()[1], "name": name, "path": f"{place}/socket"}
        return await _nothing_works(broker, tries, given)


async def no_host_files(broker: Broker) -> tuple[bool, str]:
    """What lies outside can neither be read nor changed, whatever its mode; and nothing is inherited."""
    tries = """
        "reading a file": lambda: open(given["path"]).read(),
        "writing a file": lambda: open(given["path"], "a"),
        "making a file": lambda: open(given["path"] + ".new", "x"),
        "writing under /usr": lambda: open("/usr/probe", "x"),
        "writing under /etc": lambda: open("/etc/probe", "x"),
        "reading /etc/shadow": lambda: open("/etc/shadow").read(),
        "listing /root": lambda: os.listdir("/root"),
        "writing kernel settings": lambda: os.close(os.open("/proc/sys/kernel/printk", os.O_WRONLY)),
        "reading the parent": lambda: open(f"/proc/{os.getppid()}/environ").read(),
        "inherited variables": lambda: unless(set(os.environ) <= set(given["names"])),
    """
    with tempfile.TemporaryDirectory(dir=broker.machine.tmp) as place:
        os.chmod(place, 0o777)
        canary = Path(place, "canary")
        canary.write_text("canary")
        canary.chmod(0o666)
        names = [*ENVIRONMENT, "HOME", "TMPDIR", "PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"]
        return await _nothing_works(broker, tries, {"path": str(canary), "names": names})


async def no_privileges(broker: Broker) -> tuple[bool, str]:
    """No capability, no way to one, and none of the kernel's larger surfaces."""
    tries = """
        "being root outside": lambda: os.setuid(0),
        "new privileges": lambda: unless(C.prctl(39, 0, 0, 0, 0) == 1),
        "unfiltered calls": lambda: unless(C.prctl(21, 0, 0, 0, 0) == 2),
        "a user namespace": lambda: call(272, 0x10000000),
        "mount": lambda: call(165, 0, 0, 0, 0, 0),
        "chroot": lambda: os.chroot("/usr"),
        "ptrace": lambda: call(101, 0, 0, 0, 0),
        "keyring": lambda: call(250, 0, -3, 0),
        "io_uring": lambda: call(425, 1, 0),
        "bpf": lambda: call(321, 0, 0, 0),
        "priority": lambda: os.nice(-5),
    """
    return await _nothing_works(broker, tries)


async def kill_all(broker: Broker) -> tuple[bool, str]:
    """A process that detached itself is gone when the sandbox is closed, and when a command runs out of time."""
    marker = f"{600 + secrets.randbelow(10**9) / 10**9:.9f}"
    detached = f"(setsid sleep {marker} >/dev/null 2>&1 &) ; "
    async with _sandbox(broker) as sandbox:
        result = await sandbox.exec(["/bin/sh", "-c", f"{detached} trap '' TERM INT HUP; sleep 30"], wall=0.3)
        if result.ended != "timeout":
            return False, f"a command without end was not stopped ({result.ended})"
        if _running(marker):
            return False, "a detached process outlived the command's time"
        await sandbox.exec(["/bin/sh", "-c", detached])
        if not _running(marker):
            raise _Untried("a detached process could not be started")
    if _running(marker):
        return False, "a detached process outlived its sandbox"
    return True, "nothing outlives its sandbox"


def _running(marker: str) -> bool:
    for pid in totals.processes():
        try:
            if marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


_EACH_HALF = """
import os, time
def hold():
    data = bytearray(64 << 20)
    for n in range(0, len(data), 4096): data[n] = 1
    time.sleep(1)
    os._exit(0)
children = [os.fork() or hold() for _ in range(4)]
print(sum(os.waitpid(child, 0)[1] == 0 for child in children))
"""


async def mem_total(broker: Broker) -> tuple[bool, str]:
    """Several processes together can't use more memory than one may."""
    result = await _python(broker, _EACH_HALF)
    if result.ok and result.stdout.strip() == b"4":
        return False, "four processes held twice the memory limit"
    if result.ended == "memory" or result.stdout.strip() in (b"0", b"1", b"2", b"3"):
        return True, "processes over the limit together were killed"
    raise _Untried.after(result)


_FORKS = """
import os, time
count = 0
try:
    while count < 200:
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        count += 1
except OSError:
    pass
print(count)
"""


async def pid_total(broker: Broker) -> tuple[bool, str]:
    """A fork bomb stops at the limit."""
    result = await _python(broker, _FORKS)
    count = int(result.stdout or -1)
    return 0 < count <= SMALL.pids + 4, f"{count} processes with a limit of {SMALL.pids}"


async def disk_total(broker: Broker) -> tuple[bool, str]:
    """Many files together can't hold more than the limit."""
    each, most = 8, SMALL.disk // MIB
    line = f"for n in 1 2 3 4 5 6 7 8 9 10; do head -c {each * MIB} /dev/zero > f$n && sleep 0.1 || exit 1; done"
    async with _sandbox(broker) as sandbox:
        result = await sandbox.exec(["/bin/sh", "-c", line])
        return not result.ok, f"{10 * each} MiB with a limit of {most}: {'written' if result.ok else 'stopped'}"


async def fresh_state(broker: Broker) -> tuple[bool, str]:
    """What one sandbox or grader call leaves, the next does not find."""
    line = 'echo x > mark; echo x > "$TMPDIR/mark"; echo x > /dev/shm/mark; true'
    look = 'ls -A . "$TMPDIR" /dev/shm 2>/dev/null | grep -q mark && echo found; true'
    for command in (line, look):
        async with _sandbox(broker) as sandbox:
            result = await sandbox.exec(["/bin/sh", "-c", command])
    if not result.ok:
        raise _Untried.after(result)
    if result.stdout:
        return False, "a file of one sandbox was found in the next"
    graders = Graders(broker, SMALL, 1)
    plant = (
        "import json, tempfile\ndef grade(s, i):\n json.mark = open(tempfile.gettempdir() + '/mark', 'x')\n return 1"
    )
    find = "import json, os, tempfile\ndef grade(s, i):\n"
    find += " return float(hasattr(json, 'mark') or os.path.exists(tempfile.gettempdir() + '/mark'))"
    leave = "import os\ndef grade(s, i): os._exit(0)"
    try:
        planted, found, left = [await graders.grade(source, None, {}) for source in (plant, find, leave)]
    finally:
        await graders.close()
    if not isinstance(planted, Graded) or not isinstance(found, Graded):
        raise _Untried(f"{planted}; {found}")
    if found.value or not isinstance(left, GraderError):
        return False, "a grader call found what another had left" if found.value else "a grader without a result passed"
    return True, "every sandbox and every grader call starts afresh"


_TRIES = 2
"""A machine that is busy may keep a probe from being made."""

Probe = Callable[[Broker], Awaitable[tuple[bool, str]]]

PROBES: dict[str, Probe] = {
    probe.__name__: probe
    for probe in (no_network, no_host_files, no_privileges, kill_all, mem_total, pid_total, disk_total, fresh_state)
}


async def examine(broker: Broker) -> list[Verdict]:
    """Try out every property. One that can't be tried, twice, does not hold; one seen broken is not tried again.

    Raises:
        InfraError: the broker is gone.
    """

    async def verdict(name: str, probe: Probe) -> Verdict:
        holds, detail = False, ""
        for _ in range(_TRIES):
            try:
                async with asyncio.timeout(60):
                    holds, detail = await probe(broker)
                break
            except (_Untried, EnvLost, PolicyError, OSError, ValueError, TimeoutError) as error:
                detail = f"could not be tried: {error or 'it took too long'}"
        return Verdict(name=name, holds=holds, detail=detail)

    return await asyncio.gather(*(verdict(name, probe) for name, probe in PROBES.items()))
