"""How many samples graders score in a second: python graders, each call isolated from the others, and string graders.

    python scripts/bench/graders.py [--samples 2000] [--json FILE]

`string_per_s` is a multi grader of string_check and fuzzy_match on samples of 400 characters, on one core;
`python_per_s` a python grader that reads sample and item, every call in a sandbox of its own, on all cores. Each is the
median of five rounds after one that is not counted; `empty_python_per_s` is what the machine manages when each call is
nothing but a Python interpreter that starts and ends.

`http_per_s` and `http_p99_ms` are requests that `rft serve` answers while it trains a job with the embedded policy,
half of them the string grader over HTTP, half reading events; client, server and training share the machine.
They need the training stack and some minutes; `--no-http` leaves them out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from serving import while_training

from rewards.graders import Grader, SandboxPool, Services, parse
from rewards.graders.rows import Row, grade_all
from rewards.graders.sample import of_text

ROUNDS = 5
TEXT = "{{ sample.output_text }}"
STRING = {
    "type": "multi",
    "graders": {
        "exact": {"type": "string_check", "input": TEXT, "reference": "{{ item.answer }}", "operation": "eq"},
        "close": {
            "type": "text_similarity",
            "input": TEXT,
            "reference": "{{ item.answer }}",
            "evaluation_metric": "fuzzy_match",
        },
    },
    "calculate_output": "0.9 * exact + 0.1 * close",
}
SOURCE = """
def grade(sample, item):
    said, wanted = set(sample["output_text"].split()), set(item["answer"].split())
    return len(said & wanted) / max(len(wanted), 1)
"""


def made(samples: int, seed: int = 0) -> list[Row]:
    """Rows with an answer and a sample of about 400 characters, half of their words alike."""
    dice = random.Random(seed)
    words = ["".join(dice.choices("abcdefghij", k=6)) for _ in range(200)]
    rows = []
    for i in range(samples):
        answer = dice.choices(words, k=57)
        said = [word if dice.random() < 0.5 else dice.choice(words) for word in answer]
        rows.append(Row(where=f"row {i}", item={"answer": " ".join(answer)}, sample=of_text(" ".join(said))))
    return rows


async def per_second(work: Callable[[], Awaitable[int]]) -> float:
    """The median rate of the rounds; `work` says how many things it did."""
    await work()
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        done = await work()
        rates.append(done / (time.perf_counter() - started))
    return statistics.median(rates)


async def measure(samples: int) -> dict[str, float]:
    rows = made(samples)
    few = rows[: max(20, samples // 20)]
    cores = os.cpu_count() or 1
    string = Grader(parse(STRING))
    python = Grader(parse({"type": "python", "source": SOURCE}), services=Services(pool=SandboxPool()))
    slots = asyncio.Semaphore(cores)

    async def graded(grader: Grader, own: list[Row]) -> int:
        grades = await grade_all(grader, own)
        assert not any(grade.errors for grade in grades), "the benchmark must measure grading, not failing"
        return len(grades)

    async def nothing() -> None:
        async with slots:
            process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", "pass")
            await process.wait()

    async def empty() -> int:
        await asyncio.gather(*(nothing() for _ in few))
        return len(few)

    return {
        "string_per_s": await per_second(lambda: graded(string, rows)),
        "python_per_s": await per_second(lambda: graded(python, few)),
        "empty_python_per_s": await per_second(empty),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--no-http", action="store_true", help="leave out the server")
    arguments = parser.parse_args()
    numbers = asyncio.run(measure(arguments.samples))
    if not arguments.no_http:
        row = made(1)[0]
        numbers |= while_training(STRING, row.item, row.sample["output_text"], ROUNDS)
    for name, value in numbers.items():
        print(f"{name:>18}  {value:,.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
