"""How fast the sandboxes are, beside what isolation costs at the least.

    python scripts/bench/sandbox.py [--json FILE] [--tier bwrap|landlock]

In milliseconds over CALLS calls, one after the other, in rounds that take turns:

floor         `/usr/bin/true` in a fresh bwrap with every namespace: start it and wait for it
exec          a command in the warm sandbox of an episode
grader_call   a grader call, in namespaces of its own, from the pool

and then grader calls a second with as many at once as there are cores, and EPISODES episodes at once that each start a
sandbox, run COMMANDS commands in it and close it. The minimum is the cost; the median and the 99th percentile are what
this machine makes of it while it does other things as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

from envs.sandbox import Graded, Sandboxes, SandboxSettings
from envs.sandbox.inside import totals
from envs.sandbox.inside.slots import LAST_UID

CALLS = 200
ROUND = 20
EPISODES = 100
COMMANDS = 5
GRADER = "def grade(sample, item):\n    return 1.0 if sample['output_text'] == item['answer'] else 0.0\n"
SAMPLE, ITEM = {"output_text": "x" * 2000}, {"answer": "x" * 2000}
FLOOR = (
    *(
        "bwrap",
        "--unshare-user",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup",
    ),
    *(
        "--die-with-parent",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
    ),
    *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--cap-drop", "ALL", "/usr/bin/true"),
)


async def floor() -> None:
    user: dict[str, Any] = {"user": LAST_UID, "group": LAST_UID, "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(FLOOR, stdin=subprocess.DEVNULL, check=True, **user)


async def timed(way: Callable[[], Awaitable[None]]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    await way()
    return (time.perf_counter() - start) * 1000


async def latencies(sandboxes: Sandboxes) -> dict[str, list[float]]:
    """Milliseconds of every call, by way."""
    async with sandboxes.episode() as sandbox:

        async def exec() -> None:
            assert (await sandbox.exec(["/usr/bin/true"])).ok

        async def grader_call() -> None:
            await grade(sandboxes)

        ways = {"floor": floor, "exec": exec, "grader_call": grader_call}
        took: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            await way()
        for _ in range(CALLS // ROUND):
            for name, way in ways.items():
                took[name] += [await timed(way) for _ in range(ROUND)]
    return took


async def grade(sandboxes: Sandboxes) -> None:
    outcome = await sandboxes.grade(GRADER, SAMPLE, ITEM)
    assert isinstance(outcome, Graded) and outcome.value == 1.0, outcome


async def throughput(sandboxes: Sandboxes) -> float:
    """Grader calls a second, with the pool full."""
    await asyncio.gather(*(grade(sandboxes) for _ in range(ROUND)))
    start = time.perf_counter()
    await asyncio.gather(*(grade(sandboxes) for _ in range(2 * CALLS)))
    return 2 * CALLS / (time.perf_counter() - start)


async def episodes(sandboxes: Sandboxes) -> float:
    """Seconds for all of them, at once; afterwards nothing is left."""

    async def episode(number: int) -> None:
        async with sandboxes.episode() as sandbox:
            for command in range(COMMANDS):
                result = await sandbox.exec(["/bin/sh", "-c", f"echo {number} {command} >> log; sleep 60 & cat log"])
                assert result.stdout.count(b"\n") == command + 1 and result.ok, result

    start = time.perf_counter()
    await asyncio.gather(*(episode(number) for number in range(EPISODES)))
    return time.perf_counter() - start


def left(broker: int) -> list[int]:
    """What runs below a broker, dead or alive."""
    return totals.below(broker, totals.processes())


async def measure(tier: Literal["auto", "bwrap", "landlock"]) -> dict[str, Any]:
    async with Sandboxes(SandboxSettings(tier=tier)) as sandboxes:
        took = await latencies(sandboxes)
        per_second = await throughput(sandboxes)
    async with Sandboxes(SandboxSettings(tier=tier), standby=0) as sandboxes:
        seconds = await episodes(sandboxes)
        runtime = Path(sandboxes.broker.runtime or "")
        await asyncio.sleep(0.2)
        assert not left(sandboxes.broker.pid), "a sandbox left processes"
        assert not list(runtime.glob("slot-*")), "a sandbox left files"
        record = sandboxes.record()
    assert not runtime.exists(), "the broker left files"
    results: dict[str, Any] = {"tier": record["tier"], "versions": record["versions"]}
    for name, times in took.items():
        results[f"{name}_ms"] = statistics.median(times)
        results[f"{name}_min_ms"] = min(times)
        results[f"{name}_p99_ms"] = statistics.quantiles(times, n=100)[98]
    return results | {"grader_calls_per_s": per_second, "episodes": EPISODES, "episodes_s": seconds}


def table(results: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{'ms':12} {'min':>7} {'median':>7} {'p99':>7}"]
    for name in ("floor", "exec", "grader_call"):
        numbers = [results[f"{name}{which}_ms"] for which in ("_min", "", "_p99")]
        lines.append(f"{name:12} " + " ".join(f"{number:7.1f}" for number in numbers))
    lines.append(f"tier {results['tier']}: {results['grader_calls_per_s']:.0f} grader calls a second")
    each = f"{EPISODES} episodes of {COMMANDS} commands at once: {results['episodes_s']:.1f} s, nothing left"
    return "\n".join([*lines, each])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--tier", choices=("auto", "bwrap", "landlock"), default="auto")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.tier))
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
