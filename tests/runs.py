"""Real training runs in processes of their own, to be watched, stopped and killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from rl import exports
from rl.records import Recorded, Run

ROOT = Path(__file__).parents[1]
PATIENCE = 300.0
"""Seconds until a run that does not come to its point has failed."""


def config(model: Path, output_dir: Path, **changes: Any) -> dict[str, Any]:
    """A run of three steps of two groups of two short episodes."""
    trainer = {
        "max_steps": 3,
        "num_generations": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "gradient_checkpointing": False,
        "save_steps": 1,
    }
    tree: dict[str, Any] = {
        "model": str(model),
        "env": {"use": "letters:Letters"},
        "reward": {"vowels": {"use": "letters:vowels"}},
        "output_dir": str(output_dir),
        "rollout": {"turns": 3, "max_tokens": 16},
        "engine": {"max_model_len": 512, "kv_cache_memory_bytes": 1 << 26},
        "lora": {"r": 4, "lora_alpha": 8},
        "evaluate": {"tasks": 3},
        "trainer": trainer | changes.pop("trainer", {}),
    }
    return tree | changes


IN_PROCESS = {"kind": "transformers", "max_model_len": 512, "num_blocks": 32, "max_batch_tokens": 512}
"""An engine without processes, for runs that are about something else. Left to itself its cache takes all memory."""


class Process:
    """`rft train`, in a process group of its own, as a terminal starts it."""

    def __init__(self, tree: dict[str, Any], *options: str, launcher: Sequence[str] = ()) -> None:
        self.run = Path(tree["output_dir"])
        self.before = unowned()
        self.log = self.run.with_name(self.run.name + ".log")
        file = self.run.with_name(self.run.name + ".yaml")
        file.write_text(yaml.safe_dump(tree))
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_WAIT_POLICY": "passive"}
        environment |= {"WANDB_MODE": "offline", MARK: str(self.run)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, "-m", "rl.cli", "train", str(file), *options],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for a moment of the run; fail if it ends before."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert self.process.poll() is None, f"ended early: {self.said}"
            assert time.monotonic() < deadline, f"it did not come to that: {self.said}"
            time.sleep(0.02)

    def ends(self) -> int:
        """Its exit code, and nothing of it is left running or lies in memory."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.gone()
        assert settled(lambda: unowned() <= self.before)
        assert not exports.left(self.run)
        return code

    def signal(self, number: signal.Signals) -> None:
        """To the whole group, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL to the trainer alone; what it started has to notice by itself."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self.gone()

    def gone(self, seconds: float = 30.0) -> None:
        """Wait until nothing that the run started is there."""
        deadline = time.monotonic() + seconds
        while left := descendants(self.run):
            assert time.monotonic() < deadline, f"still running: {left}"
            time.sleep(0.05)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def written(self) -> list[Recorded]:
        return list(Run.read(self.run).episodes())

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The training steps' lines."""
        return [entry for entry in Run.read(self.run).metrics.read() if "loss" in entry]

    @property
    def adapter(self) -> bytes:
        return (self.run / "adapter" / "adapter_model.safetensors").read_bytes()

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return list(Run.read(self.run).ledger.read())


MARK = "TEST_RUN"


def descendants(run: Path) -> list[int]:
    """Processes that were started with a run's mark in their environment, zombies left out."""
    found = []
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if directory.name.isdigit() and f"{MARK}={run}".encode() in (directory / "environ").read_bytes().split(
                b"\0"
            ):
                found.append(int(directory.name))
    return found


def segments(pids: Iterable[int]) -> set[str]:
    """Segments of shared memory that processes have mapped, of the kind by which vLLM's talk to each other."""
    found = set[str]()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            found |= set(re.findall(rf"{exports.MEMORY}/(psm_\w+)", Path(f"/proc/{pid}/maps").read_text()))
    return found


def unowned() -> set[str]:
    """Those that no living process has mapped."""
    living = [int(directory.name) for directory in Path("/proc").iterdir() if directory.name.isdigit()]
    return {path.name for path in exports.MEMORY.glob("psm_*")} - segments(living)


def settled(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether something comes true in time: what a killed process leaves is cleared away by another one."""
    deadline = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held


def places(written: Sequence[Recorded]) -> list[tuple[int, int, int]]:
    return [(r.step, r.position, r.sample) for r in written]
