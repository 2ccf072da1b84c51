"""What is written is there whole, or not there. A full disk is tried in test_journal.py."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rl.whole import sweep, whole_directory, write_whole


def test_a_whole_file_replaces_the_one_before(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "1")
    write_whole(tmp_path / "a", "22")
    assert (tmp_path / "a").read_text() == "22"
    assert os.listdir(tmp_path) == ["a"]


def test_a_whole_directory_replaces_the_one_before(tmp_path: Path) -> None:
    place = tmp_path / "new" / "adapter"
    for name in ("one", "other"):
        with whole_directory(place) as draft:
            (draft / name).touch()
            assert not (place / name).exists()
    assert os.listdir(place) == ["other"] and os.listdir(place.parent) == ["adapter"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o755, "others may read it"


def test_an_error_leaves_a_directory_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    with whole_directory(place) as draft:
        (draft / "one").touch()
    with pytest.raises(RuntimeError), whole_directory(place) as draft:
        (draft / "other").touch()
        raise RuntimeError
    assert os.listdir(place) == ["one"] and os.listdir(tmp_path) == ["adapter"]


def test_what_a_killed_process_has_left_of_a_directory_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".adapter.x1", ".adapter.x2", "adapter", ".adapters.x3", "base"):
        (tmp_path / name).mkdir()
    sweep(tmp_path / "adapter")
    assert sorted(os.listdir(tmp_path)) == [".adapters.x3", "adapter", "base"]
