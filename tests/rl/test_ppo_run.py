"""PPO as a run: from its config to its adapter, killed and resumed, and in two processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(2400)]
pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from ranks import update  # noqa: E402
from rl import checkpoint, tiny  # noqa: E402
from runs import ROOT, Process, config  # noqa: E402

PPO = {"algorithm": "ppo", "credit": {"name": "gae_turn"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.random_model(tmp_path_factory.mktemp("ppo_run") / "base", seed=1)


def test_a_run_that_was_killed_ends_with_the_actor_and_the_critic_of_one_that_was_not(
    base: Path, tmp_path: Path
) -> None:
    engine = {"max_model_len": 512, "kv_cache_memory_bytes": 1 << 26, "dtype": "float32"}
    changes = {**PPO, "deterministic": True, "engine": engine, "trainer": {"max_steps": 4, "beta": 0.05}}
    whole = Process(config(base, tmp_path / "whole", **changes))
    assert whole.ends() == 0, whole.said
    tree = config(base, tmp_path / "killed", **changes)
    killed = Process(tree)
    killed.until(lambda: checkpoint.whole(killed.run / "checkpoint-2"))
    killed.kill()
    killed = Process(tree, "--resume")
    assert killed.ends() == 0, killed.said
    assert [entry["kind"] for entry in killed.ledger] == ["created", "started", "resumed", "trained"]
    assert killed.adapter == whole.adapter
    for file in ("critic/adapter_model.safetensors", "critic/value_head.safetensors"):
        one, other = (load_file(run.run / "checkpoint-4" / file) for run in (whole, killed))
        assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)
        assert any(tensor.abs().max() > 0 for tensor in one.values())
    for line in whole.metrics:
        assert all(math.isfinite(line[f"critic/{name}"]) for name in ("loss", "returns", "values", "clip_ratio"))
        assert line["sampling/logp_gap/max"] < 1e-3, "the engine did not sample from the actor"
    assert [line["critic/values"] == 0 for line in whole.metrics] == [True, False, False, False]


def test_two_processes_make_the_update_of_one(base: Path, tmp_path: Path) -> None:
    alone = update(str(base), tmp_path)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(ROOT / "tests/ranks.py")]
    subprocess.run([*command, str(base), str(tmp_path)], env=environment, cwd=ROOT, check=True, timeout=1200)
    ranks = [load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2)]
    for name, weight in alone.items():
        assert (ranks[0][name] == ranks[1][name]).all(), name
        assert (ranks[0][name] - weight).norm() <= 1e-3 * weight.norm() + 1e-6, name


def test_two_processes_with_an_engine_each_end_with_one_actor(base: Path, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    tree = config(base, tmp_path / "run", algorithm="ppo", trainer={"max_steps": 2})
    run = Process(tree, launcher=launcher)
    assert run.ends() == 0, run.said
    assert run.ledger[-1]["kind"] == "trained"
    assert [line["step"] for line in run.metrics] == [1, 2]
