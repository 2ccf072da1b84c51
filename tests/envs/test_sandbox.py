"""Sandboxes as those meet them who use them; what those meet who attack them is in tests/attacks."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from attacks.ground import missing, tiers
from envs.errors import EnvLost, InputError, ToolError
from envs.sandbox import (
    Graded,
    GraderError,
    InfraError,
    Limits,
    PolicyError,
    Sandbox,
    Sandboxes,
    SandboxSettings,
    Verdict,
    doctor,
    pool,
    strict,
)
from envs.sandbox.box import Keeper
from envs.sandbox.client import Broker, lay_out
from envs.sandbox.graders import Graders
from envs.sandbox.inside import broker as broker_process
from envs.sandbox.inside import seccomp, totals, wire
from envs.sandbox.inside.layers import ALL
from envs.sandbox.text import for_model, for_terminal

SMALL = Limits(wall=5.0, memory=256 << 20, pids=32, disk=16 << 20, inodes=1000, output=4096)
TIERS = [param for param in tiers() if param.values[0] != "container"]
every_tier = pytest.mark.parametrize("tier", TIERS)

Scene = Callable[[Broker], Awaitable[None]]


@pytest.fixture(scope="module")
def play() -> Iterator[Callable[[str, Scene], None]]:
    """Runs a scene on a tier; each has one broker for this module."""
    with asyncio.Runner() as runner:
        brokers: dict[str, Broker] = {}

        async def start(tier: str) -> Broker:
            broker = Broker(doctor.prepare(tier, SandboxSettings()))
            await broker.start()
            return broker

        def run(tier: str, scene: Scene) -> None:
            if tier not in brokers:
                brokers[tier] = runner.run(start(tier))
            runner.run(asyncio.wait_for(scene(brokers[tier]), 60))  # type: ignore[arg-type]

        yield run
        for broker in brokers.values():
            runner.run(broker.close())


@asynccontextmanager
async def opened(broker: Broker, limits: Limits = SMALL) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(await Keeper.open(broker, "episode", limits))
    try:
        yield sandbox
    finally:
        await sandbox.close()


@every_tier
def test_a_command_runs_where_the_files_are(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker) as sandbox:
            await sandbox.write("src/deep/a.txt", "hello")
            await sandbox.write(f"{sandbox.workspace}/b.bin", b"\x00\xff")
            result = await sandbox.exec(
                ["/bin/sh", "-c", "cat a.txt; pwd; echo $NAME >&2; cat"], stdin=b"in", env={"NAME": "x"}, cwd="src/deep"
            )
            assert result.ok and result.ended == "exit" and result.exit_code == 0 and result.signal is None
            assert result.stdout == f"hello{sandbox.workspace}/src/deep\nin".encode() and result.stderr == b"x\n"
            assert await sandbox.read("b.bin") == b"\x00\xff"
            assert 0 < result.seconds < 5 and result.cpu_seconds >= 0 and result.peak_memory > 0

    play(tier, scene)


@every_tier
def test_every_way_to_end_has_its_name(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker) as sandbox:
            for line, ended, code, number in (
                ("exit 3", "exit", 3, None),
                ("kill -TERM $$", "signal", None, signal.SIGTERM),
                ("sleep 60", "timeout", None, signal.SIGKILL),
                ("yes", "output", None, signal.SIGKILL),
            ):
                result = await sandbox.exec(["/bin/sh", "-c", line], wall=0.5)
                assert (result.ended, result.exit_code, result.signal) == (ended, code, number), result
            assert (await sandbox.exec(["no-such-program"])).exit_code == 127
            assert (await sandbox.exec(["/usr"])).exit_code == 126
            assert (await sandbox.exec(["true"], cwd="nowhere")).exit_code == 127
        async with opened(broker, Limits(wall=5.0, cpu=1.0)) as sandbox:
            assert (await sandbox.exec(["/bin/sh", "-c", "while :; do :; done"])).ended == "cpu"

    play(tier, scene)


@every_tier
def test_a_command_out_of_time_leaves_the_files(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker) as sandbox:
            await sandbox.write("kept", "kept")
            result = await sandbox.exec(["/bin/sh", "-c", "echo began; sleep 60"], wall=0.3)
            assert result.ended == "timeout" and result.stdout == b"began\n"
            assert await sandbox.read("kept") == b"kept"

    play(tier, scene)


@every_tier
def test_a_cancelled_command_is_killed_and_the_next_one_gets_its_own_answer(
    tier: str, play: Callable[[str, Scene], None]
) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker) as sandbox:
            for delay in (0.0, 0.001, 0.1):
                running = asyncio.ensure_future(sandbox.exec(["/bin/sh", "-c", "sleep 3; echo late > late"]))
                await asyncio.sleep(delay)
                running.cancel()
                started = time.monotonic()
                result = await sandbox.exec(["echo", "mine"])
                assert result.stdout == b"mine\n" and time.monotonic() - started < 2

    play(tier, scene)


@every_tier
def test_commands_of_one_sandbox_wait_their_turn_and_those_of_two_do_not(
    tier: str, play: Callable[[str, Scene], None]
) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker) as one, opened(broker) as other:
            line = "test ! -e busy && touch busy && sleep 0.3 && rm busy"
            results = await asyncio.gather(*(box.exec(["/bin/sh", "-c", line]) for box in (one, one, other)))
            assert all(result.ok for result in results)

    play(tier, scene)


@every_tier
def test_what_a_path_can_not_be_is_the_models_fault(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker) as sandbox:
            await sandbox.write("a", "x" * 5000)
            for path, kind in {"b": "not_found", "../a": "path", "/etc/passwd": "path", "a/b": "not_found"}.items():
                with pytest.raises(PolicyError) as caught:
                    await sandbox.read(path)
                assert caught.value.kind == kind and isinstance(caught.value, ToolError)
            with pytest.raises(PolicyError, match="larger than may be read"):
                await sandbox.read("a")
            assert len(await sandbox.read("a", max_bytes=5000)) == 5000

    play(tier, scene)


@every_tier
def test_a_closed_sandbox_is_gone(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker) as sandbox:
            await sandbox.close()
            await sandbox.close()
            with pytest.raises(InfraError, match="closed"):
                await sandbox.exec(["true"])
        with pytest.raises(EnvLost):
            await sandbox.read("a")

    play(tier, scene)


@every_tier
def test_many_sandboxes_that_end_at_once_leave_nothing(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        async def one(number: int) -> None:
            async with opened(broker) as sandbox:
                made = await sandbox.exec(
                    ["/bin/sh", "-c", f"mkdir -p d/e; seq 200 | xargs touch; sleep {60 + number} &"]
                )
                assert made.ok

        await asyncio.gather(*(one(number) for number in range(12)))
        assert not list(Path(broker.runtime or "").glob("slot-*"))
        for _ in range(100):
            if not (left := totals.below(broker.pid, totals.processes())):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"processes {left} are left")

    play(tier, scene)


@every_tier
def test_a_sandbox_ends_with_its_lifetime(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker, Limits(wall=5.0, lifetime=0.4)) as sandbox:
            with pytest.raises(PolicyError, match="has ended") as caught:
                await sandbox.exec(["sleep", "4"])
            assert caught.value.kind == "destroyed"

    play(tier, scene)


@every_tier
def test_a_sandbox_lives_from_when_it_is_given_out(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        async with opened(broker, Limits(wall=5.0, lifetime=1.0)) as sandbox:
            await asyncio.sleep(0.6)
            await broker.renew(sandbox._keeper.slot)
            assert (await sandbox.exec(["sleep", "0.6"])).ok

    play(tier, scene)


@every_tier
def test_a_sandbox_that_can_not_be_started_leaves_nothing(tier: str, play: Callable[[str, Scene], None]) -> None:
    async def scene(broker: Broker) -> None:
        before = len(os.listdir(f"/proc/{broker.pid}/fd"))
        for _ in range(3):
            with pytest.raises(InfraError, match="limit wall"):
                await broker._ask("start", kind="episode", limits={"wall": -1})
            with pytest.raises(InfraError, match=r"(?s)a sandbox did not start: .*nonsense"):
                await Keeper.open(broker, "nonsense", SMALL)
        for _ in range(100):
            if not totals.below(broker.pid, totals.processes()):
                break
            await asyncio.sleep(0.02)
        assert len(os.listdir(f"/proc/{broker.pid}/fd")) <= before

    play(tier, scene)


@every_tier
def test_a_grader_call_says_whose_fault_it_was(tier: str, play: Callable[[str, Scene], None]) -> None:
    graded: dict[str, tuple[type, str | float]] = {
        "def grade(s, i): return 0.25 if s['a'] == i['b'] else 0": (Graded, 0.25),
        "def grade(s, i): return 1": (Graded, 1.0),
        "def grade(s, i): return 2": (GraderError, "out_of_range"),
        "def grade(s, i): return '1'": (GraderError, "no_number"),
        "def grade(s, i): return float('nan')": (GraderError, "not_finite"),
        "def grade(s, i: x": (GraderError, "syntax"),
        "grade = 5": (GraderError, "no_function"),
        "def grade(s, i): return s['nothing']": (GraderError, "raised"),
        "import os\ndef grade(s, i): os._exit(0)": (GraderError, "no_result"),
        "def grade(s, i): bytearray(1 << 40)": (PolicyError, "memory"),
        "import time\ndef grade(s, i): time.sleep(60)": (PolicyError, "timeout"),
        "x" * 300_000: (GraderError, "bad_source"),
    }

    async def scene(broker: Broker) -> None:
        graders = Graders(broker, Limits(wall=0.5, memory=256 << 20), 2)
        for source, (kind, said) in graded.items():
            outcome = await graders.grade(source, {"a": 1}, {"b": 1})
            assert type(outcome) is kind, outcome
            assert (outcome.value if isinstance(outcome, Graded) else outcome.kind) == said  # type: ignore[union-attr]
        outcome = await graders.grade("def grade(s, i):\n print('seen')\n return 1", {}, {})
        assert isinstance(outcome, Graded) and outcome.log == "seen\n"
        assert isinstance(await graders.grade("", object(), {}), GraderError)
        await graders.close()

    play(tier, scene)


@every_tier
def test_when_the_broker_is_killed_that_is_the_machinerys_fault(tier: str) -> None:
    async def scene() -> None:
        broker = Broker(doctor.prepare(tier, SandboxSettings()))
        await broker.start()
        sandbox = Sandbox(await Keeper.open(broker, "episode", SMALL))
        graders = Graders(broker, SMALL, 1)
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(InfraError):
            await sandbox.exec(["sleep", "3"])
            await sandbox.exec(["true"])
            await Keeper.open(broker, "episode", SMALL)
        assert isinstance(await graders.grade("def grade(s, i): return 1", {}, {}), InfraError)
        await broker.close()
        assert broker.runtime is not None and not Path(broker.runtime).exists()

    asyncio.run(asyncio.wait_for(scene(), 60))


@pytest.mark.skipif(bool(missing("bwrap") and missing("landlock")), reason="no tier can run here")
def test_sandboxes_are_probed_used_and_recorded() -> None:
    async def scene() -> None:
        async with Sandboxes(SandboxSettings(limits=SMALL), standby=1) as sandboxes:
            async with sandboxes.episode(files={"a.py": "print(6 * 7)"}) as sandbox:
                result = await sandbox.exec(["python3", "a.py"])
            source = "def grade(sample, item): return float(sample['output'].strip() == item['answer'])"
            outcome = await sandboxes.grade(source, {"output": result.stdout.decode()}, {"answer": "42"})
            assert isinstance(outcome, Graded) and outcome.value == 1.0
            record = sandboxes.record()
            assert record["tier"] in ("bwrap", "landlock") and all(record["holds"].values()) and record["versions"]
            with pytest.raises(PolicyError):
                await sandboxes.open(files={"../a": ""})
            sandboxes._broken = "the sandboxes no longer hold"
            with pytest.raises(InfraError, match="no longer hold"):
                await sandboxes.open()
            assert isinstance(await sandboxes.grade("", {}, {}), InfraError)

    asyncio.run(asyncio.wait_for(scene(), 90))


def test_a_property_that_no_longer_holds_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def examine(broker: Broker) -> list[Verdict]:
        return [Verdict(name="no_network", holds=False, detail="possible: tcp")]

    async def scene() -> None:
        sandboxes = Sandboxes(SandboxSettings(tier="unsafe", reason="a test of what comes around it"))
        async with sandboxes:
            await sandboxes._watch()
            with pytest.raises(InfraError, match=r"no longer hold .no_network: possible: tcp"):
                await sandboxes.open()

    monkeypatch.setattr(pool, "PROBE_EVERY", 0)
    monkeypatch.setattr(pool, "examine", examine)
    asyncio.run(asyncio.wait_for(scene(), 60))


def test_unsafe_says_so_and_is_recorded(capfd: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        async with Sandboxes(SandboxSettings(tier="unsafe", reason="nothing else runs here")) as sandboxes:
            async with sandboxes.episode(files={"a": "x"}) as sandbox:
                assert (await sandbox.exec(["cat", "a"])).stdout == b"x"
                assert (await sandbox.exec(["sleep", "9"], wall=0.2)).ended == "timeout"
            assert sandboxes.record()["reason"] == "nothing else runs here"
            outcome = await sandboxes.grade("def grade(s, i): return 1", {}, {})
            assert isinstance(outcome, Graded)

    asyncio.run(asyncio.wait_for(scene(), 60))
    assert "sandbox: UNSAFE, code runs unprotected as this user: nothing else runs here" in capfd.readouterr().err


@pytest.mark.parametrize("options", [{"tier": "unsafe"}, {"tier": "unsafe", "reason": " "}, {"reason": "because"}])
def test_unsafe_and_its_reason_go_together(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="go together"):
        SandboxSettings.model_validate(options)


def test_where_no_tier_holds_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match=r"no sandbox holds .*bubblewrap is not installed.*apt-get install bubblewrap"):
        asyncio.run(Sandboxes().__aenter__())


@every_tier
def test_a_tier_that_fails_a_probe_is_refused(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def examine(broker: Broker) -> list[Verdict]:
        return [Verdict(name="kill_all", holds=False, detail="something lived on")]

    monkeypatch.setattr(doctor, "examine", examine)
    with pytest.raises(InputError, match=rf"{tier}: does not hold: kill_all .something lived on"):
        asyncio.run(doctor.find_tier(SandboxSettings.model_validate({"tier": tier})))


def test_an_interpreter_that_sandboxes_can_not_run_is_refused() -> None:
    with pytest.raises(InfraError, match=r"no Python 3\.10 or newer that every user may run"):
        doctor.prepare("bwrap" if shutil.which("bwrap") else "unsafe", SandboxSettings(python="/nowhere/python"))


@pytest.mark.parametrize("value", [0, -1, True, "1", float("nan"), float("inf")])
def test_a_limit_is_a_number_more_than_nothing(value: object) -> None:
    with pytest.raises(ValueError, match="limit wall is a number more than 0"):
        Limits(wall=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "no_result"),
        (b'{"score": 1}' + b" " * strict.RESULT, "bad_result"),
        (b'{"score": 1} {"score": 1}', "bad_result"),
        (b'{"score": 1, "score": 1}', "bad_result"),
        (b'{"score": NaN}', "bad_result"),
        (b'{"score": 1e999}', "not_finite"),
        (b'{"score": ' + b"1" * 400 + b"}", "not_finite"),
        (b'{"score": ' + b"1" * 401 + b"}", "bad_result"),
        (b"[" * 60_000, "bad_result"),
        (b'{"score": true}', "no_number"),
        (b'{"score": 1.5}', "out_of_range"),
        (b'{"error": "raised", "detail": "x"}', "raised"),
        (b'{"error": "infra", "detail": "x"}', "bad_result"),
        (b'{"error": "raised"}', "bad_result"),
        (b'{"error": 1, "detail": 2}', "bad_result"),
        (b"\xff", "bad_result"),
    ],
)
def test_a_result_has_one_form(data: bytes, kind: str) -> None:
    with pytest.raises(GraderError) as caught:
        strict.score(data, 0.0, 1.0)
    assert caught.value.kind == kind
    assert strict.score(b' {"score": 0.5}\n', 0.0, 1.0) == 0.5


def verdict(program: bytes, number: int, *arguments: int, arch: int = 0xC000003E) -> int:
    """What the kernel would answer: a small interpreter of cBPF, after seccomp(2) and linux/bpf_common.h."""
    data = struct.pack("IIQ6Q", number, arch, 0, *(arguments + (0,) * (6 - len(arguments))))
    code = [struct.unpack_from("HBBI", program, offset) for offset in range(0, len(program), 8)]
    accumulator = counter = 0
    while True:
        operation, yes, no, k = code[counter]
        counter += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("I", data, k)[0]
            case 0x54:
                accumulator &= k
            case 0x15:
                counter += yes if accumulator == k else no
            case 0x35:
                counter += yes if accumulator >= k else no
            case 0x45:
                counter += yes if accumulator & k else no
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"unknown operation {operation:#x}")


ALLOW, KILL = 0x7FFF0000, 0x80000000


def refused(number: int) -> int:
    return 0x50000 | number


@pytest.mark.parametrize("namespaces", [True, False])
def test_the_filter_decides_as_it_should(namespaces: bool) -> None:
    families = (1, 2, 10) if namespaces else ()
    program = seccomp.program(families, namespaces=namespaces, uncounted_memory=namespaces)
    assert verdict(program, 39) == ALLOW  # getpid
    assert {verdict(program, number) for number in seccomp.DENIED.values()} == {refused(1)}
    assert verdict(program, 39, arch=0x40000003) == KILL  # i386
    assert verdict(program, 0x40000000 + 39) == KILL  # x32
    assert verdict(program, 435) == verdict(program, 470) == verdict(program, 9999) == refused(38)
    assert verdict(program, 56, 17) == ALLOW and verdict(program, 56, 0x10000011) == refused(1)  # clone
    for family in range(64):
        wanted = ALLOW if family in families else refused(97)
        assert verdict(program, 41, family) == wanted
        assert verdict(program, 53, family) == (ALLOW if family == 1 else refused(97))
    assert [verdict(program, 16, 0, request) for request in (0x5401, 0x5412, 0x541C, 0x5423)] == [
        ALLOW,
        *[refused(1)] * 3,
    ]
    outside = {**seccomp.SHARED_IPC, **seccomp.OUTSIDE, **seccomp.UNCOUNTED}
    assert {verdict(program, number) for number in outside.values()} == {ALLOW if namespaces else refused(1)}
    shared, private = verdict(program, 9, 0, 0, 0, 0x21), verdict(program, 9, 0, 0, 0, 0x22)  # mmap
    assert private == ALLOW and shared == (ALLOW if namespaces else refused(1))


def test_a_long_output_keeps_head_and_tail() -> None:
    shown = for_model(b"a" * 600 + b"b" * 600, 1000)
    assert shown == "a" * 500 + "\n[... 200 characters left out ...]\n" + "b" * 500
    assert for_model(b"short \xff\0") == "short \ufffd"


def test_a_terminal_sees_nothing_that_acts() -> None:
    assert for_terminal("plain é漢😀\n\t") == "plain é漢😀\n\t"
    assert for_terminal("\x1b[31m\r\u202e\x07\u200b") == "\\x1b[31m\\r\\u202e\\x07\\u200b"


def test_an_answer_of_another_form_ends_the_sandbox() -> None:
    """A keeper that was taken over can't make more of it than a lost sandbox."""

    class Ended:
        async def stop(self, slot: int) -> None: ...

    async def scene(answer: dict[str, object]) -> None:
        ours, theirs = wire.pair()
        keeper = Keeper(Ended(), 1, ours, SMALL)  # type: ignore[arg-type]
        wire.send(theirs, {"call": 1, **answer})
        with theirs, pytest.raises(InfraError, match="a sandbox was ended"):
            await Sandbox(keeper).exec(["true"])
        assert keeper.closed

    good = {"status": 0, "how": "ended", "reason": "", "cpu": 0.1, "peak": 1, "seconds": 0.1}
    for change in (
        {"status": "0"},
        {"status": True},
        {"status": 1 << 70},
        {"how": "well"},
        {"cpu": float("nan")},
        {"peak": []},
    ):
        asyncio.run(scene({**good, **change}))


@pytest.mark.skipif(missing("bwrap") is not None, reason=f"{missing('bwrap')}")
def test_where_memory_runs_out_a_watcher_ends_every_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process, so that the machine can be made to look full."""
    machine = doctor.prepare("bwrap", SandboxSettings())
    runtime = lay_out(machine.python, machine.tmp)
    ours, theirs = wire.pair()
    orders = {"tier": "bwrap", "layers": sorted(ALL), "python": machine.python, "bwrap": machine.bwrap}
    monkeypatch.setattr(totals, "parents", lambda: None)
    broker = broker_process.Broker(theirs, {**orders, "readable": [], "runtime": runtime})
    try:
        answer, (control,) = broker.start({"kind": "episode", "limits": asdict(SMALL)})
        keeper = socket.socket(fileno=control)
        assert wire.receive(keeper)[0] is not None
        pipe = os.pipe()
        request = {"op": "exec", "argv": ["sleep", "9"], "env": {}, "cwd": ".", "wall": 9.0, "call": 1}
        wire.send(keeper, request, [os.open("/dev/null", os.O_RDONLY), pipe[1], pipe[1]])
        for share, kills in ((0.5, 0), (0.01, 1)):
            monkeypatch.setattr(totals, "spare", lambda share=share: share)
            time.sleep(0.3)
            broker.watch()
            assert broker.slots[answer["slot"]].kills()["memory"] == kills
        ended, _ = wire.receive(keeper)
        assert ended is not None and ended["status"] == -signal.SIGKILL
        keeper.close()
    finally:
        assert broker.close()
        for end in (ours, theirs):
            end.close()


def test_what_is_spare_is_a_share() -> None:
    assert 0 < totals.spare() <= 1


def test_sandboxes_load_no_training_stack() -> None:
    import subprocess

    script = "import sys, envs.sandbox; assert not {'torch', 'transformers', 'vllm', 'trl'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).resolve().parents[2], check=True)
