"""Python graders in a real process: what they may return, and what becomes of those that misbehave."""

import asyncio
import os
import time

import pytest

from envs import InputError
from rewards.graders import Grader, PoolError, Services, UnsafeSubprocess, parse, sample
from rewards.graders.python import Limits, read_result


def source(body):
    return {"type": "python", "name": "p", "source": f"import math, os, sys\ndef grade(sample, item):\n    {body}\n"}


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("return 1", 1.0),
        ("return True", 1.0),
        ("return -0.5", -0.5),
        ("return 5.0", 5.0),
        ("import numpy; return numpy.float32(0.5)", 0.5),
        ("from fractions import Fraction; return Fraction(1, 4)", 0.25),
        ("print('x' * 100); return len(sample['output_text']) / item['n']", 0.75),
        ("import rapidfuzz; return rapidfuzz.fuzz.ratio('a', 'a') / 100", 1.0),
    ],
)
def test_a_number_is_the_score(grade, body, value):
    found = grade(source(body), "yes", {"n": 4})
    assert (found.reward, found.errors) == (value, ())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return float('nan')", "grade returned nan"),
        ("return float('inf')", "grade returned inf"),
        ("return 10 ** 400", "grade returned a number beyond all floats"),
        ("return '1.0'", "grade returned str, not a number"),
        ("return None", "grade returned NoneType, not a number"),
        ("return [1]", "grade returned list, not a number"),
        ("return 1j", "grade returned complex, not a number"),
        ("return 1 / 0", 'File "grader.py", line 3, in grade\nZeroDivisionError: division by zero'),
        ("return item['missing']", "KeyError: 'missing'"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("os._exit(0)", "the grader's process ended with 0 and no score"),
        ("os.kill(os.getpid(), 9)", "the grader's process was ended by SIGKILL"),
        ("return [0] * 10 ** 10", "MemoryError"),
        ("return grade(sample, item)", "RecursionError"),
        ("os.write(int(sys.argv[1]), b'1\\n'); return 0", "did not answer with one line"),
        ("os.write(int(sys.argv[1]), b'{\"value\": 1}\\n'); os._exit(0)", None),
    ],
)
def test_what_is_no_number_is_the_graders_own_error_and_scores_the_error_score(grade, body, said):
    found = grade(source(body), "yes", error_score=-1.0)
    if said is None:  # a grader may forge its own score: that is why a policy's code has no place in it
        assert found.reward == 1.0
        return
    assert found.reward == -1.0
    assert [error.flag for error in found.errors] == ["python_grader_runtime_error"]
    assert said in found.errors[0].said
    assert found.error is None, "what a policy may have provoked is a score"


def test_a_traceback_shows_the_graders_lines_alone(grade):
    assert "child.py" not in grade(source("return 1 / 0"), "").errors[0].said


def run(pool, tree, said="x", item=None):
    return asyncio.run(Grader(parse(tree), services=Services(pool=pool)).grade(item or {}, sample.of_text(said)))


def test_a_grader_that_sleeps_is_ended_at_its_limit():
    started = time.perf_counter()
    found = run(UnsafeSubprocess("a test", limits=Limits(seconds=0.5)), source("import time; time.sleep(60)"))
    assert "grade took longer than 0.5 seconds" in found.errors[0].said
    assert time.perf_counter() - started < 10


def test_a_grader_that_prints_100_mb_is_scored_and_little_is_kept():
    found = run(UnsafeSubprocess("a test", limits=Limits(output=1000)), source("print('x' * 100_000_000); return 1"))
    assert (found.reward, len(found.output)) == (1.0, 1000)


@pytest.mark.parametrize(
    "start",
    ["import subprocess; subprocess.Popen(['sleep', '30'])", "os.fork() or os.execvp('sleep', ['sleep', '30'])"],
)
def test_what_a_grader_leaves_running_is_ended_and_holds_nobody_up(pool, start):
    started = time.perf_counter()
    assert run(pool, source(f"{start}; return 1")).reward == 1.0
    assert time.perf_counter() - started < 10


def test_a_grader_can_write_no_file_beyond_its_limit():
    pool = UnsafeSubprocess("a test", limits=Limits(disk=1000))
    found = run(pool, source("f = open('x', 'wb'); f.write(b'x' * 5000); f.close(); return 1"))
    assert found.reward == 0.0
    assert "File too large" in found.errors[0].said


def test_keys_in_the_environment_are_not_the_graders_to_read(pool, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert run(pool, source("return float('OPENAI_API_KEY' in os.environ)")).reward == 0.0


def test_each_call_has_a_place_of_its_own_that_is_gone_afterwards(pool):
    body = "open('x', 'a').write('x'); print(os.getcwd()); return len(open('x').read())"
    first, second = run(pool, source(body)), run(pool, source(body))
    assert (first.reward, second.reward) == (1.0, 1.0)
    assert not os.path.exists(first.output.strip())


def test_a_request_larger_than_a_pipe_arrives(pool):
    assert run(pool, source("return len(sample['output_text'])"), "x" * 3_000_000).reward == 3_000_000


def test_a_sample_can_be_large_and_never_be_read(pool):
    assert run(pool, source("return 1"), "x" * 3_000_000).reward == 1.0


def test_many_are_graded_at_once(pool):
    async def many():
        made = Grader(parse(source("return len(sample['output_text'])")), services=Services(pool=pool))
        return await asyncio.gather(*(made.grade({}, sample.of_text("x" * n)) for n in range(12)))

    assert [found.reward for found in asyncio.run(many())] == list(range(12))


def test_a_call_that_is_cancelled_leaves_no_process(pool):
    async def cancelled():
        task = asyncio.ensure_future(pool.grade("def grade(s, i):\n import time; time.sleep(77)", sample={}, item={}))
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())
    children = [p for p in os.listdir("/proc") if p.isdecimal() and _parent(p) == os.getpid()]
    assert [p for p in children if "child.py" in _command(p)] == []


def _parent(pid):
    try:
        return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _command(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read()
    except OSError:
        return ""


@pytest.mark.parametrize(
    "line",
    [b"", b"1\n", b"{}\n", b'{"value": 1}', b'{"value": 1}\n{"value": 1}\n', b'{"value": true}\n', b'{"value": NaN}\n',
     b'{"value": 1e999}\n', b'{"value": "1"}\n', b'{"value": 1, "error": "x"}\n', b'{"error": 1}\n',
     b"[" * 9000 + b"\n", b'{"value": 1' + b"0" * 70_000 + b"}\n", b"\xff\n"],
)  # fmt: skip
def test_an_answer_that_is_not_just_a_value_or_an_error_is_none(line):
    value, error = read_result(line)
    assert value is None
    assert "did not answer" in error


def test_without_a_sandbox_a_reason_is_asked_for():
    with pytest.raises(InputError, match="need a reason"):
        UnsafeSubprocess(" ")
    with pytest.raises(InputError, match="needs somewhere to run: a sandboxed pool, or unsafe_python with the reason"):
        Grader(parse(source("return 1")))


def test_a_pool_that_can_not_run_is_nobodys_score():
    class Broken:
        async def grade(self, source, *, sample, item):
            raise PoolError("no slot")

    found = run(Broken(), source("return 1"))
    assert found.errors[0].flag == "python_grader_server_error"
    assert found.error == "python_grader_server_error: no slot"
