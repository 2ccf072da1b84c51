"""Jobs through the official client, from the upload to a chat with what was trained; and a server that is killed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3600)]
pytest.importorskip("torch")

from openai import OpenAI  # noqa: E402
from openai.types.fine_tuning import FineTuningJob  # noqa: E402

from hosting import LETTERS, UNSAFE, Hosting, reinforcement, rows, until  # noqa: E402
from runs import IN_PROCESS, descendants  # noqa: E402

ROOT = Path(__file__).parents[2]
LOCAL = {
    "unsafe_python": UNSAFE,
    "tiny": {"steps": 8, "demonstrations": 16, "batch": 2},
    "rollout": {"max_tokens": 16},
    "engine": {"max_model_len": 512, "kv_cache_memory_bytes": 1 << 26},
    "lora": {"r": 8, "lora_alpha": 16},
    "trainer": {"learning_rate": 1e-2, "gradient_checkpointing": False, "warmup_steps": 0},
}
PARTS: Any = LETTERS["graders"]
BRIEF = {
    "type": "multi",
    "graders": {
        "has_e": PARTS["has_e"],
        "brief": {
            "type": "python",
            "source": "def grade(sample, item):\n    return 8 / (8 + len(sample['output_text']))\n",
        },
        "alike": PARTS["alike"],
    },
    "calculate_output": "0.1 * has_e + 0.8 * brief + 0.1 * alike",
}
"""What a model that learned nothing can learn in a dozen steps: to stop."""
SHORT = {"batch_size": 4, "n_epochs": 6, "eval_interval": 3, "eval_samples": 16, "compute_multiplier": 4}
STEPS = 12
"""What that comes to with 8 rows."""


@pytest.fixture(scope="module")
def hosting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    made = Hosting(tmp_path_factory.mktemp("serving") / "home", **LOCAL)
    yield made
    made.close()


@pytest.fixture(scope="module")
def job(hosting: Hosting) -> FineTuningJob:
    """A job that was paused and resumed on its way, and has succeeded."""
    client = hosting.client
    assert client.fine_tuning.alpha.graders.validate(grader=LETTERS).grader  # type: ignore[arg-type]
    train, valid = hosting.upload(rows("train", 8)), hosting.upload(rows("valid", 4))
    body = reinforcement(train, valid, BRIEF, hyperparameters=SHORT, suffix="mine", seed=1)
    made = client.post("/fine_tuning/jobs", cast_to=FineTuningJob, body=body)
    jobs = client.fine_tuning.jobs
    until(lambda: steps(client, made.id) or over(client, made.id))
    assert jobs.pause(made.id).status == "running"
    until(lambda: jobs.retrieve(made.id).status == "paused" or over(client, made.id))
    taken = steps(client, made.id)
    assert 0 < len(taken) < STEPS, said(hosting, made.id)
    time.sleep(2)
    assert steps(client, made.id) == taken
    assert jobs.resume(made.id).status == "queued"
    until(lambda: over(client, made.id))
    assert jobs.retrieve(made.id).status == "succeeded", said(hosting, made.id)
    return jobs.retrieve(made.id)


def over(client: OpenAI, id: str) -> bool:
    return client.fine_tuning.jobs.retrieve(id).status in ("succeeded", "failed", "cancelled")


def steps(client: OpenAI, id: str) -> list[Any]:
    """The data of the steps' events, in their order."""
    events = list(client.fine_tuning.jobs.list_events(id, limit=100))
    return [event.data for event in reversed(events) if event.type == "metrics"]


def said(hosting: Hosting, id: str) -> str:
    return hosting.server.jobs.places.log(id).read_text()[-4000:]


def test_a_job_is_trained_paused_resumed_and_told_of(hosting: Hosting, job: FineTuningJob) -> None:
    assert (job.error, job.model, job.seed) == (None, "tiny", 1)
    assert job.fine_tuned_model == f"ft:tiny:local:mine:{job.id[-8:]}"
    assert job.trained_tokens and job.finished_at and job.finished_at >= job.created_at
    assert [data["step"] for data in steps(hosting.client, job.id)] == list(range(1, STEPS + 1))
    messages = [event.message for event in hosting.client.fine_tuning.jobs.list_events(job.id, limit=100)][::-1]
    for expected in ("Fine-tuning job started", "The job was paused", "The job was resumed, moving it to queued state"):
        assert expected in messages
    assert messages[-2:] == [
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]


def test_the_validation_reward_rises(hosting: Hosting, job: FineTuningJob) -> None:
    """From what the policy earned before it learned: in the first step, which is played before any update."""
    found = steps(hosting.client, job.id)
    valid = [data["scores"]["valid_reward_mean"] for data in found if data["scores"]["valid_reward_mean"] is not None]
    assert len(valid) == 4
    untrained = found[0]["scores"]["train_reward_mean"]
    assert valid[-1] > untrained + 0.05, (untrained, valid)
    graders = {one["name"] for one in found[-1]["scores"]["graders"]}
    assert graders == {"has_e", "brief", "alike"}


def test_the_best_checkpoints_are_listed_and_answer(hosting: Hosting, job: FineTuningJob) -> None:
    found = list(hosting.client.fine_tuning.jobs.checkpoints.list(job.id))
    assert len(found) == 3
    by_step = {data["step"]: data["scores"]["valid_reward_mean"] for data in steps(hosting.client, job.id)}
    measured = {step: reward for step, reward in by_step.items() if reward is not None}
    best = sorted(measured, key=lambda step: (measured[step], step))[-3:]
    assert {one.step_number for one in found} == set(best)
    for one in found:
        assert one.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-{one.step_number}"
        assert hosting.client.models.retrieve(one.fine_tuned_model_checkpoint).owned_by == "org-local"
    assert chat(hosting, found[0].fine_tuned_model_checkpoint)


def test_the_results_are_a_table_of_the_steps(hosting: Hosting, job: FineTuningJob) -> None:
    (id,) = job.result_files
    assert hosting.client.files.retrieve(id).purpose == "fine-tune-results"
    table = list(csv.DictReader(io.StringIO(hosting.client.files.content(id).text)))
    assert [int(row["step"]) for row in table] == list(range(1, STEPS + 1))
    expected = [data["scores"]["train_reward_mean"] for data in steps(hosting.client, job.id)]
    assert [float(row["train_reward_mean"]) for row in table] == pytest.approx(expected)


def chat(hosting: Hosting, model: str, **more: Any) -> str:
    answer = hosting.client.with_options(timeout=900).chat.completions.create(
        model=model, messages=rows("valid", 1)[0]["messages"], max_completion_tokens=16, n=8, seed=1, **more
    )
    return "".join(choice.message.content or "" for choice in answer.choices)


def test_the_fine_tuned_model_answers_by_what_it_learned(hosting: Hosting, job: FineTuningJob) -> None:
    assert job.fine_tuned_model is not None
    assert len(chat(hosting, job.fine_tuned_model)) < len(chat(hosting, "tiny"))


def test_a_job_that_runs_is_cancelled_and_the_next_one_starts(hosting: Hosting, job: FineTuningJob) -> None:
    client = hosting.client
    body = reinforcement(job.training_file, str(job.validation_file), hyperparameters=SHORT)
    first, second = (client.post("/fine_tuning/jobs", cast_to=FineTuningJob, body=body) for _ in range(2))
    until(lambda: client.fine_tuning.jobs.retrieve(first.id).status == "running")
    assert client.fine_tuning.jobs.retrieve(second.id).status == "queued"
    client.fine_tuning.jobs.cancel(first.id)
    until(lambda: client.fine_tuning.jobs.retrieve(first.id).status == "cancelled")
    until(lambda: client.fine_tuning.jobs.retrieve(second.id).status == "running")
    client.fine_tuning.jobs.cancel(second.id)
    until(lambda: client.fine_tuning.jobs.retrieve(second.id).status == "cancelled")


class Process:
    """`rft serve` in a process of its own."""

    def __init__(self, home: Path, config: Path) -> None:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TEST_RUN": str(home)}
        command = [sys.executable, "-m", "rl.cli", "serve", "--port", "0", "--home", str(home), "--config", str(config)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+/v1", line)
        assert found, line
        self.client = OpenAI(base_url=found[0], api_key="none", max_retries=0)

    def upload(self, items: list[dict[str, Any]]) -> str:
        text = "".join(json.dumps(item) + "\n" for item in items)
        return self.client.files.create(file=("rows.jsonl", text.encode()), purpose="fine-tune").id


@pytest.mark.slow
def test_a_killed_server_goes_on_with_its_job_and_loses_and_doubles_nothing(random_base: Path, tmp_path: Path) -> None:
    home, config = tmp_path / "home", tmp_path / "local.yaml"
    own = {"models": {"tiny": str(random_base)}, "tiny": {}, "engine": IN_PROCESS}
    config.write_text(yaml.safe_dump(LOCAL | own))
    server = Process(home, config)
    body = reinforcement(server.upload(rows("train", 8)), server.upload(rows("valid", 4)), hyperparameters=SHORT)
    id = server.client.post("/fine_tuning/jobs", cast_to=FineTuningJob, body=body).id
    waiting = server.client.post("/fine_tuning/jobs", cast_to=FineTuningJob, body=body).id
    before: list[str] = []
    for enough in (3, 5):
        until(lambda: len(steps(server.client, id)) >= enough or over(server.client, id))  # noqa: B023
        assert server.client.fine_tuning.jobs.retrieve(id).status == "running"
        known = [event.id for event in server.client.fine_tuning.jobs.list_events(id, limit=100)][::-1]
        assert known[: len(before)] == before
        before = known
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        until(lambda: not descendants(home), 60)
        server = Process(home, config)
    server.client.fine_tuning.jobs.cancel(waiting)
    until(lambda: over(server.client, id))
    job = server.client.fine_tuning.jobs.retrieve(id)
    assert job.status == "succeeded", job.error
    events = list(server.client.fine_tuning.jobs.list_events(id, limit=100))[::-1]
    assert [event.id for event in events][: len(before)] == before
    assert [data["step"] for data in steps(server.client, id)] == list(range(1, STEPS + 1))
    assert len({event.id for event in events}) == len(events)
    assert sum("was started again" in event.message for event in events) == 2
    assert server.client.files.retrieve(job.training_file).id == body["training_file"]
    server.process.terminate()
    server.process.wait(60)
    until(lambda: not descendants(home), 60)
