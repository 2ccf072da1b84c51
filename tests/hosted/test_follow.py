"""What the records of a run tell of a job, however often and by whomever they are read."""

import pytest

from envs.types import Cost, Task
from hosting import LETTERS
from made import played, turn
from rl import checkpoint
from rl.collect import Group
from rl.evaluate import summarise
from rl.feed import Ticket
from rl.hosted.follow import Follower
from rl.hosted.store import Checkpoint, Event, Job, Store
from rl.records import Run

NAME = "ft:tiny:local:mine:12345678"
CONFIG = {"model": "tiny", "trainer": {"max_steps": 8, "eval_steps": 2}}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "server.sqlite")
    yield made
    made.close()


@pytest.fixture
def job(store):
    made = Job(
        id="ftjob-1",
        created_at=1,
        status="running",
        model="tiny",
        body={},
        method={"type": "reinforcement", "reinforcement": {"grader": LETTERS}},
        seed=0,
        fine_tuned_model=NAME,
    )
    store.add(made)
    return made


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", CONFIG) as made:
        yield made


def step(run, number, *, reward=0.5, valid=None, sealed=None):
    """One training step as a run records it; with `valid` an evaluation and a checkpoint behind it."""
    ticket = Ticket(number - 1, Task.ask("?", id=f"t{number}"))
    sampled = turn(prompt=(1, 2), sampled=(3, 4, 5))
    group = tuple(
        played(f"t{number}", value, sample=k, turns=(sampled,), cost=Cost(sampled_tokens=3))
        for k, value in enumerate((reward, reward))
    )
    run.record(number - 1, Group(ticket=ticket, played=group))
    run.metrics.append({"step": number, "loss": 0.1})
    if valid is not None:
        measured = [played("v", valid)]
        run.evaluated("eval/sampled", number, summarise(measured), measured)
    if valid is not None if sealed is None else sealed:
        directory = checkpoint.path(run.path, number)
        directory.mkdir()
        (directory / "adapter_model.safetensors").write_bytes(b"weights")
        checkpoint.seal(directory)


def told(store, kind="metrics"):
    return [event for event in store.all(Event) if event.type == kind]


def test_a_step_is_told_once_it_is_whole(run, job, store):
    follower = Follower(job, run.path, store)
    step(run, 1)
    follower.look()
    assert [event.data["step"] for event in told(store)] == [1]
    step(run, 2)
    follower.look()
    assert len(told(store)) == 1  # its evaluation is still to come
    measured = [played("v", 0.75)]
    run.evaluated("eval/sampled", 2, summarise(measured), measured)
    follower.look()
    last = told(store)[-1]
    assert (last.data["step"], last.data["total_steps"]) == (2, 8)
    assert last.data["scores"]["train_reward_mean"] == 0.5 and last.data["scores"]["valid_reward_mean"] == 0.75
    assert last.message.startswith("Step 2/8")


def test_looking_again_and_by_another_server_tells_nothing_twice(run, job, store):
    for number in (1, 2, 3):
        step(run, number, valid=0.5 if number == 2 else None)
    for _ in range(2):
        follower = Follower(job, run.path, store)
        follower.look()
        follower.look()
    everything = store.all(Event)
    assert [event.data["step"] for event in told(store)] == [1, 2, 3]
    assert [event.message for event in told(store, "message")] == ["Checkpoint created at step 2"]
    assert len({event.id for event in everything}) == len(everything) == 4


def test_a_step_that_is_taken_again_is_not_told_again(run, job, store):
    for number in (1, 2, 3):
        step(run, number, valid=0.5 if number == 2 else None)
    follower = Follower(job, run.path, store)
    follower.look()
    ids = [event.id for event in told(store)]
    run.rewind(2)
    run.metrics.append({"step": 3, "loss": 0.2})
    step(run, 4, valid=0.25)
    for looking in (follower, Follower(job, run.path, store)):
        looking.look()
        assert [event.data["step"] for event in told(store)] == [1, 2, 3, 4]
        assert [event.id for event in told(store)][:3] == ids


def test_the_three_best_checkpoints_are_listed(run, job, store):
    follower = Follower(job, run.path, store)
    for number, valid in ((2, 0.5), (4, 0.1), (6, 0.9), (8, 0.5)):
        step(run, number - 1)
        step(run, number, valid=valid)
        follower.look()
    listed = store.all(Checkpoint, job=job.id)
    assert {one.step for one in listed} == {2, 6, 8}
    assert {one.model for one in listed} == {f"{NAME}:ckpt-step-{number}" for number in (2, 6, 8)}
    assert {one.step: one.metrics["valid_reward_mean"] for one in listed} == {2: 0.5, 6: 0.9, 8: 0.5}


def test_a_checkpoint_that_is_not_whole_or_not_evaluated_is_not_listed(run, job, store):
    step(run, 1, sealed=True)
    checkpoint.path(run.path, 2).mkdir()
    step(run, 2, valid=0.5, sealed=False)
    Follower(job, run.path, store).look()
    assert store.all(Checkpoint) == []


def test_the_results_have_a_row_for_every_step(run, job, store):
    for number in (1, 2, 3):
        step(run, number, reward=number / 10, valid=0.5 if number == 2 else None)
    follower = Follower(job, run.path, store)
    head, *lines = follower.results().splitlines()
    assert head.startswith("step,train_reward_mean,valid_reward_mean")
    assert [line.split(",")[:3] for line in lines] == [["1", "0.1", ""], ["2", "0.2", "0.5"], ["3", "0.3", ""]]
    assert follower.trained_tokens == 3 * 2 * 3


def test_a_supervised_job_tells_of_losses_and_lists_its_newest_checkpoints(run, store):
    method = {"type": "supervised", "supervised": {"hyperparameters": {}}}
    made = Job(
        id="ftjob-2",
        created_at=1,
        status="running",
        model="tiny",
        body={},
        method=method,
        seed=0,
        fine_tuned_model="ft:tiny:local::2",
    )
    store.add(made)
    for number in range(1, 6):
        run.metrics.append({"step": number, "loss": 1 / number, "num_tokens": 10 * number})
        if number % 2 == 0:
            run.metrics.append({"step": number, "eval_loss": 0.25})
        checkpoint.path(run.path, number).mkdir()
        checkpoint.seal(checkpoint.path(run.path, number))
    follower = Follower(made, run.path, store)
    follower.look()
    messages = [event.message for event in told(store)]
    assert messages[0] == "Step 1/8: training loss=1.00"
    assert messages[3] == "Step 4/8: training loss=0.25, validation loss=0.25"
    assert [one.step for one in store.all(Checkpoint)] == [3, 4, 5]
    assert follower.results().splitlines()[0].startswith("step,train_loss")
    assert follower.trained_tokens == 50


def test_a_run_that_is_not_there_yet_tells_nothing(tmp_path, job, store):
    Follower(job, tmp_path / "nowhere", store).look()
    assert store.all(Event) == []
