"""Two processes, each with an engine of its own, train one adapter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1200)]
pytest.importorskip("torch")

from rl import tiny  # noqa: E402
from rl.ranks import LAUNCHED, device  # noqa: E402
from runs import IN_PROCESS, Process, config, places  # noqa: E402

# Without --multi_gpu it starts one process on a machine that has no accelerators; with it, as many as it is told.
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.random_model(tmp_path_factory.mktemp("processes") / "base", seed=1)


def test_two_processes_share_the_work_and_end_with_one_adapter(base: Path, tmp_path: Path) -> None:
    run = Process(
        config(base, tmp_path / "run", trainer={"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2}),
        launcher=ACCELERATE,
    )
    assert run.ends() == 0, run.said
    files = {path.name: path.read_text().count("\n") for path in run.run.glob("episodes*.jsonl")}
    assert files == {"episodes.jsonl": 8, "episodes.1.jsonl": 8}
    assert sorted(places(run.written)) == [(s, 4 * s + g, k) for s in range(2) for g in range(4) for k in range(2)]
    assert {r.played.episode.turns[0].completion.version for r in run.written if r.step == 1} == {1}
    assert [line["step"] for line in run.metrics] == [1, 2]
    # The ranks compare their adapters before one of them is kept: the end is not reached with two different ones.
    assert run.ledger[-1]["kind"] == "trained"


def test_the_embedded_policy_is_made_by_one_of_them_for_both(tmp_path: Path) -> None:
    recipe = {"demonstrations": 8, "steps": 1}
    desk = {"env": {"use": "desk"}, "reward": {"success": {"use": "state_equal"}}, "tiny": recipe}
    run = Process(config(Path("tiny"), tmp_path / "run", trainer={"max_steps": 1}, **desk), launcher=ACCELERATE)
    assert run.ends() == 0, run.said
    assert sorted(places(run.written)) == [(0, group, k) for group in range(4) for k in range(2)]


def test_bad_input_is_said_once_and_ends_all_processes(base: Path, tmp_path: Path) -> None:
    tree = config(base, tmp_path / "run", engine=IN_PROCESS)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    run = Process(tree, launcher=TORCHRUN)
    assert run.ends() != 0
    assert run.said.count("holds another run; go on with that by --resume") == 1
    assert "exitcode  : 2" in run.said


@pytest.mark.parametrize(("shown", "seen"), [(None, "1"), ("4,6", "6"), ("GPU-a,GPU-b", "GPU-b")])
def test_a_rank_s_engine_sees_that_rank_s_device(monkeypatch: pytest.MonkeyPatch, shown: str | None, seen: str) -> None:
    for name in (*LAUNCHED, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert device() == {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device() == {"CUDA_VISIBLE_DEVICES": seen}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ or os.environ["CUDA_VISIBLE_DEVICES"] == shown
