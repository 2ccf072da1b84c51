"""Attacks on the score."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from attacks.catalogue import attack, unexpressed
from attacks.ground import GOOD, Ground
from envs.sandbox import Graded, GraderError, PolicyError

SANDBOX = Path(__file__).resolve().parents[2] / "envs" / "sandbox"


async def _no_score(g: Ground, source: str, *kinds: str) -> None:
    outcome = await g.grade(source, {"answer": "x"}, {"answer": "x"})
    assert isinstance(outcome, GraderError | PolicyError), f"{source!r} gave {outcome!r}"
    assert not kinds or outcome.kind in kinds, f"{source!r} gave {outcome.kind}"


@attack(63)
async def sys_exit(g: Ground) -> None:
    await _no_score(g, "import os\ndef grade(s, i): os._exit(0)", "no_result")
    await _no_score(g, "import sys\ndef grade(s, i): sys.exit(0)", "raised")
    await _no_score(g, "raise SystemExit(0)", "raised")
    await _no_score(
        g, "import os, signal\ndef grade(s, i): os.kill(os.getpid(), signal.SIGKILL) or __import__('time').sleep(9)"
    )


@attack(64)
async def exit0_wrapper(g: Ground) -> None:
    await _no_score(g, "import os\ndef grade(s, i):\n try: raise ValueError\n finally: os._exit(0)", "no_result")
    await _no_score(g, "import atexit, os\natexit.register(os._exit, 0)\ndef grade(s, i): raise ValueError", "raised")


@attack(65)
async def forge_result_fd(g: Ground) -> None:
    forge = "import os\nfor fd in range(1, 200):\n try: os.write(fd, b'{\"score\": 1.0}')\n except OSError: pass\nos._exit(0)"
    result = await g.python(forge)
    outcome = await g.grade(GOOD, {"answer": result.stdout.decode()}, {"answer": "42"})
    assert isinstance(outcome, Graded) and outcome.value == 0.0
    outcome = await g.grade(GOOD, {"answer": '{"score": 1.0}'}, {"answer": "42"})
    assert isinstance(outcome, Graded) and outcome.value == 0.0
    await _no_score(g, "import os\ndef grade(s, i):\n os.write(3, b'{\"score\": 1.0}')\n return 0.0", "bad_result")


@attack(66)
async def late_daemon_rewrite(g: Ground) -> None:
    async with g.box() as box:
        rewrite = 'while true; do echo 1.0 > reward.txt; echo 1.0 > "$TMPDIR/reward.txt"; sleep 0.01; done'
        await box.sh(f"(setsid bash -c '{rewrite}' >/dev/null 2>&1 &)")
        outcome = await g.grade(GOOD, {"answer": "no"}, {"answer": "42"})
        assert isinstance(outcome, Graded) and outcome.value == 0.0
    async with g.box() as verifier:
        assert (await verifier.sh('sleep 0.2; ls -A . "$TMPDIR"')).stdout.split() in (
            [b".:"],
            [b".:", b"/tmp:"],
        ) or not g.inside
        assert b"reward" not in (await verifier.sh('ls -A . "$TMPDIR"')).stdout


@attack(67)
async def preseed_reward(g: Ground) -> None:
    async with g.box() as box:
        await box.sh(
            "mkdir -p /logs/verifier logs; echo 1 > /logs/verifier/reward.txt; echo 1 > logs/reward.txt; echo 1 > result.json"
        )
    async with g.box() as verifier:
        result = await verifier.sh("ls -A; ls -d /logs")
        assert result.stdout == b"" and not result.ok, result


@attack(68)
async def monkeypatch_grader(g: Ground) -> None:
    evil = "import builtins, json, math\njson.dumps = lambda *a, **k: '{\"score\": 1.0}'\nbuiltins.abs = lambda x: 0\nmath.isclose = lambda *a: True\n"
    async with g.box() as box:
        for name in ("conftest.py", "sitecustomize.py", "usercustomize.py", "json.py"):
            await box.write(name, evil)
        await box.sh(
            "python3 conftest.py; mkdir -p $HOME/.local/lib/python3.11/site-packages && cp sitecustomize.py $HOME/.local/lib/python3.11/site-packages/"
        )
        outcome = await g.grade(GOOD, {"answer": "no"}, {"answer": "42"})
        assert isinstance(outcome, Graded) and outcome.value == 0.0
    await g.grade(evil + "def grade(s, i): return 0.0")
    await g.works()


@attack(69)
async def always_equal(g: Ground) -> None:
    await _no_score(g, "class F(float):\n def __float__(self): return 1e9\ndef grade(s, i): return F(0.2)", "no_number")
    for body in (
        "def __float__(self): return 1.0",
        "def __eq__(self, o): return True",
        "def __bool__(self): raise OSError",
    ):
        await _no_score(g, f"class E:\n {body}\ndef grade(s, i): return E()", "no_number")
    await _no_score(
        g,
        "class M(type):\n __module__ = 'numpy'\nclass N(metaclass=M):\n __module__ = 'numpy'\n def item(self): return 'x'\ndef grade(s, i): return N()",
    )

    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

    outcome = await g.grade(GOOD, {"answer": Equal()}, {"answer": "42"})
    assert isinstance(outcome, GraderError) and outcome.kind == "bad_sample"


@attack(70)
async def result_types(g: Ground) -> None:
    for value in ("float('nan')", "float('inf')", "-float('inf')", "True", "None", "'1.0'", "[1]", "10 ** 400", "1e999", "1j",
                  "__import__('decimal').Decimal(1)", "b'1'", "{}", "(1,)"):  # fmt: skip
        await _no_score(g, f"def grade(s, i): return {value}", "no_number", "not_finite")
    outcome = await g.grade("def grade(s, i): return -0.0")
    assert isinstance(outcome, Graded) and outcome.value == 0.0


@attack(71)
async def result_json_bombs(g: Ground) -> None:
    bombs = {
        "100 MB": "b'{\"score\": 1' + b' ' * 100_000_000 + b'}'",
        "deep": "b'[' * 60_000",
        "deep object": "b'{\"score\":' * 7_000 + b'1' + b'}' * 7_000",
        "duplicate": 'b\'{"score": 0, "score": 1}\'',
        "surrogate": 'b\'{"score": "\\\\ud800"}\'',
        "trailing": "b'{\"score\": 1} x'",
        "two": 'b\'{"score": 0}{"score": 1}\'',
        "lines": 'b\'{"score": 0}\\n{"score": 1}\\n\'',
        "digits": "b'{\"score\": ' + b'1' * 5000 + b'}'",
        "nan": "b'{\"score\": NaN}'",
        "infinite": "b'{\"score\": 1e999}'",
        "text": 'b\'{"score": "1"}\'',
        "true": "b'{\"score\": true}'",
        "more": 'b\'{"score": 1, "pass": true}\'',
        "utf-16": "'{\"score\": 1}'.encode('utf-16')",
        "list": "b'[1]'",
        "number": "b'1'",
    }
    for name, data in bombs.items():
        source = (
            f"import os\ndef grade(s, i):\n data = {data}\n while data: data = data[os.write(3, data):]\n os._exit(0)"
        )
        outcome = await g.grade(source)
        assert isinstance(outcome, GraderError | PolicyError), f"{name} gave {outcome!r}"


@attack(72)
async def pickle_payload(g: Ground) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemError('unpickled')",))

    payload = repr(pickle.dumps(Bomb()))
    await _no_score(g, f"import os\ndef grade(s, i):\n os.write(3, {payload})\n os._exit(0)", "bad_result")
    unsafe = re.compile(r"\b(pickle|marshal|shelve|dill|torch\.load|yaml\.load)\b|(?<![\w.])eval\(")
    for file in SANDBOX.rglob("*.py"):
        assert not unsafe.search(file.read_text()), f"{file.name} reads what may be code"


@attack(73)
async def range_escape(g: Ground) -> None:
    for value in ("1e30", "-1e30", "1.0000001", "-1e-9", "2"):
        await _no_score(g, f"def grade(s, i): return {value}", "out_of_range")
    outcome = await g.grade("def grade(s, i): return 2", high=2.0)
    assert isinstance(outcome, Graded) and outcome.value == 2.0


@attack(74)
async def grader_crash_as_escape_hatch(g: Ground) -> None:
    """A sample that breaks its grader is never the machinery's fault, which would leave it out."""
    source = "import os, re\ndef grade(s, i): return float(eval(s))"
    for sample in ("1 / 0", "re.match('(a+)+$', 'a' * 40 + 'b') or 1", "'x' * 10 ** 10", "os._exit(0)", "os.kill(-1, 9)",
                   "os.kill(1, 9)", "print('x' * 10 ** 7) or 1", "os.abort()", "[os.fork() for _ in range(99)] and 1"):  # fmt: skip
        outcome = await g.grade(source, sample)
        assert not isinstance(outcome, Graded) or sample == "os.kill(-1, 9)", (sample, outcome)
        assert isinstance(outcome, GraderError | PolicyError | Graded), (sample, outcome)


@attack(75)
async def test_overwrite(g: Ground) -> None:
    pristine = "import solution\nassert solution.f(2) == 4\n"
    async with g.box() as box:
        await box.write("tests/test_solution.py", pristine)
        await box.write("solution.py", "def f(x): return 0")
        await box.sh("echo 'assert True' > tests/test_solution.py; echo 'import os; os._exit(0)' > sitecustomize.py")
        artifact = await box.read("solution.py")
    async with g.box() as verifier:
        await verifier.write("solution.py", artifact)
        await verifier.write("tests/test_solution.py", pristine)
        assert not (await verifier.sh("PYTHONPATH=. python3 tests/test_solution.py")).ok


@attack(76)
async def timing_reward(g: Ground) -> None:
    async with g.box() as box:
        burning = asyncio.ensure_future(box.sh("while true; do :; done", wall=2.0))
        outcomes = [await g.grade(GOOD, {"answer": "42"}, {"answer": "42"}) for _ in range(5)]
        assert [getattr(outcome, "value", None) for outcome in outcomes] == [1.0] * 5
        await burning


@attack(77)
async def nondeterminism(g: Ground) -> None:
    source = "def grade(s, i): return float(hash('a') % 1000 + hash(frozenset('abcdef')) % 1000)"
    outcomes = [await g.grade(source, high=1e6) for _ in range(3)]
    assert len({outcome.value for outcome in outcomes if isinstance(outcome, Graded)}) == 1
    await g.graders.close()
    again = await g.grade(source, high=1e6)
    assert isinstance(again, Graded) and again.value == outcomes[0].value  # type: ignore[union-attr]


unexpressed(78, "judge_injection", "there is no model that judges")
