"""Where adapters lie on their way to the engine."""

from __future__ import annotations

from pathlib import Path

from rl import exports


def test_a_sweep_removes_what_this_run_left_and_nothing_else(tmp_path: Path) -> None:
    mine = [exports.place(tmp_path / "run", rank) for rank in (0, 1)]
    other = exports.place(tmp_path / "other", 0)
    assert len({*mine, other}) == 3
    try:
        for place in (*mine, other):
            place.mkdir(parents=True)
            (place / "adapter_model.safetensors").write_text("x")
        exports.sweep(tmp_path / "run")
        assert [place.exists() for place in (*mine, other)] == [False, False, True]
    finally:
        exports.sweep(tmp_path / "other")
    assert not other.exists()
