"""Python graders where they run unless told otherwise."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from attacks.ground import missing
from rewards.graders import Grader, Ran, SandboxPool, Services, parse
from rewards.graders.sample import of_text
from rewards.spec import build

pytestmark = pytest.mark.skipif(bool(missing("bwrap") and missing("landlock")), reason="no tier can run here")


def grader(body: str) -> str:
    return "def grade(sample, item):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def ran(*bodies: str) -> list[Ran]:
    async def all_of_them() -> list[Ran]:
        pool = SandboxPool()
        calls = [pool.grade(grader(body), sample=of_text("four"), item={"n": 2}) for body in bodies]
        return await asyncio.gather(*calls)

    return asyncio.run(all_of_them())


def test_scores_are_numbers_of_any_size_and_what_was_printed_is_kept() -> None:
    large, small = ran("print('seen')\nreturn 40 * item['n']", "return -len(sample['output_text'])")
    assert (large.value, large.output.strip(), large.error) == (80.0, "seen", None)
    assert small.value == -4.0


def test_a_grader_that_fails_says_how() -> None:
    raised, text, long = ran("return 1 / 0", "return 'good'", "import os\nos._exit(0)")
    assert raised.value is None and "ZeroDivisionError" in (raised.error or "")
    assert text.value is None and (text.error or "").startswith("no_number")
    assert long.value is None and (long.error or "").startswith("no_result")


def test_it_sees_neither_this_machine_s_files_nor_its_secrets_nor_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    file, key, net, wrote = ran(
        f"return float(open({str(secret)!r}).read() == 'x')",
        "import os\nreturn float('OPENAI_API_KEY' in os.environ)",
        "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)\nreturn 1.0",
        f"open({str(tmp_path / 'new')!r}, 'w').write('x')\nreturn 1.0",
    )
    assert (file.value, key.value, net.value, wrote.value) == (None, 0.0, None, None)
    assert os.listdir(tmp_path) == ["secret"]


def test_one_call_leaves_nothing_for_the_next() -> None:
    async def twice() -> list[Ran]:
        pool = SandboxPool()
        body = "import os\nseen = float(os.path.exists('/tmp/mark'))\nopen('/tmp/mark', 'w').close()\nreturn seen"
        return [await pool.grade(grader(body), sample=of_text(""), item={}) for _ in range(2)]

    if missing("bwrap"):
        pytest.skip("the paths are of bwrap's")
    assert [(call.value, call.error) for call in asyncio.run(twice())] == [(0.0, None), (0.0, None)]


def test_a_config_s_python_grader_is_sandboxed_and_serves_one_event_loop_after_another(played: Any) -> None:
    tree = {"type": "python", "source": grader("return float(sample['output_text'] == '4')")}
    made = build({"use": "grader", "grader": tree})
    assert [asyncio.run(made(played(text))).value for text in ("4", "5")] == [1.0, 0.0]


def test_a_sample_that_breaks_the_grader_scores_the_error_score() -> None:
    tree = parse({"type": "python", "name": "p", "source": grader("return int(sample['output_text'])")})
    made = Grader(tree, services=Services(pool=SandboxPool()))
    grade = asyncio.run(made.grade({}, of_text("four")))
    assert grade.reward == 0.0 and grade.error is None
    assert [error.flag for error in grade.errors] == ["python_grader_runtime_error"]
