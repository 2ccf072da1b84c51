"""From runs to a reward model: what is kept apart, what is written down, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

import desk_runs
from envs.errors import InputError
from rl.cli import main
from rl.learned import making
from rl.learned.making import Options, make
from rl.learned.record import Kind, digest, read
from rl.records import Run

pytestmark = pytest.mark.stack

Make = Callable[[Kind], Path]


@pytest.mark.parametrize("kind", ["outcome", "process"])
def test_the_record_says_what_it_was_made_of(kind: Kind, learned_model: Make, desk_run: Path) -> None:
    record = read(learned_model(kind))
    assert (record.kind, record.lora) == (kind, False)
    assert record.made_of["runs"] == [{"path": str(desk_run), "episodes": 48}]
    assert record.made_of["tasks"] == {"train": 6, "calibration": 2, "held_out": 4}
    assert record.made_of["skipped"] == 0 and record.made_of["versions"] == [0]
    known = {recorded.played.episode.task.id for recorded in Run.read(desk_run).episodes()}
    assert set(record.made_of["held_out_tasks"]) < known and len(record.made_of["held_out_tasks"]) == 4
    named = {"outcome": {"episodes"}, "process": {"on the way", "at the end"}}[kind]
    assert set(record.held_out["forecasts"]) == named
    for found in record.held_out["forecasts"].values():
        assert found["tasks"] == 4 and sum(each["trials"] for each in found["reliability"]) == found["trials"]
    assert (record.held_out["best_of"] is not None) is (kind == "outcome")


def test_what_is_learned_from_is_of_the_training_tasks(desk_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the scale is fitted to others, and neither is measured on."""
    source = making.read(desk_run)
    parts = making.labels.split((each.task for each in source.rollouts), seed=0)
    rows, made_of = making._material([source], parts, Options(kind="process"), print)
    own = {each.ids for each in source.rollouts if each.task in parts.train}
    assert {row.ids for row in rows} <= own
    assert made_of["trials"] == sum(len(each.ends) for each in source.rollouts if each.task in parts.train)
    pairs, _ = making._material([source], parts, Options(kind="outcome"), print)
    assert {ids for pair in pairs for ids in pair} <= own


def test_the_same_seed_makes_the_same_model(desk_run: Path, learned_model: Make, tmp_path: Path) -> None:
    make([desk_run], tmp_path / "again", Options(kind="outcome", steps=2, batch=4), print)
    first, again = (path / "model.safetensors" for path in (learned_model("outcome"), tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


def test_the_command_prints_and_writes(desk_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    command = ["reward-model", str(desk_run), "--out", str(out), "--kind", "outcome", "--steps", "1", "--batch", "2"]
    assert main([*command, "--lora", "2"]) == 0
    said = capsys.readouterr().out
    for word in ("AUROC", "Brier", "calibration error", "best of 4", "difference"):
        assert word in said
    assert read(out).lora and (out / "adapter_model.safetensors").exists()
    assert json.loads((out / "reward_model.json").read_text())["made_of"]["options"]["lora"] == 2
    assert len(digest(out)) == 64
    assert main(command) == 2 and "is there" in capsys.readouterr().err


def test_runs_that_can_not_be_learned_from_are_refused(random_base: Path, desk_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        make([tmp_path], tmp_path / "out", Options(kind="outcome"), print)
    few = desk_runs.record(random_base, tmp_path / "few", tasks=3, samples=2)
    with pytest.raises(InputError, match="3 tasks"):
        make([few], tmp_path / "out", Options(kind="outcome"), print)
    with pytest.raises(InputError, match="--rerolls would have no effect"):
        make([desk_run], tmp_path / "out", Options(kind="outcome", rerolls=1), print)
    assert not (tmp_path / "out").exists()


def test_runs_of_models_that_read_otherwise_are_not_mixed(desk_run: Path, random_base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    other = Path(shutil.copytree(random_base, tmp_path / "other"))
    words = AutoTokenizer.from_pretrained(other)
    words.add_tokens(["one more"])
    words.save_pretrained(other)
    stranger = desk_runs.record(other, tmp_path / "stranger", tasks=10, samples=2)
    with pytest.raises(InputError, match="different vocabularies"):
        make([desk_run, stranger], tmp_path / "out", Options(kind="outcome"), print)
