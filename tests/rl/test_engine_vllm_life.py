"""How the vLLM engine starts, dies and leaves; and that `deterministic` holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from rl.engines import EngineError, Sampled, Sampling
from rl.exports import MEMORY
from runs import segments, settled, unowned

pytestmark = pytest.mark.stack

REQUESTS = 16


def children(pid: int) -> set[int]:
    """Living descendants of a process, without Python's own resource tracker: that one stays to the end."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # ended while we looked
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= new
    return found - titled(found, "resource_tracker")


def titled(pids: set[int], word: str) -> set[int]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # ended while we looked
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def inherited() -> dict[str, str]:
    """What a process started by ours would be changed by."""
    return {name: os.environ[name] for name in os.environ if name.startswith(("VLLM", "LD_", "OMP", "NUMEXPR"))}


def test_deterministic_turns_do_not_depend_on_arrival_and_closing_leaves_nothing(run: Any, made_model: Any) -> None:
    from rl.engines.vllm import VllmEngine

    shared, environment = unowned(), inherited()
    before = children(os.getpid())
    engine = run(VllmEngine.open(model=made_model("qwen3"), dtype="float32", max_model_len=512, deterministic=True))
    assert inherited() == environment
    started = children(os.getpid()) - before
    assert titled(started, "EngineCore") and not titled(started, "Worker")  # which the engine would wait for, spinning
    rng = random.Random(0)
    prompts = [[rng.randrange(500) for _ in range(rng.randrange(1, 200))] for _ in range(REQUESTS)]

    async def play(order: list[int], delay: float) -> dict[int, Sampled]:
        async def one(i: int) -> Sampled:
            await asyncio.sleep(rng.random() * delay)
            return await engine.generate(prompts[i], Sampling(max_tokens=10 + 4 * i), stop_ids=[], seed=i)

        return dict(zip(order, await asyncio.gather(*map(one, order)), strict=True))

    order = list(range(REQUESTS))
    first = run(play(order, 0.0))
    for delay in (0.02, 0.3):
        rng.shuffle(order)
        assert run(play(order, delay)) == first
    with pytest.raises(ValueError, match="seed"):
        run(engine.generate([1], Sampling(), stop_ids=[]))
    run(engine.close())
    run(engine.close())
    assert settled(lambda: not started & children(os.getpid()))
    assert settled(lambda: unowned() <= shared)
    with pytest.raises(EngineError):
        run(engine.generate([1], Sampling(), stop_ids=[], seed=0))


@pytest.mark.parametrize("workers", [False, True], ids=["alone", "with a worker process"])
def test_a_killed_engine_fails_its_turns_at_once_and_leaves_nothing(workers: bool, run: Any, made_model: Any) -> None:
    from rl.engines.vllm import VllmEngine

    before = children(os.getpid())
    arguments: dict[str, Any] = {"distributed_executor_backend": "mp"} if workers else {}
    engine = run(VllmEngine.open(model=made_model("qwen3"), dtype="float32", max_model_len=1024, engine_args=arguments))
    started = children(os.getpid()) - before
    assert bool(titled(started, "Worker")) is workers
    shared = segments(started)
    assert bool(shared) is workers

    async def killed() -> float:
        turn = asyncio.ensure_future(engine.generate([1], Sampling(max_tokens=1000), stop_ids=[]))
        await asyncio.sleep(0.3)
        (core,) = titled(started, "EngineCore")
        os.kill(core, signal.SIGKILL)
        at = time.monotonic()
        with pytest.raises(EngineError):
            await turn
        return time.monotonic() - at

    assert run(killed()) < 10
    assert not run(engine.healthy())
    with pytest.raises(EngineError):
        run(engine.generate([1], Sampling(), stop_ids=[]))
    run(engine.close())
    assert settled(lambda: not started & children(os.getpid()))
    assert not shared & set(os.listdir(MEMORY))


SCRIPT = """
import asyncio, sys, time
from rl.engines.vllm import VllmEngine

async def main():
    engine = await VllmEngine.open(model=sys.argv[1], dtype="float32", max_model_len=512)
    print("open", flush=True)
    time.sleep(600)

asyncio.run(main())  # no __main__ guard: spawned processes must not come by here
"""


def test_a_killed_trainer_takes_its_engine_along(made_model: Any, tmp_path: Path) -> None:
    shared = unowned()
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    sockets = tempfile.mkdtemp(dir="/tmp")  # shorter than tmp_path: there is not much room in a socket's name
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "VLLM_RPC_BASE_PATH": sockets}
    with subprocess.Popen(
        [sys.executable, script, made_model("qwen3")], stdout=subprocess.PIPE, env=environment, text=True
    ) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "open\n"
        started = children(trainer.pid)
        assert titled(started, "EngineCore")
        trainer.kill()
    assert settled(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    assert settled(lambda: unowned() <= shared)
    os.rmdir(sockets)  # which is empty
