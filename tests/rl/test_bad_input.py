"""Bad input at the command line: one clear message, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from envs import Environment, tool
from rl.cli import main

pytest.importorskip("torch")

pytestmark = pytest.mark.stack

from rl import tiny  # noqa: E402  # it needs torch

BASE: dict[str, Any] = {
    "model": "tiny",
    "env": {"use": "desk"},
    "reward": {"calls": {"use": "valid_calls"}},
    "rollout": {"max_tokens": 16, "turns": 3},
    "engine": {"max_model_len": 512},
    "trainer": {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 4},
}


class Untyped(Environment):
    @tool
    def look(self, order):  # type: ignore[no-untyped-def]
        """Look."""


class Clashing(Environment):
    @tool
    def step(self) -> str:  # type: ignore[override]
        """Take the place of what plays."""
        return ""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.random_model(tmp_path_factory.mktemp("made") / "model", shape=tiny.Shape(hidden=32, layers=1))


@pytest.fixture
def untemplated(plain: Path, tmp_path: Path) -> Path:
    model = tmp_path / "untemplated"
    shutil.copytree(plain, model)
    (model / "chat_template.jinja").unlink()
    return model


class Refused:
    """A config that is refused, by what it changes, and what the message must say."""

    def __init__(self, says: str, *overrides: str, **changes: Any) -> None:
        self.says, self.overrides, self.changes = says, overrides, changes


def rows(*texts: str) -> Callable[[Path], dict[str, Any]]:
    """An environment section whose tasks come from a file with these lines."""

    def section(folder: Path) -> dict[str, Any]:
        (folder / "tasks.jsonl").write_text("".join(f"{text}\n" for text in texts))
        return {"use": "desk", "data": {"train": str(folder / "tasks.jsonl"), "test": str(folder / "tasks.jsonl")}}

    return section


def both(train: str, test: str) -> Callable[[Path], dict[str, Any]]:
    """An environment section with one task in each split."""

    def section(folder: Path) -> dict[str, Any]:
        (folder / "train.jsonl").write_text(json.dumps({"id": "a", "prompt": train}))
        (folder / "test.jsonl").write_text(json.dumps({"id": "b", "prompt": test}))
        return {"use": "desk", "data": {name: str(folder / f"{name}.jsonl") for name in ("train", "test")}}

    return section


FINE = '{"id": "a", "prompt": "Well?"}'

REFUSED = {
    "an approver who has to be asked": Refused(
        "guard.approval.approver 'ask' asks at the terminal, which only rft play can do",
        guard={"approval": {"rules": [{"tool": "refund"}], "approver": "ask"}},
    ),
    "an unknown key": Refused("unknown key 'modle'; did you mean 'model'?", "modle=x"),
    "a misspelt key": Refused("unknown key 'rollout.turn'; did you mean 'turns'?", "rollout.turn=3"),
    "a misspelt trainer key": Refused(
        "trainer: unknown key 'learning_rat'; did you mean 'learning_rate'", "trainer.learning_rat=1"
    ),
    "a misspelt lora key": Refused("lora: unknown key 'lora_alfa'; did you mean 'lora_alpha'?", "lora.lora_alfa=1"),
    "a misspelt engine key": Refused(
        "engine: unknown engine argument 'max_model_length'; did you mean 'max_model_len'?", "engine.max_model_length=9"
    ),
    "a misspelt engine key of ours": Refused(
        "engine: unknown engine argument 'handovr'; did you mean 'handover'?", "engine.handovr=auto"
    ),
    "a misspelt credit key": Refused("credit, with grpo: unknown option 'dof'; did you mean 'ddof'?", "credit.dof=1"),
    "a misspelt recipe key": Refused("tiny: unknown key 'stepz'; did you mean 'steps'?", "tiny.stepz=1"),
    "a misspelt key of a recipe's shape": Refused(
        "tiny.shape: unknown key 'layrs'; did you mean 'layers'?", "tiny.shape.layrs=1"
    ),
    "a misspelt environment option": Refused(
        "env.options: unknown option 'order'; did you mean 'orders'?", "env.options.order=[1,2]"
    ),
    "a misspelt reward": Refused(
        "reward.calls.use: unknown reward 'valid_call'; did you mean 'valid_calls'?", "reward.calls.use=valid_call"
    ),
    "an unknown environment": Refused("unknown environment 'dsk'; did you mean 'desk'?", "env.use=dsk"),
    "a wrong type": Refused("rollout.turns: Input should be a valid integer", "rollout.turns=many"),
    "a wrong type for an environment": Refused("env.options.orders", "env.options.orders=3"),
    "a wrong type for the trainer": Refused(
        "trainer.max_steps: Input should be a valid integer", "trainer.max_steps=some"
    ),
    "a wrong type for lora": Refused("lora.r: Input should be a valid integer", "lora.r=some"),
    "a wrong type for a recipe": Refused("tiny.steps: Input should be a valid integer", "tiny.steps=some"),
    "a value elsewhere": Refused("trainer.seed: set it as 'seed' instead", "trainer.seed=1"),
    "a setting without effect": Refused("trainer.use_vllm would have no effect", "trainer.use_vllm=true"),
    "greedy training": Refused("rollout.temperature: 0 is greedy", "rollout.temperature=0"),
    "an adapter that is none": Refused("x: no adapter_config.json", "adapter=x"),
    "a hand-over that another engine lacks": Refused(
        "engine.handover would have no effect", "engine.kind=transformers", "engine.handover=merged"
    ),
    "a group that does not divide the batch": Refused(
        "must be divisible by num_generations (3)", "trainer.num_generations=3"
    ),
    "a model that is not there": Refused("model './none': there is no such directory", "model=./none"),
    "a lora target that matches nothing": Refused(
        "lora.target_modules: 'q_prj' matches no layer of the model; did you mean 'q_proj'?",
        "lora.target_modules=[q_prj, v_proj]",
    ),
    "a lora that can't be served": Refused("use_dora changes the model", "lora.use_dora=true"),
    "a tool without type hints": Refused("parameter 'order' has no type hint; add one", f"env.use={__name__}:Untyped"),
    "a tool in the place of ours": Refused(
        "takes the place of Environment.step; give it another name", f"env.use={__name__}:Clashing"
    ),
    "no tasks": Refused("has no tasks in split 'train'", "env.options.count=0"),
    "a split that is not there": Refused("no split 'trian'", "env.train=trian"),
    "a file that is not there": Refused(
        "none.jsonl: No such file or directory; name a file", env={"use": "desk", "data": {"train": "none.jsonl"}}
    ),
    "a line that is not JSON": Refused("tasks.jsonl, line 2: not JSON", env=rows(FINE, "{oops")),
    "ids that come twice": Refused(
        "tasks.jsonl, line 3 has the id 'a' of", env=rows(FINE, FINE.replace('"a"', '"b"'), FINE)
    ),
    "a task without a prompt": Refused("tasks.jsonl, line 1: no prompt", env=rows('{"id": "a"}')),
    "options beside data": Refused("env.options would have no effect", "env.options.orders=[1,2]", env=rows(FINE)),
    "a column of rows that are not there": Refused("env.prompt would have no effect", "env.prompt=question"),
    "a task in both splits": Refused(
        "task 'b' of test is also in train (as 'a'); remove it from one", env=both("Well?", "Well?")
    ),
    "a split without a file": Refused(
        "env.data names no file for split 'test', only for train",
        env={"use": "desk", "data": {"train": "x.jsonl"}},
        _first="test",
    ),
    "a template that is not there": Refused("chat.template: can't read none.jinja", "chat.template=none.jinja"),
}


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs `rft train` on a config with changes; returns its exit code and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, resume: bool = False, **changes: Any) -> tuple[int, str]:
        tree = BASE | {"output_dir": "run"} | changes
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
        code = main(["train", "config.yaml", *overrides, *(["--resume"] if resume else [])])
        said = capsys.readouterr().err
        return code, "\n".join(line for line in said.splitlines() if line.startswith("rft: ") or not _noise(line))

    return run


def _noise(line: str) -> bool:
    return "Warning" in line or line.startswith(("  ", "W", "["))


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_used_is_named_and_nothing_is_left(case: str, told: Any, tmp_path: Path) -> None:
    refused = REFUSED[case]
    changes = {k: v(tmp_path) if callable(v) else v for k, v in refused.changes.items() if not k.startswith("_")}
    if "_first" in refused.changes:
        changes["env"] = {"use": "desk", "data": {"train": str(tmp_path / "ok.jsonl")}}
        (tmp_path / "ok.jsonl").write_text(FINE + "\n")
    code, said = told(*refused.overrides, **changes)
    assert code == 2
    assert said.startswith("rft: ") and refused.says in said
    assert said.count("rft: ") == 1 and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: can't read the config: No such file" in capsys.readouterr().err


def test_a_model_without_a_chat_template_is_named(told: Any, untemplated: Path, tmp_path: Path) -> None:
    code, said = told(model=str(untemplated))
    assert code == 2
    assert f"{untemplated} has no chat template: use the model's instruction-tuned version" in said
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_another_run_is_left_as_it_is(told: Any, plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"model": "mine"}))
    (run / "episodes.jsonl").write_text("mine\n")
    code, said = told(model=str(plain))
    assert code == 2
    assert "output_dir run holds another run; go on with that by --resume, or name another" in said
    assert {p.name: p.read_text() for p in run.iterdir() if p.name != ".lock"} == {
        "config.json": '{"model": "mine"}',
        "episodes.jsonl": "mine\n",
    }
    code, said = told(model=str(plain), resume=True)
    assert code == 2 and "Traceback" not in said and (run / "episodes.jsonl").read_text() == "mine\n"


def test_a_directory_that_can_not_be_made_is_named(told: Any, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    code, said = told(model=str(plain))
    assert (code, "name a directory" in said) == (2, True)
    code, said = told("output_dir=run/deeper", model=str(plain))
    assert (code, "can't be made" in said) == (2, True)
    assert (tmp_path / "run").read_text() == "a file"


def test_nothing_to_resume_is_said(told: Any, plain: Path, tmp_path: Path) -> None:
    code, said = told(model=str(plain), resume=True)
    assert (code, "holds no run" in said) == (2, True)
    assert not (tmp_path / "run").exists()


def test_what_the_engine_refuses_later_takes_the_new_run_back_and_nothing_else(
    told: Any, plain: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    code, said = told("engine.enable_lora=true", model=str(plain))
    assert (code, "engine.enable_lora: set to True, but it is ours to set" in said) == (2, True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    code, said = told("engine.max_num_seqs=some", model=str(plain), output_dir="other")
    assert (code, "max_num_seqs" in said) == (2, True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("command", ["eval", "play"])
def test_other_commands_refuse_alike(
    command: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(BASE | {"output_dir": str(tmp_path / "run"), "model": str(plain)}))
    for override, says in {
        f"adapter={tmp_path}/none": "no adapter_config.json",
        "env.evaluate=trian": "no split 'trian'",
        "engine.max_model_length=9": "unknown engine argument",
        "model=./none": "there is no such directory",
    }.items():
        assert main([command, str(config), override]) == 2
        said = capsys.readouterr().err
        assert says in said and "Traceback" not in said
    assert main([command, str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
