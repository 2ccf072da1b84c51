"""Attacks on secrets and files."""

from __future__ import annotations

import asyncio
import time

import pytest

from attacks.catalogue import attack
from attacks.ground import Ground, stopped
from envs.sandbox import Graded, GraderError, PolicyError
from envs.sandbox.inside.plan import ENVIRONMENT

DECLARED = {*ENVIRONMENT, "HOME", "TMPDIR", "PWD", "LC_CTYPE"}


@attack(21)
async def read_env(g: Ground) -> None:
    result = await g.python("print(json.dumps(sorted(os.environ)))\nprint(open('/proc/self/environ').read())")
    names = result.stdout.splitlines()[0].decode()
    assert not [name for name in g.prey.variables if name in names]
    outcome = await g.grade("import os\ndef grade(s, i): raise Exception('names ' + ' '.join(os.environ) + ' end')")
    assert isinstance(outcome, GraderError)
    found = str(outcome).partition("Exception: names ")[2].split(" end")[0].split()
    assert "PATH" in found and not set(found) - DECLARED, found


@attack(22)
async def read_parent_env(g: Ground) -> None:
    code = """
worked(parent=lambda: open(f"/proc/{os.getppid()}/environ").read(), memory=lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
       descriptors=lambda: os.listdir(f"/proc/{os.getppid()}/fd"), root=lambda: os.listdir("/proc/1/root/root"))
for pid in range(1, 5000):
    try: print(pid, open(f"/proc/{pid}/environ").read())
    except OSError: pass
"""
    stopped(await g.python(code))


@attack(23)
async def read_home(g: Ground) -> None:
    code = """
places = [".ssh", ".netrc", ".cache/huggingface/token", ".config/wandb", ".bash_history", ".aws", ".docker/config.json"]
for home in ("/root", "/home", os.path.expanduser("~")):
    for place in places: worked(**{place: lambda: os.stat(f"{home}/{place}")})
worked(root=lambda: os.listdir("/root"), shadow=lambda: open("/etc/shadow").read())
"""
    stopped(await g.python(code))


@attack(24)
async def read_run_dir(g: Ground) -> None:
    code = """
place = sys.argv[1]
worked(watch=lambda: call(254, call(294, 0), place.encode(), 0xfff))
worked(list=lambda: os.listdir(place), private=lambda: open(place + "/private").read(),
       public=lambda: open(place + "/public").read(), open=lambda: open(place + "/open").read())
"""
    stopped(await g.python(code, str(g.prey.place)))


SEARCH = """
import gc
found, marker = [], sys.argv[1].encode()[::-1]
for top in ("/run", "/tmp", "/dev", "/var", ".", os.environ["TMPDIR"]):
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                if os.path.isfile(f"{folder}/{name}") and marker in open(f"{folder}/{name}", "rb").read(): found.append(name)
            except OSError: pass
for pid in range(1, 40000):
    for name in ("cmdline", "environ"):
        try:
            if marker in open(f"/proc/{pid}/{name}", "rb").read(): found.append(f"{pid}/{name}")
        except OSError: pass
print("WORKED" if found else "nothing", found)
"""


@attack(25)
async def read_grader_src(g: Ground) -> None:
    await _search_while_grading(g)


@attack(26)
async def read_answer_in_argv(g: Ground) -> None:
    await _search_while_grading(g)


async def _search_while_grading(g: Ground) -> None:
    marker = "theanswerisplatypus"
    source = f"import time\ndef grade(s, i):\n time.sleep(1)\n return float(i['answer'] == '{marker}')"
    async with g.box() as box:
        graded, result = await asyncio.gather(
            g.grade(source, {"output": marker}, {"answer": marker}), box.python(SEARCH, marker[::-1])
        )
    assert isinstance(graded, Graded) and graded.value == 1.0
    assert result.stdout.startswith(b"nothing"), result


@attack(27)
async def read_test_files_late(g: Ground) -> None:
    async with g.box() as box:
        watch = 'while true; do cp -r tests* seen 2>/dev/null; ls "$TMPDIR" > seen.txt; sleep 0.05; done'
        await box.sh(f"(setsid bash -c '{watch}' >/dev/null 2>&1 &)")
    async with g.box() as verifier:
        await verifier.write("tests/test_hidden.py", "assert True")
        result = await verifier.sh("sleep 0.3; ls -A")
        assert result.stdout == b"tests\n", result


@attack(28)
async def write_outside(g: Ground) -> None:
    code = """
places = ["/usr", "/usr/bin", "/usr/lib/python3/dist-packages", "/etc", "/", "/run/keeper", "/run", "/var", "/root", "/opt",
          "/dev", "/proc", "/sys", "/usr/lib/python3.11", "/home"]
for place in places: worked(**{place: lambda: open(f"{place}/sitecustomize.py", "x")})
for file in ("/usr/bin/env", "/etc/passwd", "/usr/lib/os-release"): worked(**{file: lambda: open(file, "r+")})
worked(**{"open": lambda: open(sys.argv[1] + "/open", "a")})
"""
    stopped(await g.python(code, str(g.prey.place)))


@attack(29)
async def create_missing_protected(g: Ground) -> None:
    code = """
place = sys.argv[1]
for name in (".git", "conftest.py", "pyproject.toml"): worked(**{name: lambda: os.mkdir(f"{place}/{name}")})
worked(file=lambda: open(f"{place}/sitecustomize.py", "x"), link=lambda: os.symlink("/", f"{place}/link"))
"""
    stopped(await g.python(code, str(g.prey.place)))


@attack(30)
async def dotdot(g: Ground) -> None:
    paths = [
        "../../etc/passwd",
        "/etc/passwd",
        "~/.ssh/id_rsa",
        "a\0b",
        "..",
        "",
        ".",
        "/",
        "a/../../b",
        "a/",
        "x" * 5000,
    ]
    async with g.box() as box:
        for path in [*paths, f"{box.workspace}/../passwd", "．．/etc/passwd", "y" * 300]:
            for attempt in (lambda path=path: box.read(path), lambda path=path: box.write(path, "x")):
                if path.startswith("．．") and attempt.__defaults__ and (await _kind(attempt)) == "none":
                    continue  # a name like any other, in the workspace
                with pytest.raises(PolicyError) as caught:
                    await attempt()
                assert caught.value.kind in ("path", "not_found"), (path, caught.value.kind)


async def _kind(attempt: object) -> str:
    try:
        await attempt()  # type: ignore[operator]
    except PolicyError as error:
        return error.kind
    return "none"


@attack(31)
async def symlink_out(g: Ground) -> None:
    async with g.box() as box:
        links = (
            f"ln -s /etc/shadow a; ln -s {g.prey.place}/public b; ln -s /usr/lib c; ln -s {g.prey.place} d; ln -s . e"
        )
        assert (await box.sh(links)).ok
        for path in ("a", "b", "c/os-release", "d/public", "d/open", "e/a"):
            for attempt in (box.read(path), box.write(path, "x")):
                with pytest.raises(PolicyError) as caught:
                    await attempt
                assert caught.value.kind == "path", (path, caught.value.kind)


@attack(32)
async def symlink_swap_race(g: Ground) -> None:
    flip = """
os.symlink("/usr/lib/os-release", "link"); open("file", "w").write("mine")
while True:
    for name in ("file", "link"):
        os.link(name, "next", follow_symlinks=False); os.rename("next", "result")
"""
    async with g.box() as box:
        flipping = asyncio.ensure_future(box.sandbox._keeper.call(_detached(g, flip), b"", [], 2.0))
        await flipping
        seen = set()
        for _ in range(60):
            try:
                seen.add(await box.read("result"))
            except PolicyError as error:
                seen.add(error.kind.encode())
        assert seen <= {b"mine", b"path", b"not_found"} and {b"mine", b"path"} <= seen, seen


def _detached(g: Ground, code: str) -> dict[str, object]:
    start = "import os, sys\nif os.fork() == 0:\n os.setsid()\n for n in (0, 1, 2):\n  try: os.close(n)\n  except OSError: pass\n"
    lines = "".join(f" {line}\n" for line in code.strip().splitlines())
    return {"op": "exec", "argv": [g.broker.machine.python, "-c", start + lines], "env": {}, "cwd": "."}


@attack(33)
async def hardlink_out(g: Ground) -> None:
    code = """
worked(system=lambda: os.link("/usr/lib/os-release", "a"), canary=lambda: os.link(sys.argv[1] + "/open", "b"),
       passwd=lambda: os.link("/etc/passwd", "c"))
"""
    stopped(await g.python(code, str(g.prey.place)))


@attack(34)
async def fifo_artifact(g: Ground) -> None:
    async with g.box() as box:
        assert (await box.sh("mkfifo fifo; mkdir folder; ln -s /dev/zero zero")).ok
        if g.inside:
            assert (await box.python("socket.socket(socket.AF_UNIX).bind('sock')")).ok
        for path, kinds in {"fifo": ("not_a_file",), "folder": ("not_a_file", "refused"), "zero": ("path",)}.items():
            started = time.monotonic()
            for attempt in (box.read(path), box.write(path, "x")):
                with pytest.raises(PolicyError) as caught:
                    await attempt
                assert caught.value.kind in kinds, (path, caught.value.kind)
            assert time.monotonic() - started < 1


@attack(35)
async def mknod_block(g: Ground) -> None:
    code = """
for kind in (0o060600, 0o020600): worked(**{oct(kind): lambda: os.mknod("node", kind, os.makedev(254, 0))})
worked(disk=lambda: open("/dev/vda", "rb").read(1))
"""
    stopped(await g.python(code))


@attack(36)
async def setuid_drop(g: Ground) -> None:
    async with g.box() as box:
        result = await box.sh("cp /usr/bin/id x && chmod 6755 x && ./x -u; id -u")
        run, own = result.stdout.split()
        assert run == own != b"0", result
        assert await g.users_outside(box) - {0} and 0 not in await g.users_outside(box)


@attack(37)
async def chmod_outside(g: Ground) -> None:
    code = """
place = sys.argv[1]
for name in ("public", "open", ""):
    path = f"{place}/{name}"
    worked(**{"chmod " + name: lambda: os.chmod(path, 0), "utime " + name: lambda: os.utime(path, (1, 1)),
              "chown " + name: lambda: os.chown(path, os.getuid(), -1), "truncate " + name: lambda: os.truncate(path, 0),
              "unlink " + name: lambda: os.unlink(path), "rename " + name: lambda: os.rename(path, "here"),
              "setxattr " + name: lambda: os.setxattr(path, "user.x", b"1")})
"""
    stopped(await g.python(code, str(g.prey.place)))


@attack(38)
async def weird_names(g: Ground) -> None:
    names = ["-rf", "a\nb", "\x1b[2J", "x" * 255, "\udcff\udcfe", "'\"$(id)", " ", "\u202e", "=cmd"]
    async with g.box() as box:
        for number, name in enumerate(names):
            await box.write(f"d/{name}", str(number))
            assert await box.read(f"d/{name}") == str(number).encode()
        result = await box.python("print(len(os.listdir('d')))")
        assert int(result.stdout) == len(names)


@attack(39)
async def normalisation(g: Ground) -> None:
    async with g.box() as box:
        names = ("caf\u00e9", "cafe\u0301", "CAF\u00c9")
        for name in names:
            await box.write(name, name)
        for name in names:
            assert await box.read(name) == name.encode()
