"""`rft prefer` on records of the desk: careless demonstrations, several of each task, as a policy would sample them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from envs import desk
from envs.types import Episode
from rewards import Score, state_equal
from rl import tiny
from rl.chat import Chat
from rl.cli import BAD_INPUT, OK, main
from rl.collect import Group
from rl.config import load, load_run
from rl.feed import Ticket
from rl.lessons import played
from rl.loop import BackgroundLoop
from rl.records import Run, find_runs
from rl.rollout import Played
from runs import IN_PROCESS
from runs import config as short_run

pytestmark = pytest.mark.stack

SUCCESS = {"use": "state_equal", "require": ["done", "answered", "no_violations"]}
FEW = ["trainer.gradient_checkpointing=false", "lora.r=8"]


def sampled(tasks: Sequence[Any], samples: int, words: Any) -> list[list[Played]]:
    """Groups of scripted episodes with the ids that a policy would have sampled, scored by the desk's outcome."""
    from rl.trainers.sft import written

    chat, dice, loop = Chat(words), random.Random(0), BackgroundLoop()
    tools = list(desk.Desk.tools().values())

    def one(task: Any) -> Played:
        episode: Episode = loop.run(played(desk.Desk(task), desk.demonstration(task, dice)))
        episode = written(episode, chat, tools)
        return Played(episode=episode, score=Score(value=state_equal(episode, require=SUCCESS["require"])))

    try:
        return [[one(task) for _ in range(samples)] for task in tasks]
    finally:
        loop.close()


def recorded(path: Path, base: Path, groups: Sequence[Sequence[Played]], **changes: Any) -> Path:
    """A run directory that holds these groups."""
    tree = short_run(base, path, engine=IN_PROCESS) | {
        "env": {"use": "desk", "options": {"orders": [1, 1]}},
        "reward": {"success": SUCCESS},
        "evaluate": {"tasks": 2},
    }
    with Run.create(path, tree | changes) as run:
        for position, group in enumerate(groups):
            ticket = Ticket(position=position, task=group[0].episode.task)
            run.record(0, Group(ticket=ticket, played=tuple(group)))
    return path


TASKS = desk.Desk.tasks("train", orders=[1, 1], count=12)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, random_base: Path) -> Path:
    return recorded(tmp_path_factory.mktemp("source") / "run", random_base, sampled(TASKS, 6, tiny.tokenizer()))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["prefer", *map(str, arguments)]) == BAD_INPUT
    return capsys.readouterr().err


def test_what_it_leaves_is_a_run_that_other_commands_take(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rl.trainers.settings import grpo_config
    from rl.trainers.start import continued

    out = tmp_path / "out"
    options = ["--out", str(out), "--segment", "2", *FEW, "trainer.max_steps=3", "trainer.learning_rate=1e-2"]
    assert main(["prefer", str(source), *options]) == OK
    said = capsys.readouterr().out
    assert "12 groups of 72 episodes (0 left out)" in said and "carry loss" in said and "gained more" in said
    run = Run.read(out)
    run.verify()
    assert find_runs(tmp_path) == [out]
    assert [line["step"] for line in run.metrics.read() if "loss" in line] == [1, 2, 3]
    assert [entry["kind"] for entry in run.ledger.read()] == ["created", "preferred"]
    report = json.loads((out / "preference.json").read_text())
    mined = report["mined"]
    assert mined["groups"] == 12 and report["learned"] + report["held_out"]["pairs"] == mined["pairs"]
    assert report["asked"]["segment"] == 2

    config = load_run(out)
    assert (config.adapter, config.model) == (out / "adapter", Run.read(source).config["model"])
    assert config.model_dump()["env"] == load(source / "config.json").model_dump()["env"]
    assert main(["eval", str(out), "--json", str(tmp_path / "eval.json")]) == OK
    assert json.loads((tmp_path / "eval.json").read_text())["sampled"]["episodes"] == 2
    on = load(out / "config.json", f"adapter={out / 'adapter'}", f"output_dir={tmp_path / 'on'}")
    model = continued(config.model, out / "adapter", grpo_config(on, tmp_path / "on"), on.lora)
    assert model.peft_config["default"].r == 8

    assert "is there and not empty" in refused(capsys, source, "--out", out)
    further = ["--out", str(tmp_path / "further"), "--adapter", str(out / "adapter"), FEW[0], "trainer.max_steps=1"]
    assert main(["prefer", str(source), *further]) == OK
    assert load(tmp_path / "further" / "config.json").lora == {}
    assert sorted(path.name for path in (tmp_path / "further" / "adapter").iterdir() if path.is_dir()) == []


def test_without_pairs_it_says_where_they_were_lost(
    source: Path, random_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alike = [[replace(p, score=Score(value=1.0)) for p in group] for group in sampled(TASKS[:2], 3, tiny.tokenizer())]
    path = recorded(tmp_path / "alike", random_base, alike)
    said = refused(capsys, path, "--out", tmp_path / "out")
    assert "no pairs: 2 groups of 6 episodes, 0 of them broken or unscored; 0 groups hold episodes that differ" in said
    assert not (tmp_path / "out").exists()
    empty = recorded(tmp_path / "empty", random_base, [])
    assert "no pairs: 0 groups of 0 episodes" in refused(capsys, empty, "--out", tmp_path / "out")


def test_runs_that_do_not_go_together_are_refused(
    source: Path, made_model: Any, random_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    other = recorded(tmp_path / "other", made_model("qwen3"), [])
    assert "are runs of different models" in refused(capsys, source, other, "--out", out)
    further = recorded(tmp_path / "further", random_base, [], adapter=str(tmp_path / "adapter"))
    assert "began with different adapters" in refused(capsys, source, further, "--out", out)
    gone = recorded(tmp_path / "gone", random_base, [], model="tiny")
    assert "has no base/" in refused(capsys, gone, "--out", out)
    assert "holds no run" in refused(capsys, tmp_path / "nowhere", "--out", out)


def test_a_model_with_other_words_is_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    words = tiny.tokenizer("analyst")
    torch.manual_seed(0)
    shape = tiny.Shape(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, intermediate=32)
    tiny.model(words, shape).save_pretrained(tmp_path / "other")
    words.save_pretrained(tmp_path / "other")
    said = refused(capsys, source, "--out", tmp_path / "out", "--model", tmp_path / "other")
    assert "was sampled with another tokenizer" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--segment", "0"], "rft prefer: segment"),
        (["--segment", "some"], "rft prefer: segment"),
        (["--margin", "0"], "rft prefer: margin"),
        (["trainer.betta=1"], "did you mean 'beta'"),
        (["lora.rr=1"], "lora: unknown key 'rr'"),
        (["betta=1"], "unknown key 'betta'"),
        (["lora.target_modules=[no_such_layer]"], "no_such_layer"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in refused(capsys, source, *options, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_learns_what_is_better_in_tasks_that_it_never_saw(tmp_path: Path) -> None:
    shape = tiny.Shape(hidden=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate=128)
    tiny.random_model(tmp_path / "base", shape=shape)
    tasks = desk.Desk.tasks("train", orders=[1, 1], count=120)
    path = recorded(tmp_path / "run", tmp_path / "base", sampled(tasks, 6, tiny.tokenizer()))
    out = tmp_path / "out"
    learning = ["trainer.learning_rate=3e-3", "trainer.num_train_epochs=2", "held_out=0.3"]
    assert main(["prefer", str(path), "--out", str(out), *FEW, *learning]) == OK
    held = json.loads((out / "preference.json").read_text())["held_out"]
    assert held["tasks"] > 25 and held["preferred"]["low"] > 0.5, held
    losses = [line["loss"] for line in Run.read(out).metrics.read() if "loss" in line]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3) and sum(losses[-5:]) / 5 < 0.65
