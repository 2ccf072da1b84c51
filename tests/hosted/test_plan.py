"""A job and its rows as a run: what every hyperparameter becomes, and which rows are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import InputError
from rl import scene
from rl.hosted import auto, body, rows
from rl.hosted.local import Base, Local
from rl.hosted.plan import LEARNING_RATE, Plan, plan
from rl.hosted.refusal import Refused

GRADER = {
    "type": "string_check",
    "name": "right",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}


def row(i: int, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"What is {i} + 1?"}], "answer": str(i + 1), **more}


def write(path: Path, items: list[Any]) -> Path:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return path


def made(
    place: Path,
    hyperparameters: dict[str, Any] | None = None,
    *,
    train: list[Any] | None = None,
    valid: list[Any] | None = None,
    local: Local | None = None,
    overrides: tuple[str, ...] = (),
    processes: int = 1,
    integrations: list[Any] | None = None,
    **reinforcement: Any,
) -> Plan:
    method = {"grader": GRADER, "hyperparameters": hyperparameters or {}, **reinforcement}
    job = {
        "model": "tiny",
        "training_file": "train.jsonl",
        "validation_file": "valid.jsonl",
        "method": {"type": "reinforcement", "reinforcement": method},
        "integrations": integrations,
    }
    return plan(
        body.read(job),
        train=rows.read(write(place / "train.jsonl", train or [row(i) for i in range(100)]), "training_file"),
        valid=rows.read(write(place / "valid.jsonl", valid or [row(i) for i in range(900, 920)]), "validation_file"),
        local=local or Local(),
        output_dir=place / "run",
        overrides=overrides,
        processes=processes,
    )


def test_every_auto_is_decided_and_given_back(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found.hyperparameters == {
        "batch_size": 8,
        "n_epochs": 8,
        "learning_rate_multiplier": 1.0,
        "compute_multiplier": 1.0,
        "eval_interval": 10,
        "eval_samples": 5,
        "reasoning_effort": "default",
    }
    assert (found.steps, found.said) == (100, ())


def test_hyperparameters_become_the_trainers_settings(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        {
            "batch_size": 5,
            "n_epochs": 2,
            "learning_rate_multiplier": 3.0,
            "compute_multiplier": 0.5,
            "eval_interval": 7,
            "eval_samples": 2,
        },
    )
    assert found.steps == 40
    assert found.config.trainer == {
        "learning_rate": 3.0 * LEARNING_RATE,
        "max_steps": 40,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 5,
        "eval_strategy": "steps",
        "eval_steps": 7,
        "save_strategy": "steps",
        "save_steps": 7,
    }
    assert found.config.evaluate.model_dump() == {"tasks": None, "samples": 2, "greedy": False, "keep": 3}


@pytest.mark.parametrize(
    ("count", "batch", "epochs"), [(1, 1, 10), (12, 4, 10), (100, 8, 8), (1000, 64, 6), (50_000, 64, 1)]
)
def test_the_rules_of_auto_by_hand(count: int, batch: int, epochs: int) -> None:
    assert (auto.batch_size(count), auto.n_epochs(count, batch)) == (batch, epochs)


@given(train=st.integers(1, 50_000), valid=st.integers(1, 1_000))
def test_auto_stays_within_the_limits_of_what_may_be_asked_for(train: int, valid: int) -> None:
    found = auto.reinforcement(body.ReinforcementHyperparameters(), train=train, valid=valid)
    total = auto.steps(train, int(found.batch_size), int(found.n_epochs))
    assert "auto" not in found.model_dump().values()
    assert body.ReinforcementHyperparameters(**found.model_dump()) == found
    assert 1 <= found.eval_interval <= total and total * found.batch_size >= train * int(found.n_epochs)


@given(count=st.integers(1, 256), multiplier=st.floats(0.0001, 10), limit=st.integers(1, 64), shared=st.integers(1, 8))
def test_a_step_is_whole_groups_of_every_prompt_whatever_fits_the_device(
    tmp_path_factory: pytest.TempPathFactory, count: int, multiplier: float, limit: int, shared: int
) -> None:
    asked = {"batch_size": count, "compute_multiplier": multiplier, "n_epochs": 1}
    local = Local(trainer={"per_device_train_batch_size": limit})
    place = tmp_path_factory.mktemp("plan")
    if count % shared:
        with pytest.raises(Refused, match="can't be shared"):
            made(place, asked, local=local, processes=shared)
        return
    trainer = made(place, asked, local=local, processes=shared).config.trainer
    device = trainer["per_device_train_batch_size"]
    assert device <= limit
    assert device * trainer["gradient_accumulation_steps"] * shared == count * trainer["num_generations"]
    assert trainer["num_generations"] == max(2, round(8 * multiplier))


def test_the_local_settings_say_how_to_run_and_the_job_what(tmp_path: Path) -> None:
    local = Local(
        models={"tiny": Base(model="some/model", adapter=Path("before"))},
        rollout={"max_tokens": 100},
        engine={"max_model_len": 512},
        trainer={"learning_rate": 2e-3, "per_device_train_batch_size": 64},
        settings={"clamp": [0, 1]},
        judge={"base_url": "http://127.0.0.1:1/v1"},
        unsafe_python="these are tests",
    )
    config = made(tmp_path, {"learning_rate_multiplier": 0.5, "reasoning_effort": "high"}, local=local).config
    assert (config.model, config.adapter) == ("some/model", Path("before"))
    assert config.trainer["learning_rate"] == 1e-3 and config.trainer["per_device_train_batch_size"] == 64
    assert (config.rollout.max_tokens, config.rollout.turns) == (200, 1)
    assert config.engine.arguments == {"max_model_len": 512}
    assert config.reward["settings"] == {"clamp": [0.0, 1.0]}
    assert "judge" not in config.reward, "no grader of this job asks a model"


def test_an_integration_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    found = made(tmp_path, integrations=[{"type": "wandb", "wandb": {"project": "p"}}])
    (said,) = found.said
    assert "nothing is sent to wandb" in said and "report_to" not in found.config.trainer


def test_overrides_have_the_last_word(tmp_path: Path) -> None:
    config = made(tmp_path, overrides=("rollout.max_tokens=7", "trainer.max_steps=2", "model=other/model")).config
    assert (config.rollout.max_tokens, config.trainer["max_steps"], config.model) == (7, 2, "other/model")


def test_a_model_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="unknown model 'tiny'; there are: o4-mini") as error:
        made(tmp_path, local=Local(models={"o4-mini": Base(model="some/model")}))
    assert (error.value.param, error.value.code) == ("model", "model_not_found")


def test_what_the_job_decides_is_no_local_setting() -> None:
    with pytest.raises(ValueError, match="max_steps is decided by the job's n_epochs"):
        Local(trainer={"max_steps": 3})


def test_a_job_with_tools_is_many_turns_and_its_servers_reach_the_environment(tmp_path: Path) -> None:
    rows_with_tools = {
        "train": [row(i, tools=[TOOL]) for i in range(10)],
        "valid": [row(i, tools=[TOOL]) for i in range(90, 95)],
    }
    servers = [{"name": "search", "server_url": "http://127.0.0.1:1/", "headers": {"X-Key": "k"}}]
    found = made(tmp_path, tools=servers, max_episode_steps=5, **rows_with_tools)
    rollout = found.config.rollout
    assert (rollout.turns, rollout.retries, rollout.seconds) == (5, 0, 3600.0)
    env = scene.environment(found.config)
    (task, *_) = scene.tasks(found.config, "validation")
    assert list(env(task).available()) == ["search"]
    assert env.servers["search"].headers == {"X-Key": "k"}  # type: ignore[attr-defined]


def test_a_plan_plays_and_grades(tmp_path: Path) -> None:
    import asyncio

    from envs.types import Message
    from rl.policy import ScriptPolicy

    found = made(tmp_path)
    player, (task, *_) = scene.player(found.config), scene.tasks(found.config, "train")
    for said, worth in (("1", 1.0), ("2", 0.0)):
        script = ScriptPolicy([Message(role="assistant", content=said)])
        played = asyncio.run(player.play(task, script, id=said))
        assert (played.score.value, played.score.error, len(played.episode.turns)) == (worth, None, 1)


LONG = [row(i) for i in range(1001)]


@pytest.mark.parametrize(
    ("files", "param", "said"),
    [
        ({"train": ["{"]}, "training_file", r"train.jsonl, line 1: not JSON"),
        ({"train": [row(1), {"messages": []}]}, "training_file", r"train.jsonl, line 2: messages"),
        ({"train": [[1]]}, "training_file", r"line 1: expected an object, found list"),
        ({"train": [{"prompt": "hello"}]}, "training_file", r"line 1: a row needs 'messages'"),
        (
            {"valid": [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]},
            "validation_file",
            r"valid.jsonl, line 1: messages ends with the assistant",
        ),
        ({"train": [row(1, tools=[{"type": "function"}])]}, "training_file", r"line 1: tools: 0.function: Field"),
        ({"train": [row(1, tools=[TOOL, TOOL])]}, "training_file", r"line 1: tools: 'search' is there twice"),
        ({"valid": LONG}, "validation_file", r"1,001 rows; a validation_file of a reinforcement job may have 1,000"),
        ({"train": ["", "  "]}, "training_file", r"train.jsonl holds no rows"),
        (
            {"valid": [{"messages": [{"role": "user", "content": "x"}], "anwser": "1"}]},
            "validation_file",
            r"grader.reference reads item.answer, and no row of valid.jsonl has it: .*did you mean 'anwser'",
        ),
        ({"train": [row(1)], "valid": [row(1)]}, "validation_file", r"is also in"),
    ],
)
def test_rows_that_can_not_be_used_are_refused_with_their_line(
    tmp_path: Path, files: dict[str, list[Any]], param: str, said: str
) -> None:
    with pytest.raises(Refused, match=said) as error:
        made(tmp_path, **files)
    assert (error.value.param, error.value.code) == (param, f"invalid_{param}")
    assert str(tmp_path) not in error.value.message


def test_rows_that_lack_a_field_are_counted(tmp_path: Path) -> None:
    found = made(tmp_path, train=[row(1), {"messages": row(2)["messages"]}])
    (said,) = found.said
    assert "1 of 2 rows lack it, the first train.jsonl, line 2" in said


def test_a_row_that_is_there_twice_counts_twice_and_may_call_its_fields_what_it_likes(tmp_path: Path) -> None:
    found = made(tmp_path, train=[row(1, id=7, files=["a"]), row(1, id=7, files=["a"])])
    tasks = scene.tasks(found.config, "train")
    assert len({task.id for task in tasks}) == 2
    assert tasks[0].item["files"] == ["a"] and tasks[0].item["id"] == 7 and not tasks[0].files


def test_a_file_over_512_mb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(rows.FILE_BYTES + 1)
    with pytest.raises(Refused, match="536,870,913 bytes; a file may have 536,870,912"):
        rows.read(path, "training_file")


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^gone.jsonl: No such file"):
        rows.read(tmp_path / "gone.jsonl", "training_file")


SERVER = {"name": "search", "server_url": "http://127.0.0.1:1/"}
OTHER = {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize(
    ("offered", "servers", "param", "said"),
    [
        ([TOOL, OTHER], [SERVER], "training_file", "line 1: no server is named for the tool 'look'"),
        ([TOOL], [SERVER, SERVER | {"name": "look"}], "method.reinforcement.tools", "no row offers the tool 'look'"),
    ],
)
def test_tools_and_servers_must_meet(
    tmp_path: Path, offered: list[Any], servers: list[Any], param: str, said: str
) -> None:
    with pytest.raises(Refused, match=said) as error:
        made(
            tmp_path,
            train=[row(1, tools=offered)],
            valid=[row(2, tools=offered)],
            tools=servers,
        )
    assert error.value.param == param
