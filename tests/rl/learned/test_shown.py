"""The embedded policy's own episodes teach what tells its successes from its failures, at tasks nobody trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from rl.config import load
from rl.learned.making import Options, make
from runs import Demo
from scripts.learned import DEMO, sample

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def episodes(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred tasks, eight samples each, of the demo's policy before training."""
    out = tmp_path_factory.mktemp("shown") / "episodes"
    config = load(DEMO, f"model={demo.base}", f"output_dir={out}", "seed=0")
    sample(config, 100)
    return config.output_dir


def test_choosing_by_an_outcome_model_beats_choosing_blindly(episodes: Path, tmp_path: Path) -> None:
    found = make([episodes], tmp_path / "model", Options(kind="outcome", steps=60), print)
    assert found.best_of is not None and (found.best_of.n, found.best_of.tasks) == (8, 30)
    assert found.best_of.difference.low > 0
    area = found.forecasts["episodes"].auroc
    assert area is not None and area.low > 0.5


def test_a_process_model_tells_on_the_way_who_will_succeed(episodes: Path, tmp_path: Path) -> None:
    found = make([episodes], tmp_path / "model", Options(kind="process", steps=60), print)
    for name in ("on the way", "at the end"):
        area, within = found.forecasts[name].auroc, found.forecasts[name].auroc_within
        assert area is not None and area.low > 0.5
        assert within is not None and within.low > 0.5, "not only which tasks are hard"
