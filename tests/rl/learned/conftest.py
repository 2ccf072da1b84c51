"""A run to learn from, and reward models made of it: they know little, and are all there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rl.learned.making import Options, make
from rl.learned.record import Kind


@pytest.fixture(scope="session")
def desk_run(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tasks at the desk, four careless episodes each."""
    import desk_runs

    return desk_runs.record(random_base, tmp_path_factory.mktemp("desk") / "run", tasks=12, samples=4)


@pytest.fixture(scope="session")
def learned_model(desk_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Path]:
    """A directory with a reward model of a kind, after two steps."""
    made: dict[Kind, Path] = {}

    def get(kind: Kind) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "model"
            make([desk_run], made[kind], Options(kind=kind, steps=2, batch=4), print)
        return made[kind]

    return get
