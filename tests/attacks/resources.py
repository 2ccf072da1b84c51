"""Attacks on memory, disk, processes, time and pipes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from attacks.catalogue import attack
from attacks.ground import MIB, SMALL, Ground, alive, stopped
from envs.sandbox import Graded, PolicyError


@attack(1)
async def fork_bomb(g: Ground) -> None:
    bomb = "import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(0.05)\n"
    async with g.box() as box:
        assert (await box.python(bomb, wall=1.0)).ended == "timeout"
        count = "n = 0\ntry:\n while n < 500:\n  if os.fork() == 0: time.sleep(2); os._exit(0)\n  n += 1\nexcept OSError: pass\n"
        result = await box.python(count + "print(n)")
        assert 0 < int(result.stdout) <= SMALL.pids + 4, result
    outcome = await g.grade("def grade(s, i):\n " + bomb.replace("\n", "\n "))
    assert isinstance(outcome, PolicyError) and outcome.kind in ("timeout", "memory"), outcome


@attack(2)
async def thread_bomb(g: Ground) -> None:
    code = "import threading\nn = 0\ntry:\n while n < 1000:\n  threading.Thread(target=time.sleep, args=(1,), daemon=True).start(); n += 1\n"
    result = await g.python(code + "except RuntimeError: pass\nprint(n, flush=True); os._exit(0)")
    assert 0 < int(result.stdout) <= SMALL.pids + 4, result


@attack(3)
async def mem_single(g: Ground) -> None:
    for size in (64 << 30, 1 << 30):
        result = await g.python(f"b = bytearray({size})\nfor n in range(0, len(b), 4096): b[n] = 1\nprint('WORKED')")
        assert b"WORKED" not in result.stdout and not result.ok
        outcome = await g.grade(f"def grade(s, i):\n b = bytearray({size})\n return 1.0")
        assert isinstance(outcome, PolicyError) and outcome.kind == "memory", outcome


@attack(4)
async def mem_many_procs(g: Ground) -> None:
    code = """
def hold():
    data = bytearray(60 << 20)
    for n in range(0, len(data), 4096): data[n] = 1
    time.sleep(1.5)
    os._exit(0)
children = [os.fork() or hold() for _ in range(8)]
print(sum(os.waitpid(child, 0)[1] == 0 for child in children))
"""
    result = await g.python(code)
    assert result.ended == "memory" or int(result.stdout) < 8, result


@attack(5)
async def mem_shared(g: Ground) -> None:
    code = """
import mmap
block, held = b"x" * (1 << 20), []
def memfd():
    held.append(os.memfd_create("m"))
    for _ in range(16): os.write(held[-1], block)
def shared():
    held.append(mmap.mmap(-1, 16 << 20))
    for _ in range(16): held[-1].write(block)
def file():
    held.append(open(f"/dev/shm/{len(held)}", "wb", buffering=0))
    for _ in range(16): held[-1].write(block)
def tables():
    held.append(mmap.mmap(-1, 16 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ))
    for place in range(0, 16 << 30, 2 << 20): held[-1][place]
def sockets():
    for _ in range(35):
        pair = socket.socketpair()
        held.append(pair)
        for end in pair:
            end.setblocking(False)
            try:
                while True: end.send(block)
            except BlockingIOError: pass
count = 0
for make in (memfd, shared, file):
    try:
        for _ in range(20): make(); count += 16
    except OSError as error: print("stopped", make.__name__, error, file=sys.stderr)
time.sleep(0.3)
print(count)
"""
    result = await g.python(code)
    assert result.ended == "memory" or int(result.stdout) <= (SMALL.memory + SMALL.disk) // MIB, result
    result = await g.python(code.replace("(memfd, shared, file)", "(tables,)") + "time.sleep(2)")
    assert result.ended == "memory", result
    if g.counted:
        result = await g.python(code.replace("(memfd, shared, file)", "(sockets,)"))
        assert result.ended == "memory", result


FILL = """
import glob
where = sys.argv[1] if len(sys.argv) > 1 else os.environ["TMPDIR"]
block = b"x" * (1 << 20)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
total = 0
for n in range(400):
    try:
        with open(f"{where}/{n}", "wb", buffering=0) as file:
            for _ in range(10): total += file.write(block)
    except OSError as error: print("stopped", error, file=sys.stderr); break
    time.sleep(0.02)
print(total >> 20)
"""


@attack(6)
async def disk_fill_tmp(g: Ground) -> None:
    await _fill(g)


@attack(7)
async def disk_fill_workspace(g: Ground) -> None:
    await _fill(g, ".")


async def _fill(g: Ground, *where: str) -> None:
    async with g.box() as box:
        result = await box.python(FILL, *where)
        if g.inside:
            assert result.ok and int(result.stdout) <= SMALL.disk // MIB, result
            if not where:
                return
            with pytest.raises(PolicyError, match="full"):
                await box.write("more", b"x" * SMALL.disk)
        else:
            assert result.ended == "disk", result


@attack(8)
async def inode_fill(g: Ground) -> None:
    for code in (
        "n = 0\nwhile n < 100_000: open(f'f{n}', 'x').close(); n += 1\nprint('WORKED')",
        "for n in range(100_000): os.mkdir('d'); os.chdir('d')\nprint('WORKED')",
    ):
        box = await g.open()
        result = await box.python(code)
        assert b"WORKED" not in result.stdout and not result.ok, result
        started = time.monotonic()
        _, result = await asyncio.gather(box.close(), g.sh("echo fine", wall=2.0))
        assert result.ok, "cleaning up held up another sandbox"
        assert time.monotonic() - started < 30, "cleaning up took too long"


@attack(9)
async def sparse_file(g: Ground) -> None:
    async with g.box() as box:
        code = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        code += f"f = open('big', 'wb')\nworked(huge=lambda: f.truncate(1 << 50))\nf.truncate({SMALL.disk - 4096})"
        stopped(await box.python(code))
        with pytest.raises(PolicyError, match="larger") as caught:
            await box.read("big")
        assert caught.value.kind == "too_large"


@attack(10)
async def fd_exhaust(g: Ground) -> None:
    result = await g.python("n = 0\ntry:\n while n < 100_000: os.dup(0); n += 1\nexcept OSError: pass\nprint(n)")
    assert 0 < int(result.stdout) <= SMALL.open_files, result


@attack(11)
async def cpu_spin(g: Ground) -> None:
    outcome = await g.grade("def grade(s, i):\n while True: pass")
    assert isinstance(outcome, PolicyError) and outcome.kind in ("timeout", "cpu"), outcome


@attack(12)
async def c_level_hang(g: Ground) -> None:
    for line in ("10 ** 10 ** 8", "__import__('re').match('(a+)+$', 'a' * 40 + 'b')"):
        outcome = await g.grade(f"def grade(s, i):\n {line}\n return 1.0")
        assert isinstance(outcome, PolicyError) and outcome.kind in ("timeout", "cpu"), outcome


@attack(13)
async def ignore_sigterm(g: Ground) -> None:
    deaf = (
        "import signal, time\nfor n in range(1, 32):\n try: signal.signal(n, signal.SIG_IGN)\n except OSError: pass\n"
    )
    result = await g.python(deaf + "time.sleep(60)", wall=0.5)
    assert result.ended == "timeout" and result.seconds < 1.5, result
    async with g.box() as box:
        detached = await g.outside(box)
        assert (await box.sh("sleep 60", wall=0.3)).ended == "timeout"
        assert not [pid for pid in detached if alive(pid)], "a detached process outlived the command's time"
    outcome = await g.grade(f"{deaf}def grade(s, i): time.sleep(60)")
    assert isinstance(outcome, PolicyError) and outcome.kind == "timeout", outcome


@attack(14)
async def stop_self(g: Ground) -> None:
    async with g.box() as box:
        for line in ("kill -STOP $$", "mkfifo f; cat f"):
            result = await box.sh(line, wall=0.5)
            assert result.ended == "timeout", result


@attack(15)
async def stdout_flood(g: Ground) -> None:
    result = await g.sh("yes")
    assert result.ended == "output" and result.stdout_truncated and len(result.stdout) == SMALL.output, result.ended
    assert result.seconds < 3
    outcome = await g.grade("def grade(s, i):\n while True: print('y' * 10_000)")
    assert isinstance(outcome, PolicyError) and outcome.kind == "output", outcome


@attack(16)
async def stderr_flood_stdout_silent(g: Ground) -> None:
    result = await g.python("for _ in range(8): os.write(2, b'e' * 65536)\nprint('done')")
    assert result.ok and result.stdout == b"done\n" and result.stderr_truncated and not result.stdout_truncated


@attack(17)
async def slow_drip(g: Ground) -> None:
    result = await g.sh("while true; do printf x; sleep 0.1; done", wall=1.0)
    assert result.ended == "timeout" and 1 <= len(result.stdout) <= 12, result


@attack(18)
async def hold_pipe(g: Ground) -> None:
    result = await g.sh("sleep 999 & echo hi")
    assert result.ok and result.stdout == b"hi\n" and result.seconds < 2, result


@attack(19)
async def zip_bomb(g: Ground) -> None:
    code = "import gzip\nwith gzip.open('bomb.gz', 'wb', 1) as f:\n for _ in range(64): f.write(bytes(1 << 20))"
    async with g.box() as box:
        assert (await box.python(code)).ok
        data = await box.read("bomb.gz", max_bytes=MIB)
        assert data.startswith(b"\x1f\x8b") and len(data) < MIB
        assert not (await box.sh("gunzip bomb.gz")).ok


@attack(20)
async def priority_grab(g: Ground) -> None:
    code = """
def nice(): os.nice(-20)
def fifo(): os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
def lock():
    if C.mlockall(3): raise OSError(ctypes.get_errno(), "mlockall")
def adjust():
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY); os.write(fd, b"-1000")
def limit():
    import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
worked(nice=nice, fifo=fifo, lock=lock, adjust=adjust, limit=limit)
"""
    async with g.box() as box:
        stopped(await box.python(code))
        for pid in await g.outside(box):
            assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n", "not the first to die"
    outcome = await g.grade("import os\ndef grade(s, i):\n os.nice(5)\n return 1.0")
    assert isinstance(outcome, Graded)
