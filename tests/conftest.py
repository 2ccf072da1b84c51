"""Laws are tried on the same examples every time, and a busy machine does not make them fail."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


@pytest.fixture(scope="session")
def random_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned nothing, with the embedded policy's tokenizer: for what needs no skill."""
    from rl import tiny

    return tiny.random_model(tmp_path_factory.mktemp("random") / "base", seed=0)
