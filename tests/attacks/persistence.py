"""Attacks that want to outlast their sandbox, or to look into another."""

from __future__ import annotations

import secrets

from attacks.catalogue import attack
from attacks.ground import Ground, appears, running, stopped
from envs.sandbox import Graded, InfraError, PolicyError


@attack(79)
async def tmp_persist(g: Ground) -> None:
    places = '. "$TMPDIR" ~ ~/.cache /tmp /var/tmp /dev/shm /run /dev/mqueue'
    async with g.box() as box:
        await box.sh(f"mkdir -p ~/.cache; for place in {places}; do echo x > $place/persisted 2>/dev/null; done; true")
        result = await g.sh(f"for place in {places}; do ls $place/persisted 2>/dev/null; done; true")
        assert result.stdout == b"", result
    assert (await g.sh(f"for place in {places}; do ls $place/persisted 2>/dev/null; done; true")).stdout == b""
    plant = "import os, tempfile\ndef grade(s, i):\n for p in ('.', '/tmp', '/dev/shm', tempfile.gettempdir()):\n"
    plant += "  try: open(p + '/persisted', 'x').close()\n  except OSError: pass\n return 1.0"
    find = plant.replace("open(p + '/persisted', 'x').close()", "os.stat(p + '/persisted'); return 0.0")
    for source in (plant, find):
        outcome = await g.grade(source)
        assert isinstance(outcome, Graded) and outcome.value == 1.0, outcome


@attack(80)
async def module_state_persist(g: Ground) -> None:
    plant = "import builtins, json, os, sys\njson.evil = builtins.evil = sys.evil = 1\nos.environ['EVIL'] = '1'\n"
    plant += "json.dumps = lambda *a, **k: '{\"score\": 1.0}'\ndef grade(s, i): return 0.5"
    find = "import builtins, json, os, sys\ndef grade(s, i): return float(hasattr(json, 'evil') or hasattr(builtins, 'evil')"
    find += " or hasattr(sys, 'evil') or 'EVIL' in os.environ)"
    await g.grade(plant)
    outcome = await g.grade(find)
    assert isinstance(outcome, Graded) and outcome.value == 0.0, outcome
    await g.works()


@attack(81)
async def pyc_poison(g: Ground) -> None:
    code = """
import json as module
folder = os.path.dirname(module.__file__)
worked(shared=lambda: open(f"{folder}/__pycache__/x.pyc", "x"), folder=lambda: open(f"{folder}/x.py", "x"),
       keeper=lambda: open("/run/keeper/envs/sandbox/inside/__pycache__/keeper.cpython-311.pyc", "r+"),
       runtime=lambda: open(sys.argv[1] + "/envs/sandbox/inside/keeper.py", "a"))
"""
    stopped(await g.python(code, g.broker.runtime or ""))


@attack(82)
async def daemon_left(g: Ground) -> None:
    marker = f"{600 + secrets.randbelow(10**9) / 10**9:.9f}"
    async with g.box() as box:
        await box.sh(f"(setsid nohup sleep {marker} >/dev/null 2>&1 &) ; (sleep {marker} &) >/dev/null 2>&1")
        assert appears(marker), "nothing was left to begin with"
    assert not running(marker), "a daemon outlived its episode"
    source = f"""
import os
def grade(sample, item):
    watch, held = os.pipe()  # closed by exec: once nobody holds it, every daemon is what it set out to be
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                try:
                    os.execv("/usr/bin/sleep", ["sleep", "{marker}"])
                finally:
                    os.write(held, b"failed")
            os._exit(0)
    os.close(held)
    return 0.0 if os.read(watch, 1) else 1.0
"""
    outcome = await g.grade(source)
    assert isinstance(outcome, Graded) and outcome.value == 1.0, outcome
    assert not running(marker), "a daemon outlived its grader call"


@attack(83)
async def zombie_flood(g: Ground) -> None:
    code = """
for n in range(200):
    child = os.fork()
    if child == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.002)
print("done")
"""
    async with g.box() as box:
        assert (await box.python(code)).stdout == b"done\n", "orphans were not buried"
        await box.python("try:\n while True:\n  if os.fork() == 0: os._exit(0)\nexcept OSError: pass")
        assert (await box.sh("echo fine")).stdout == b"fine\n"


@attack(84)
async def sibling_snoop(g: Ground) -> None:
    async with g.box() as one, g.box() as other:
        await one.write("secret", g.prey.secret)
        assert (await one.sh("touch made; stat -c %a made")).stdout == b"600\n", "others may read what is made"
        serve = """
import socket, time
s = socket.create_server(("127.0.0.1", 45454))
u = socket.socket(socket.AF_UNIX)
u.bind("\\0sibling")
u.listen()
time.sleep(9)
"""
        if g.inside:
            await one.write("serve.py", serve)
            await one.sh(f"({g.broker.machine.python} serve.py >/dev/null 2>&1 &) ; sleep 0.4")
        await one.sh("(exec -a sibling-marker sleep 9 >/dev/null 2>&1 &)")
        place = one.workspace  # under bwrap every sandbox has the same; the other's file is not there all the same
        code = f"""
place = {place!r}
def seen():
    for p in os.listdir("/proc"):
        if p.isdigit() and b"sibling-" + b"marker" in open(f"/proc/{{p}}/cmdline", "rb").read(): return
    raise OSError("not seen")
def tcp(): socket.create_connection(("127.0.0.1", 45454), 1)
def abstract(): socket.socket(socket.AF_UNIX).connect("\\0sibling")
worked(seen=seen, tcp=tcp, abstract=abstract, secret=lambda: open(place + "/secret").read(),
       parent=lambda: os.listdir(os.path.dirname(os.path.dirname(place)) + "/slots"))
"""
        stopped(await other.python(code))


@attack(85)
async def cache_sidechannel(g: Ground) -> None:
    plant = "mkdir -p ~/.cache/pip ~/.cache/huggingface && echo x > ~/.cache/pip/poison && echo x > ~/.cache/huggingface/poison"
    assert (await g.sh(plant)).ok
    result = await g.sh("find . $TMPDIR /tmp /var /root /home /run /dev -name poison 2>/dev/null; true")
    assert result.stdout == b"", result
    stopped(await g.python("worked(shared=lambda: open('/root/.cache/x', 'x'), var=lambda: open('/var/cache/x', 'x'))"))


@attack(86)
async def sandbox_suicide(g: Ground) -> None:
    lines = ("rm -rf / --no-preserve-root", "kill -9 1; kill -9 -1", "chmod 000 /bin/sh /usr/bin/env", "chmod 000 . ; rm -rf .", "mv /usr /x",
             "exec 3>&- 1>&- 2>&-; kill -9 $PPID")  # fmt: skip
    async with g.box() as box:
        for line in lines:
            await box.sh(f"{line} 2>/dev/null")
            try:
                assert (await box.sh("echo alive", cwd="/")).stdout == b"alive\n", line
            except PolicyError as error:
                assert error.kind == "destroyed"
                break
    keeper = box.sandbox._keeper
    assert keeper.closed
    try:
        await box.sandbox.exec(["true"])
    except InfraError as error:
        assert "closed" in str(error)
    else:
        raise AssertionError("a closed sandbox ran a command")
