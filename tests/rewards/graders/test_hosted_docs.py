"""The table of behaviours in docs/hosted.md is tied to tests that are there."""

import re
from pathlib import Path

from rewards.graders import Settings

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "hosted.md").read_text()
ROWS = [line for line in DOCS.splitlines() if re.search(r"\| `test_\w+\.py::", line)]


def test_every_behaviour_is_tied_to_a_test_that_is_there():
    assert len(ROWS) > 30
    for row in ROWS:
        file, name = re.search(r"`(test_\w+\.py)::(test_\w+)` \|$", row).groups()
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(), row


def test_every_behaviour_is_known_or_decided():
    for row in ROWS:
        assert re.search(r"\| (known|decided)", row), row


def test_every_switch_is_in_the_documentation():
    for name in Settings.model_fields:
        assert name in DOCS, name
