"""`/v1/files`, asked by the official client."""

import os
import sqlite3

import httpx
import openai
import pytest

from hosting import Hosting, reinforcement, rows
from rl.hosted.store import File, Store


def test_a_file_comes_back_as_it_was_sent(hosting):
    sent = b'{"messages": [], "text": "caf\xc3\xa9"}\n'
    made = hosting.client.files.create(file=("rows.jsonl", sent), purpose="fine-tune")
    assert (made.bytes, made.filename, made.purpose, made.status) == (len(sent), "rows.jsonl", "fine-tune", "processed")
    assert hosting.client.files.retrieve(made.id) == made
    assert hosting.client.files.content(made.id).read() == sent
    assert hosting.client.files.wait_for_processing(made.id, poll_interval=0.01) == made


def test_files_are_listed_newest_first_and_by_the_page(hosting):
    ids = [hosting.upload([{"n": n}]) for n in range(5)]
    assert [file.id for file in hosting.client.files.list(limit=2)] == ids[::-1]
    first = hosting.client.files.list(limit=2, order="asc")
    assert [file.id for file in first.data] == ids[:2] and first.has_more
    assert [file.id for file in hosting.client.files.list(purpose="fine-tune-results")] == []


def test_a_deleted_file_is_gone_with_its_bytes(hosting, tmp_path):
    id = hosting.upload([{"n": 1}])
    assert hosting.client.files.delete(id).deleted
    with pytest.raises(openai.NotFoundError) as refused:
        hosting.client.files.content(id)
    assert refused.value.code == "not_found"
    assert list((tmp_path / "home" / "files").iterdir()) == []


def test_a_file_that_a_job_needs_stays(hosting):
    train, valid = hosting.upload(rows("train", 4)), hosting.upload(rows("valid", 2))
    job = hosting.client.post("/fine_tuning/jobs", cast_to=dict, body=reinforcement(train, valid))
    with pytest.raises(openai.BadRequestError, match="in use by job"):
        hosting.client.files.delete(valid)
    hosting.client.fine_tuning.jobs.cancel(job["id"])
    assert hosting.client.files.delete(valid).deleted


@pytest.mark.parametrize(
    "name", ["../../evil.jsonl", "/etc/passwd", "..\\..\\evil", "a/b/c", "..", "\x00\n", "x" * 4000]
)
def test_a_name_leads_nowhere(hosting, tmp_path, name):
    made = hosting.client.files.create(file=(name, b"{}"), purpose="fine-tune")
    inside = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert inside - {f"home/{own}" for own in (".lock", "server.sqlite", "server.sqlite-wal", "server.sqlite-shm")} == {
        f"home/files/{made.id}"
    }
    assert "/" not in made.filename and "\\" not in made.filename and 0 < len(made.filename) <= 255


@pytest.mark.parametrize("id", ["../server.sqlite", "..%2Fserver.sqlite", "%2e%2e", "file-0"])
def test_an_id_leads_nowhere(hosting, id):
    for path in (f"/v1/files/{id}", f"/v1/files/{id}/content"):
        assert hosting.ask("GET", path).status_code == 404


def test_another_purpose_is_refused(hosting):
    with pytest.raises(openai.BadRequestError) as refused:
        hosting.client.files.create(file=("a", b"{}"), purpose="batch")
    assert (refused.value.param, refused.value.code) == ("purpose", "invalid_value")


def test_an_upload_of_600_mb_is_refused_and_never_held(hosting, tmp_path):
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    chunk = bytes(1 << 20)

    def body():
        yield head
        for _ in range(600):
            yield chunk

    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(len(head) + (600 << 20))}
    before = _peak()
    answer = hosting.ask("POST", "/v1/files", content=body(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "file_too_large" and "512 MB" in answer.json()["error"]["message"]
    assert _peak() - before < 64 << 10
    assert not list((tmp_path / "home" / "files").iterdir())


def _peak() -> int:
    """The most memory this process has had, in kB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"no multipart at all", "multipart/form-data; boundary=x"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\n\r\n--x--", "multipart/form-data"),
        (b"{}", "application/json"),
        (b"", "multipart/form-data; boundary=x"),
    ],
)
def test_malformed_forms_are_refused_in_the_hosted_shape(hosting, content, kind):
    answer = hosting.ask("POST", "/v1/files", content=content, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_what_a_killed_server_left_of_an_upload_is_swept(tmp_path):
    first = Hosting(tmp_path / "home", working=False)
    kept = first.upload([{"n": 1}])
    first.close()
    (tmp_path / "home" / "files" / ".incoming-abc").write_bytes(b"half")
    (tmp_path / "home" / "files" / "file-unknown").write_bytes(b"no row")
    second = Hosting(tmp_path / "home", working=False)
    assert [path.name for path in (tmp_path / "home" / "files").iterdir()] == [kept]
    assert [file.id for file in second.client.files.list()] == [kept]
    second.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        store = Store(tmp_path / "server.sqlite")
        for number in range(20):
            store.add(File(id=f"file-{number}", created_at=1, bytes=1, filename="a", purpose="fine-tune"))
            os.write(writing, b"x")
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert len(os.read(reading, 100)) == 20
    assert len(Store(tmp_path / "server.sqlite").all(File)) == 20
    assert sqlite3.connect(tmp_path / "server.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_home_has_one_server(hosting, tmp_path):
    with pytest.raises(ValueError, match="written by another process"):
        Hosting(tmp_path / "home", working=False)


def test_a_body_of_unknown_length_is_cut_off(hosting):
    def body():
        for _ in range(20):
            yield bytes(1 << 20)

    answer = hosting.ask("POST", "/v1/fine_tuning/jobs", content=body(), headers={"content-type": "application/json"})
    assert isinstance(answer, httpx.Response) and answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
