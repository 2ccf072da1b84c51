from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from envs.errors import InputError
from envs.types import Task
from made import played, turn
from rl.collect import Group
from rl.evaluate import summarise
from rl.feed import Ticket
from rl.lock import Lock, held
from rl.records import Recorded, Run, find_runs

CONFIG = {"model": "tiny", "trainer": {"learning_rate": 1e-05}}


def group(position: int, values: tuple[float, ...] = (0.0, 1.0)) -> Group:
    ticket = Ticket(position, Task.ask("?", id=f"t{position}"))
    sampled = turn(prompt=(1, 2, 3), sampled=(4, 5))
    return Group(
        ticket=ticket,
        played=tuple(played(f"t{position}", v, sample=k, turns=(sampled,)) for k, v in enumerate(values)),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "one"


def test_a_run_keeps_config_versions_and_what_happened(path: Path) -> None:
    with Run.create(path, CONFIG) as run:
        run.record(0, group(0))
        run.metrics.append({"step": 1, "loss": 0.5})
        run.evaluated("trained/greedy", 1, summarise([played()]), [played()])
        run.note("update", step=1, version=1)
        run.flush()
    run = Run.read(path)
    assert run.config == CONFIG
    assert run.versions["python"].startswith("3.")
    assert run.versions["machine"]["cores"] >= 1
    assert list(run.metrics.read()) == [{"step": 1, "loss": 0.5}]
    assert [(e["label"], e["success"]["mean"]) for e in run.evaluations()] == [("trained/greedy", 1.0)]
    assert [entry["kind"] for entry in run.ledger.read()] == ["created", "update"]
    assert list(run.episodes()) == [
        Recorded(step=0, position=0, sample=k, played=p) for k, p in enumerate(group(0).played)
    ]
    run.verify()


def test_recorded_groups_are_found_again_by_step_and_position(path: Path) -> None:
    with Run.create(path, CONFIG) as run:
        for step, position in [(0, 0), (0, 1), (1, 2)]:
            run.record(step, group(position))
        assert set(run.recorded(0)) == {0, 1}
    with Run.resume(path) as run:
        assert {step: set(run.recorded(step)) for step in (0, 1, 2)} == {0: {0, 1}, 1: {2}, 2: set()}
        assert tuple(run.recorded(1)[2]) == group(2).played
        run.record(1, group(3))
        assert set(run.recorded(1)) == {2, 3}


def test_a_group_is_recorded_once(path: Path) -> None:
    with Run.create(path, CONFIG) as run:
        run.record(0, group(0))
    with Run.resume(path) as run, pytest.raises(ValueError, match="recorded before"):
        run.record(0, group(0))


def test_a_group_cut_short_by_a_kill_is_not_there(path: Path) -> None:
    with Run.create(path, CONFIG) as run:
        run.record(0, group(0, (0.0, 1.0, 2.0)))
        run.record(0, group(1, (0.0, 1.0, 2.0)))
    file = path / "episodes.jsonl"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    for torn in (lines[:4], lines[:5], [*lines[:5], lines[5][:-1]], [*lines[:3], lines[3][:10]]):
        file.write_bytes(b"".join(torn))
        assert set(Run.read(path).recorded(0)) == {0}
        with Run.resume(path) as run:
            assert set(run.recorded(0)) == {0}
            run.record(0, group(1, (0.0, 1.0, 2.0)))
        assert file.read_bytes() == whole


def test_every_rank_writes_its_own_episodes_and_they_are_read_together(path: Path) -> None:
    with Run.create(path, CONFIG) as zero, Run.resume(path, rank=1) as one:
        zero.record(0, group(0))
        one.record(0, group(1))
        assert set(one.recorded(0)) == {1}
    found = [(r.position, r.sample) for r in Run.read(path).episodes()]
    assert sorted(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_directory_that_holds_a_run_is_refused(path: Path) -> None:
    Run.create(path, CONFIG).close()
    before = sorted((p.name, p.read_bytes()) for p in path.iterdir())
    with pytest.raises(InputError, match="holds another run; go on with that by --resume, or name another"):
        Run.create(path, {"model": "other"})
    assert sorted((p.name, p.read_bytes()) for p in path.iterdir()) == before


def test_records_without_a_config_are_not_written_over(path: Path) -> None:
    Run.create(path, CONFIG).close()
    (path / "config.json").unlink()
    with pytest.raises(InputError, match="holds another run"):
        Run.create(path, CONFIG)


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; name a directory"):
        Run.create(tmp_path / "file", CONFIG)
    with pytest.raises(InputError, match="can't be made: Not a directory"):
        Run.create(tmp_path / "file" / "run", CONFIG)


@pytest.mark.parametrize("open_run", [Run.resume, Run.read])
def test_where_there_is_no_run_none_can_be_opened(tmp_path: Path, open_run: object) -> None:
    with pytest.raises(InputError, match="holds no run"):
        open_run(tmp_path)  # type: ignore[operator]
    assert os.listdir(tmp_path) == []


def test_a_run_has_one_writer(path: Path) -> None:
    with Run.create(path, CONFIG) as run:
        assert Run.read(path).running
        with pytest.raises(InputError, match=rf"is being written by another process \(pid {os.getpid()}\)"):
            Run.resume(path)
        run.metrics.append({"step": 1})
    assert not Run.read(path).running
    Run.resume(path).close()


HOLDER = """
import os, sys, time
from pathlib import Path
from rl.lock import Lock
lock = Lock(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    time.sleep(30)
print(child, flush=True)
time.sleep(30)
"""


def test_a_lock_is_free_when_its_holder_was_killed_even_if_a_forked_child_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert held(path)
            process.kill()
            process.wait()
            os.kill(child, 0)
            deadline = time.monotonic() + 10  # the child may not have run yet
            while held(path) and time.monotonic() < deadline:
                time.sleep(0.01)
            Lock(path).close()
        finally:
            os.kill(child, 9)


def test_metrics_and_evaluations_of_steps_that_will_be_done_again_are_taken_back(path: Path) -> None:
    with Run.create(path, CONFIG) as run:
        for step in (0, 2, 3):
            run.evaluated("eval/greedy", step, summarise([]), [played("t0")])
        run.metrics.append(*({"step": step, "loss": 0.1} for step in (1, 2, 3, 4)))
    with Run.resume(path) as run:
        run.rewind(2)
        run.metrics.append({"step": 3, "loss": 0.2})
        run.rewind(3)
    assert [(m["step"], m["loss"]) for m in Run.read(path).metrics.read()] == [(1, 0.1), (2, 0.1), (3, 0.2)]
    assert [evaluation["step"] for evaluation in Run.read(path).evaluations()] == [0, 2]
    assert (path / "evaluated.jsonl").read_text().count("\n") == 2


def test_state_that_is_no_json_is_the_environments_fault_and_nothing_is_written(path: Path) -> None:
    good = group(0)
    bad = replace(good, played=(good.played[0], played("t0", 1.0, sample=1)))
    bad.played[1].episode.state = {"orders": {1, 2}}
    with Run.create(path, CONFIG) as run:
        with pytest.raises(InputError, match=r"environment 'made'.*not plain JSON.*set"):
            run.record(0, bad)
        run.record(0, good)
        assert set(run.recorded(0)) == {0}


@pytest.mark.parametrize("name", ["metrics.jsonl", "episodes.jsonl", "ledger.jsonl"])
def test_a_damaged_record_stops_the_resume_and_is_named(path: Path, name: str) -> None:
    with Run.create(path, CONFIG) as run:
        run.record(0, group(0))
        run.metrics.append({"step": 1}, {"step": 2})
        run.note("update", step=1)
    text = (path / name).read_bytes()
    (path / name).write_bytes(b'{"x' + text[3:])
    for attempt in (lambda: Run.resume(path), lambda: Run.read(path).verify()):
        with pytest.raises(InputError, match=rf"{name}:1: this line is not what was written"):
            attempt()
    assert not held(path / ".lock"), "a refused resume leaves no lock"


def test_a_config_changed_afterwards_is_found(path: Path) -> None:
    Run.create(path, CONFIG).close()
    config = path / "config.json"
    config.write_text(json.dumps({"model": "better"}))
    with pytest.raises(InputError, match="not the config that the ledger says"):
        Run.read(path).verify()


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "deep/er", "old"]):
        Run.create(tmp_path / name, CONFIG).close()
        os.utime(tmp_path / name / "config.json", (1000 - age, 1000 - age))
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "config.json").write_text("{}")
    assert [str(run.relative_to(tmp_path)) for run in find_runs(tmp_path)] == ["new", "deep/er", "old"]


LIMITED = """
import resource, sys
from pathlib import Path
from envs.errors import InputError
from rl.records import Run
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    Run.create(Path(sys.argv[1]), {"model": "x" * 3000})
except InputError as error:
    print(error)
"""


def test_no_space_for_the_config_leaves_nothing_that_looks_like_a_run(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    assert "Make room" in done.stdout
    assert find_runs(tmp_path) == []
    Run.create(tmp_path, CONFIG).close()
