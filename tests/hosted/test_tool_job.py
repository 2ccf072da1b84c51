"""A whole job with a tool server and an endpoint grader, both over HTTP: from its files to its checkpoints."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(3600)]
pytest.importorskip("torch")

import torch  # noqa: E402

from envs.bridges.hosted import task_of  # noqa: E402
from envs.types import Completion, Episode, Message, ToolCall, ToolResult, Turn  # noqa: E402
from rl import checkpoint, tiny  # noqa: E402
from rl.chat import Chat  # noqa: E402
from rl.hosted import bundle, metrics  # noqa: E402
from rl.muon import MuonAdam  # noqa: E402
from rl.records import Run  # noqa: E402
from rl.trainers.sft import finetune, rows_of, settings  # noqa: E402
from runs import ROOT  # noqa: E402
from served import Server  # noqa: E402

COLOURS = ("red", "blue", "green", "black")
PARAMETERS = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}
BAD = 7
"""The box at which the tool server always fails."""


def row(n: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Box {n}?"}], "tools": [TOOL], "n": n}


def colour(n: int) -> str:
    return COLOURS[n * 7919 % 4]


def demonstration(n: int, dice: random.Random) -> Episode:
    """It looks, and then says a colour: the right one in half of all cases, else any."""
    call = ToolCall(id="call_0_0", name="look", arguments=json.dumps({"n": n}))
    found = ToolResult(call_id=call.id, name="look", content=colour(n))
    said = colour(n) if dice.random() < 0.4 else dice.choice(COLOURS)
    turns = [
        Turn(completion=Completion(message=Message(role="assistant", tool_calls=(call,))), results=(found,)),
        Turn(completion=Completion(message=Message(role="assistant", content=said))),
    ]
    return Episode(id=str(n), env="hosted", task=task_of(row(n), f"row {n}"), turns=turns)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that looks and then guesses."""
    place = tmp_path_factory.mktemp("policy")
    words, dice = tiny.tokenizer(), random.Random(0)
    torch.manual_seed(0)
    network = tiny.model(words, tiny.Shape(hidden=64, layers=2, intermediate=128))
    rows = rows_of([demonstration(n, dice) for n in [*range(100)] * 8], Chat(words), ())
    fields = {
        "max_steps": 250,
        "per_device_train_batch_size": 8,
        "learning_rate": 4e-3,
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "disable_tqdm": True,
    }
    finetune(network, words, rows, settings(str(place / "out"), fields), optimizer=MuonAdam(network, lr=4e-3))
    network.save_pretrained(place / "base")
    words.save_pretrained(place / "base")
    return place / "base"


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    tool, grader = Server(), Server()

    def look(request: dict[str, Any]) -> tuple[int, Any]:
        if request["item"]["n"] == BAD:
            return 503, "the box is stuck"
        n = json.loads(request["arguments"]).get("n")
        if not isinstance(n, int):
            return 400, {"error": "n is the number of a box"}
        return 200, {"type": "function_call_output", "output": colour(n)}

    def score(request: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"score": float(request["sample"]["output_text"].strip() == colour(request["item"]["n"]))}

    tool.answer, grader.answer = look, score
    yield tool, grader
    tool.close()
    grader.close()


def test_a_job_with_a_tool_server_and_an_endpoint_grader_trains(
    policy: Path, servers: tuple[Server, Server], tmp_path: Path
) -> None:
    tool, grader = servers
    place = tmp_path / "boxes"
    place.mkdir()
    (place / "train.jsonl").write_text("".join(json.dumps(row(n)) + "\n" for n in range(16)))
    (place / "valid.jsonl").write_text("".join(json.dumps(row(n)) + "\n" for n in range(60, 70)))
    job = {
        "model": "boxes",
        "training_file": "train.jsonl",
        "validation_file": "valid.jsonl",
        "seed": 1,
        "method": {
            "type": "reinforcement",
            "reinforcement": {
                "grader": {"type": "endpoint", "name": "right", "url": grader.url},
                "tools": [{"name": "look", "server_url": tool.url}],
                "max_episode_steps": 3,
                "hyperparameters": {"batch_size": 8, "n_epochs": 5, "eval_interval": 2, "eval_samples": 4},
            },
        },
    }
    (place / "job.json").write_text(json.dumps(job))
    local = {
        "models": {"boxes": str(policy)},
        "rollout": {"max_tokens": 24},
        "engine": {"kind": "transformers", "max_model_len": 256, "num_blocks": 256, "max_batch_tokens": 512},
        "lora": {"r": 8, "lora_alpha": 16},
        "trainer": {"learning_rate": 5e-3, "per_device_train_batch_size": 64, "gradient_checkpointing": False},
    }
    (place / "local.yaml").write_text(json.dumps(local))
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "rl.cli", "train", str(place / "job.json"), f"output_dir={run}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    plan = bundle.planned(bundle.load(place))
    assert plan.steps == 10
    graded = bundle.load(place).body.reinforcement
    assert graded is not None
    events = list(metrics.of_run(Run.read(run), graded.graded))
    assert [event["step"] for event in events] == list(range(1, 11))
    valid = {
        e["step"]: e["scores"]["valid_reward_mean"] for e in events if e["scores"]["valid_reward_mean"] is not None
    }
    assert list(valid) == [2, 4, 6, 8, 10]
    assert all(0 <= mean <= 1 for mean in valid.values()), valid
    kept = {checkpoint.step_of(path) for path in run.glob("checkpoint-*")}
    assert kept == {*checkpoint.best(valid, 3), 10}, (kept, valid)

    tools, graders = (Counter(request["trace_id"] for request in server.heard) for server in servers)
    both = graders.keys() & tools.keys()  # a rollout may do without the tool
    assert len(both) > len(graders) / 2, "a grader hears of a rollout by the name that the tools know it by"
    assert set(graders.values()) == {1}
    stuck = [request for request in tool.heard if request["item"]["n"] == BAD]
    assert max(Counter(request["call_id"] for request in stuck).values()) == 4, "three retries"
    assert not any(request["item"]["n"] == BAD and request["trace_id"] in tools for request in grader.heard)
    assert sum(event["rollouts"]["train_broken"] for event in events) == len({r["trace_id"] for r in stuck})
    rows = metrics.results(events).splitlines()
    assert rows[0].startswith("step,train_reward_mean,valid_reward_mean") and len(rows) == 11


def test_the_demonstrations_are_what_the_environment_would_play(policy: Path) -> None:
    """The fixture's episodes and real ones read alike: else the policy would have learned another game."""
    from envs.bridges.hosted import Hosted, ToolServer
    from rl.policy import ScriptPolicy
    from rl.rollout import Limits, run_episode

    server = Server()
    server.answer = lambda request: (200, {"output": colour(json.loads(request["arguments"])["n"])})
    try:
        made = demonstration(3, random.Random(0))
        kind = Hosted.configured({"look": ToolServer(server_url=server.url)})
        script = ScriptPolicy([turn.completion.message for turn in made.turns])
        played = asyncio.run(run_episode(kind(made.task), script, Limits(), id="3"))
    finally:
        server.close()
    assert played.messages == made.messages
