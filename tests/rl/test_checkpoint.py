from pathlib import Path

import pytest

from envs.errors import InputError
from rl import checkpoint


def made(run: Path, step: int, *, sealed: bool = True) -> Path:
    directory = checkpoint.path(run, step)
    (directory / "sub").mkdir(parents=True)
    (directory / "weights").write_bytes(bytes(range(256)) * step)
    (directory / "sub" / "more").write_text("x")
    checkpoint.write_state(directory, 0, {"dealt": step})
    if sealed:
        checkpoint.seal(directory)
    return directory


def test_the_newest_whole_checkpoint_is_found_and_half_written_ones_are_swept(tmp_path: Path) -> None:
    good, half = made(tmp_path, 9), made(tmp_path, 10, sealed=False)
    assert checkpoint.newest(tmp_path) == good
    assert checkpoint.sweep(tmp_path) == [half]
    assert not half.exists()
    assert checkpoint.read_state(good, 0) == {"dealt": 9}


def test_the_last_one_up_to_a_step_is_found(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        made(tmp_path, step)
    assert checkpoint.newest(tmp_path, upto=14) == checkpoint.path(tmp_path, 10)
    assert checkpoint.newest(tmp_path, upto=5) == checkpoint.path(tmp_path, 5)
    assert checkpoint.newest(tmp_path, upto=4) is None


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_checkpoint_does_not_count(tmp_path: Path, damage: str) -> None:
    made(tmp_path, 1)
    weights = made(tmp_path, 2) / "weights"
    body = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(body[:-1] if damage == "cut" else body[:-1] + b"!")
    assert checkpoint.newest(tmp_path) == checkpoint.path(tmp_path, 1)


def test_only_the_last_ones_are_kept_and_order_is_by_number(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        made(tmp_path, step)
    checkpoint.keep(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11"]
    made(tmp_path, 12)
    checkpoint.keep(tmp_path, 1, also=[10])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-12"]


def test_resuming_with_more_processes_than_before_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="as many as the run began with"):
        checkpoint.read_state(made(tmp_path, 1), 1)
