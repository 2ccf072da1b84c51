"""Tools that raise and tools that hang, by the hundred: every episode has its end, and nothing is left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from envs.types import Stop

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "faults.py"


@pytest.mark.parametrize(("options", "episodes"), [((), 256), (("--blocking",), 64)])
def test_every_episode_ends_in_a_stop_and_nothing_leaks(
    options: tuple[str, ...], episodes: int, tmp_path: Path
) -> None:
    file = tmp_path / "numbers.json"
    command = [sys.executable, str(SCRIPT), "--episodes", str(episodes), "--json", str(file), *options]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode in (0, 1), ran.stderr  # 1 speaks of time, which a test does not judge
    numbers = json.loads(file.read_text())
    assert sum(numbers["stops"].values()) == episodes
    assert set(numbers["stops"]) <= {stop.value for stop in Stop} - {Stop.FAULT.value, Stop.ENV_LOST.value}
    assert numbers["faults"]["raised"] > 0 and numbers["faults"]["timeout"] > 0
    assert all(numbers["left"][name] <= 0 for name in ("tasks", "files", "children", "threads"))
