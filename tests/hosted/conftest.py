"""Servers that tests ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hosting import UNSAFE, Hosting


@pytest.fixture
def hosting(tmp_path: Path) -> Iterator[Hosting]:
    """A server that takes jobs and runs none."""
    made = Hosting(tmp_path / "home", working=False, unsafe_python=UNSAFE)
    yield made
    made.close()
