"""Ctrl-C, once and twice, and what clusters send instead."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1200)]
pytest.importorskip("torch")

from rl import checkpoint, tiny  # noqa: E402
from runs import Process, config, places  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.random_model(tmp_path_factory.mktemp("interrupt") / "base", seed=1)


def in_rollout(run: Process) -> None:
    run.until(lambda: (run.run / "episodes.jsonl").exists() and bool(run.written))


def test_once_finishes_the_step_and_saves_and_a_resume_goes_on(base: Path, tmp_path: Path) -> None:
    slow = {"use": "letters:Letters", "options": {"hold": 3.0}}
    tree = config(base, tmp_path / "run", env=slow, trainer={"save_steps": 100})
    run = Process(tree)
    in_rollout(run)
    run.signal(signal.SIGINT)
    assert run.ends() == 130, run.said
    assert "finishing this step" in run.said
    assert len(run.metrics) == 1
    assert checkpoint.newest(run.run) == checkpoint.path(run.run, 1)
    assert run.ledger[-1]["kind"] == "interrupted"
    run = Process(tree, "--resume")
    run.until(lambda: len(run.written) > 4)
    run.process.send_signal(signal.SIGTERM)  # to the trainer alone: sent to all, it ends the engine too
    assert run.ends() == 130, run.said
    assert len(run.metrics) == 2
    run = Process(tree, "--resume")
    assert run.ends() == 0, run.said
    assert sorted(places(run.written)) == [(s, 2 * s + g, k) for s in range(3) for g in range(2) for k in range(2)]
    assert [line["step"] for line in run.metrics] == [1, 2, 3]


def test_twice_ends_at_once_and_leaves_no_process(base: Path, tmp_path: Path) -> None:
    run = Process(config(base, tmp_path / "run", env={"use": "letters:Letters", "options": {"hold": 500.0}}))
    in_rollout(run)
    run.signal(signal.SIGINT)
    run.signal(signal.SIGINT)  # as a launcher would, passing on what its processes have heard themselves
    run.until(lambda: "finishing this step" in run.said)
    time.sleep(1.5)
    assert run.process.poll() is None
    started = time.monotonic()
    run.signal(signal.SIGINT)
    assert run.ends() == 130, run.said
    assert time.monotonic() - started < 30
