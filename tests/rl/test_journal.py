from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import InputError
from rl.journal import ROOT, Journal
from rl.whole import write_whole

RECORD = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20) | st.none(), min_size=1, max_size=3)


def journal(path: Path) -> Journal:
    return Journal(path, writable=True)


def written(path: Path, *records: dict[str, object]) -> Path:
    with_all = journal(path)
    with_all.append(*records)
    with_all.close()
    return path


@given(st.lists(st.lists(RECORD, max_size=3), max_size=4))
@settings(deadline=None)
def test_what_is_appended_is_read_in_order(tmp_path_factory: pytest.TempPathFactory, batches: list[list[dict]]) -> None:
    path = tmp_path_factory.mktemp("j") / "j.jsonl"
    for batch in batches:
        written(path, *batch)
    assert list(Journal(path).read()) == [record for batch in batches for record in batch]


def test_each_line_is_json_for_any_tool(tmp_path: Path) -> None:
    path = written(tmp_path / "j", {"step": 1, "text": "na\u00efve\n"}, {"sha256": "mine"})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"step", "text", "sha256"}, {"sha256"}]
    assert list(Journal(path).read())[1] == {"sha256": "mine"}


def test_every_way_a_last_line_can_be_cut_short_is_mended(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", {"n": 1}, {"n": 2}).read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path = tmp_path / f"cut{end}"
        path.write_bytes(whole[:end])
        assert list(Journal(path).read()) == [{"n": 1}]
        written(path, {"n": 2})
        assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", ["flip", "lose", "swap", "add"])
def test_damage_in_the_middle_is_named_by_file_and_line(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path / "j.jsonl", *({"n": n} for n in range(4)))
    lines = path.read_text().splitlines()
    if damage == "flip":
        lines[2] = lines[2].replace('"n":2', '"n":7')
    elif damage == "lose":
        del lines[2]
    elif damage == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines.insert(2, '{"n":9}')
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"j\.jsonl:3: this line is not what was written"):
        list(Journal(path).read())
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"j\.jsonl:3"):
        journal(path).append({"n": 4})
    assert path.read_bytes() == before


def test_the_head_stands_for_everything_before_it(tmp_path: Path) -> None:
    assert journal(tmp_path / "none").head == ROOT
    a, b = journal(tmp_path / "a"), journal(tmp_path / "b")
    a.append({"n": 1}, {"n": 2})
    b.append({"n": 0}, {"n": 2})
    assert a.head != b.head
    assert a.head == Journal(tmp_path / "a").head == list(a.lines())[-1].sha256


def test_cutting_takes_back_later_lines_and_the_chain_goes_on(tmp_path: Path) -> None:
    one = journal(tmp_path / "j")
    one.append({"n": 1}, {"n": 2}, {"n": 3})
    second = list(one.lines())[1]
    one.cut(second.start)
    one.append({"n": 4})
    assert list(Journal(tmp_path / "j").read()) == [{"n": 1}, {"n": 4}]


@pytest.mark.parametrize("record", [{}, {"n": float("nan")}, {"n": object()}])
def test_a_record_that_is_no_json_is_refused_and_nothing_is_written(tmp_path: Path, record: dict) -> None:
    one = journal(tmp_path / "j")
    one.append({"n": 1})
    with pytest.raises((ValueError, TypeError)):
        one.append({"n": 2}, record)
    one.append({"n": 3})
    assert list(one.read()) == [{"n": 1}, {"n": 3}]


def test_a_journal_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="opened for reading"):
        Journal(tmp_path / "j").append({"n": 1})
    assert not (tmp_path / "j").exists()


WRITER = """
import os, signal, sys
from pathlib import Path
from rl.journal import Journal
journal = Journal(Path(sys.argv[1]), writable=True)
for n in range(10**9):
    journal.append({"n": n, "text": "x" * 50_000})
    print(n, flush=True)
"""


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            acknowledged = int(process.stdout.readline())
        process.kill()
    found = [record["n"] for record in Journal(path).read()]
    assert found == list(range(len(found)))
    assert len(found) > acknowledged
    written(path, {"n": -1})
    assert list(Journal(path).read())[-1] == {"n": -1}


LIMITED = """
import resource, sys
from pathlib import Path
from envs.errors import InputError
from rl.journal import Journal
from rl.whole import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
journal = Journal(Path(sys.argv[1]) / "j", writable=True)
journal.append({"text": "x" * 3000})
for write in (
    lambda: journal.append({"text": "y" * 500}, {"text": "z" * 3000}),
    lambda: write_whole(Path(sys.argv[1]) / "config.json", "c" * 5000),
):
    try:
        write()
    except InputError as error:
        print(error)
journal.append({"text": "small"})
"""


def test_a_full_disk_is_one_clear_message_and_nothing_half_written(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    messages = done.stdout.splitlines()
    assert [message.split(":")[0] for message in messages] == [str(tmp_path / "j"), str(tmp_path / "config.json")]
    assert all("Make room, then go on with --resume" in message for message in messages)
    assert [record["text"][:5] for record in Journal(tmp_path / "j").read()] == ["xxxxx", "small"]
    assert os.listdir(tmp_path) == ["j"]


def test_a_really_full_disk_says_so(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    try:
        one = journal(tmp_path / "j")
        one.append({"text": "x" * 30_000})
        with pytest.raises(InputError, match="No space left on device"):
            one.append({"text": "y" * 60_000})
        with pytest.raises(InputError, match="No space left on device"):
            write_whole(tmp_path / "config.json", "c" * 60_000)
        assert os.listdir(tmp_path) == ["j"]
        one.append({"text": "small"})
        one.close()
        assert [len(record["text"]) for record in Journal(tmp_path / "j").read()] == [30_000, 5]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
