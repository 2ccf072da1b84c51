"""`/v1/fine_tuning/jobs` as far as no job runs: creating, listing, the queue, and all that is refused."""

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from hosting import LETTERS, UNSAFE, Hosting, reinforcement, rows


@pytest.fixture
def files(hosting):
    return hosting.upload(rows("train", 8), "train.jsonl"), hosting.upload(rows("valid", 4), "valid.jsonl")


@pytest.fixture
def create(hosting, files):
    """Creates a job of the two files, with changes."""

    def make(**more):
        return hosting.client.post("/fine_tuning/jobs", cast_to=FineTuningJob, body=reinforcement(*files, **more))

    return make


def test_a_job_is_created_as_the_service_describes_it(hosting, create, files):
    job = create(suffix="mine", seed=7, metadata={"a": "b"}, hyperparameters={"n_epochs": 2})
    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "queued", "tiny", 7)
    assert (job.training_file, job.validation_file) == files
    assert (job.metadata, job.result_files, job.fine_tuned_model) == ({"a": "b"}, [], None)
    found = job.method.reinforcement.hyperparameters
    assert found.n_epochs == 2 and "auto" not in found.to_dict().values()
    assert hosting.client.fine_tuning.jobs.retrieve(job.id) == job
    messages = [event.message for event in hosting.client.fine_tuning.jobs.list_events(job.id)]
    assert messages[:2] == ["Files validated, moving job to queued state", f"Created fine-tuning job: {job.id}"]


def test_a_seed_that_was_not_said_is_drawn_and_told(create):
    assert len({create().seed for _ in range(3)}) == 3


def test_jobs_are_listed_newest_first_by_the_page_and_by_metadata(hosting, create):
    ids = [create(metadata={"kind": kind}).id for kind in "abab"]
    jobs = hosting.client.fine_tuning.jobs
    assert [job.id for job in jobs.list(limit=3)] == ids[::-1]
    assert [job.id for job in jobs.list(metadata={"kind": "a"}, limit=1)] == [ids[2], ids[0]]
    assert jobs.list(limit=4).has_more is False


def test_a_job_that_waits_is_paused_resumed_and_cancelled(hosting, create):
    jobs, id = hosting.client.fine_tuning.jobs, create().id
    assert jobs.pause(id).status == "paused"
    assert jobs.resume(id).status == "queued"
    assert jobs.cancel(id).status == "cancelled"
    said = [event.message for event in jobs.list_events(id)]
    assert said[:3] == [
        "The job was cancelled",
        "The job was resumed, moving it to queued state",
        "The job was paused",
    ]
    for change in (jobs.pause, jobs.resume, jobs.cancel):
        with pytest.raises(openai.BadRequestError, match="is cancelled") as refused:
            change(id)
        assert refused.value.code == "invalid_job_state"


def test_a_queue_that_is_full_takes_no_more(hosting, create, monkeypatch):
    monkeypatch.setattr("rl.hosted.jobs.QUEUE", 2)
    first, _ = create(), create()
    with pytest.raises(openai.RateLimitError, match="2 jobs are waiting"):
        create()
    hosting.client.fine_tuning.jobs.cancel(first.id)
    create()


def test_events_come_by_the_page_and_as_a_stream(hosting, create):
    id = create().id
    jobs = hosting.client.fine_tuning.jobs
    jobs.cancel(id)
    everything = list(jobs.list_events(id, limit=2))
    assert len(everything) == len(list(jobs.list_events(id, limit=100))) >= 3
    stream = hosting.ask("GET", f"/v1/fine_tuning/jobs/{id}/events", params={"stream": "true"}).text
    parts = [part.removeprefix("data: ") for part in stream.split("\n\n") if part]
    assert parts[-1] == "[DONE]"
    assert [event.id in part for event, part in zip(reversed(everything), parts, strict=False)] == [True] * (
        len(parts) - 1
    )


def _without(row, key):
    return {name: value for name, value in row.items() if name != key}


BAD_ROWS = {
    "last message not user": [{"messages": [{"role": "assistant", "content": "hi"}], "letters": "", "wanted": ""}],
    "no messages": [{"letters": "a"}],
    "not objects": [[1, 2]],
    "none": [],
    "no row has the field": [_without(row, "wanted") for row in rows("bad", 3)],
}


@pytest.mark.parametrize("what", BAD_ROWS)
@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_a_file_that_can_not_be_used_is_refused_by_its_param(hosting, files, what, param):
    bad = hosting.upload(BAD_ROWS[what], "bad.jsonl")
    with pytest.raises(openai.BadRequestError) as refused:
        hosting.client.post("/fine_tuning/jobs", cast_to=dict, body=reinforcement(*files) | {param: bad})
    assert (refused.value.param, refused.value.code) == (param, f"invalid_{param}")
    assert "bad.jsonl" in refused.value.message
    assert hosting.client.fine_tuning.jobs.list().data == []


def test_too_many_validation_rows_are_refused(hosting, files):
    bad = hosting.upload(rows("bad", 1001), "bad.jsonl")
    with pytest.raises(openai.BadRequestError, match="1,001 rows"):
        hosting.client.post("/fine_tuning/jobs", cast_to=dict, body=reinforcement(files[0], bad))


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": "o4-mini"}, "model", "model_not_found"),
        ({"validation_file": None}, "validation_file", "missing_required_parameter"),
        ({"validation_file": "file-nowhere"}, "validation_file", "invalid_validation_file"),
        ({"training_file": "../../etc/passwd"}, "training_file", "invalid_training_file"),
        ({"suffix": "x" * 65}, "suffix", "string_above_max_length"),
        ({"sufix": "x"}, "sufix", "unknown_parameter"),
        ({"seed": "x"}, "seed", "invalid_type"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type", "unsupported_value"),
    ],
)
def test_a_job_that_can_not_be_is_refused_by_its_param(hosting, files, change, param, code):
    with pytest.raises(openai.BadRequestError) as refused:
        hosting.client.post("/fine_tuning/jobs", cast_to=dict, body=reinforcement(*files) | change)
    assert (refused.value.param, refused.value.code, refused.value.type) == (param, code, "invalid_request_error")


def test_a_supervised_job_is_queued_too(hosting):
    reply = {"role": "assistant", "content": "four"}
    train = hosting.upload([{"messages": [*row["messages"], reply]} for row in rows("train", 4)])
    body = {"model": "tiny", "training_file": train, "method": {"type": "supervised"}}
    job = hosting.client.post("/fine_tuning/jobs", cast_to=FineTuningJob, body=body)
    assert (job.status, job.validation_file, job.method.type) == ("queued", None, "supervised")
    assert job.hyperparameters.n_epochs == job.method.supervised.hyperparameters.n_epochs == 3


def test_a_grader_that_can_not_be_is_refused(create):
    with pytest.raises(openai.BadRequestError) as refused:
        create(grader=LETTERS | {"calculate_output": "vowels +"})
    assert refused.value.code == "invalid_grader"


@pytest.mark.parametrize("path", ["", "/events", "/checkpoints"])
def test_what_is_not_there_is_404(hosting, path):
    answer = hosting.ask("GET", f"/v1/fine_tuning/jobs/ftjob-nowhere{path}")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


def test_a_page_behind_nothing_is_refused(hosting):
    for path in ("/v1/files", "/v1/fine_tuning/jobs"):
        assert hosting.ask("GET", path, params={"after": "nothing"}).json()["error"]["param"] == "after"


def test_ids_and_the_queue_are_there_when_the_server_is_started_again(hosting, create, tmp_path):
    ids = [create().id for _ in range(2)]
    events = [event.id for event in hosting.client.fine_tuning.jobs.list_events(ids[0])]
    hosting.server.store.close()
    hosting.server.lock.close()
    again = Hosting(tmp_path / "home", working=False, unsafe_python=UNSAFE)
    assert [job.id for job in again.client.fine_tuning.jobs.list()] == ids[::-1]
    assert [event.id for event in again.client.fine_tuning.jobs.list_events(ids[0])] == events
    again.close()


def test_one_server_has_one_base_model(tmp_path):
    with pytest.raises(ValueError, match="one base model, not 2"):
        Hosting(tmp_path / "home", working=False, models={"a": "tiny", "b": "Qwen/Qwen3-0.6B"})


def test_the_models_are_the_base_by_all_its_names(tmp_path):
    made = Hosting(tmp_path / "home", working=False, models={"o4-mini-2025-04-16": "tiny", "tiny": "tiny"})
    assert {model.id for model in made.client.models.list()} == {"o4-mini-2025-04-16", "tiny"}
    assert made.client.models.retrieve("tiny").owned_by == "org-local"
    with pytest.raises(openai.NotFoundError, match="did you mean 'tiny'"):
        made.client.models.retrieve("tini")
    made.close()
