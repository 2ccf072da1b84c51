"""Runs that are killed and go on: nothing is lost, nothing happens twice, and the bits are the same."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(2400)]
pytest.importorskip("torch")

from rl import tiny  # noqa: E402
from rl.config import parse  # noqa: E402
from rl.feed import Feed  # noqa: E402
from rl.records import Run  # noqa: E402
from rl.scene import tasks  # noqa: E402
from runs import IN_PROCESS, Process, config, places  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.random_model(tmp_path_factory.mktemp("resume") / "base", seed=1)


def assert_whole(run: Process, steps: int) -> None:
    """Every task in its turn, recorded once and trained on once, by the version of its step."""
    settings = parse(Run.read(run.run).config)
    feed = Feed(tasks(settings, "train"), settings.seed)
    written = run.written
    expected = [(step, 2 * step + group, k) for step in range(steps) for group in range(2) for k in range(2)]
    assert sorted(places(written)) == expected
    for record in written:
        assert record.played.episode.task.id == feed.ticket(record.position).task.id
        assert {turn.completion.version for turn in record.played.episode.turns} == {record.step}
    assert [line["step"] for line in run.metrics] == list(range(1, steps + 1))
    Run.read(run.run).verify()
    assert not [path for path in run.run.glob("checkpoint-*") if not (path / "manifest.json").exists()]


def kill(run: Process, moment: str, rng: random.Random) -> None:
    """Kill it in the middle of something, at a random instant of it."""
    episodes = run.run / "episodes.jsonl"
    sealed = len(list(run.run.glob("checkpoint-*/manifest.json")))
    size = episodes.stat().st_size if episodes.exists() else 0

    def half() -> bool:
        return any(not (path / "manifest.json").exists() for path in run.run.glob("checkpoint-*"))

    def rollout() -> bool:
        return episodes.exists() and episodes.stat().st_size > size

    def written() -> bool:
        return len(list(run.run.glob("checkpoint-*/manifest.json"))) > sealed

    reached, longest = {
        "rollout": (rollout, 0.0),
        "update": (rollout, 0.8),
        "writing": (half, 0.05),
        "later": (written, 1.5),
    }[moment]
    run.until(lambda: not half())  # what the kill before has left is swept
    run.until(reached)
    time.sleep(rng.uniform(0, longest))
    run.kill()


def test_a_deterministic_run_killed_again_and_again_makes_the_adapter_of_an_uninterrupted_one(
    base: Path, tmp_path: Path
) -> None:
    changes = {"deterministic": True, "lora": {"r": 4, "lora_dropout": 0.1}, "trainer": {"max_steps": 7}}
    whole = Process(config(base, tmp_path / "whole", **changes))
    assert whole.ends() == 0, whole.said
    rng = random.Random(7)
    tree = config(base, tmp_path / "killed", **changes)
    killed = Process(tree)
    for moment in ("rollout", "update", "writing", "later"):
        kill(killed, moment, rng)
        killed = Process(tree, "--resume")
    assert killed.ends() == 0, killed.said
    assert killed.adapter == whole.adapter
    assert_whole(whole, 7)
    assert_whole(killed, 7)
    assert [entry["kind"] for entry in killed.ledger] == ["created", "started", *["resumed"] * 4, "trained"]


def test_groups_that_were_finished_before_a_kill_are_used_and_not_played_again(base: Path, tmp_path: Path) -> None:
    tree = config(base, tmp_path / "run", env={"use": "letters:Letters", "options": {"hold": 6.0}}, engine=IN_PROCESS)
    run = Process(tree)
    run.until(lambda: (run.run / "episodes.jsonl").exists() and bool(run.written))
    run.kill()
    (first,) = {record.position for record in run.written}
    kept = {record.sample: record.played for record in run.written}
    assert len(kept) == 2, "killed between two groups"
    run = Process(tree, "--resume")
    assert run.ends() == 0, run.said
    assert_whole(run, 3)
    assert {record.sample: record.played for record in run.written if record.position == first} == kept
    assert [line["rollout/reused_groups"] for line in run.metrics] == [1.0, 0.0, 0.0]


def test_another_config_and_another_run_s_directory_are_refused(base: Path, tmp_path: Path) -> None:
    tree = config(base, tmp_path / "run", engine=IN_PROCESS, trainer={"max_steps": 1})
    assert Process(tree).ends() == 0
    again = Process(tree)
    assert again.ends() == 2
    assert "holds another run; go on with that by --resume" in again.said
    changed = Process({**tree, "seed": 5}, "--resume")
    assert changed.ends() == 2
    assert "was made with another config (see seed)" in changed.said
    nowhere = Process({**tree, "output_dir": str(tmp_path / "nowhere")}, "--resume")
    assert nowhere.ends() == 2
    assert "holds no run" in nowhere.said
    two = Process(tree, "--resume", launcher=("-m", "torch.distributed.run", "--nproc_per_node", "2"))
    assert two.ends() != 0
    assert "was begun with 1 processes, not 2: resume with as many" in two.said
    finished = Process(tree, "--resume")
    assert finished.ends() == 0, finished.said
    assert len(finished.written) == 4
