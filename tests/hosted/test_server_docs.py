"""The table of the server's behaviours in docs/hosted.md is tied to tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / "docs" / "hosted.md").read_text().splitlines() if "`tests/hosted/" in line]


def test_every_behaviour_is_known_or_decided_and_tied_to_a_test():
    assert len(ROWS) > 25
    for row in ROWS:
        found = re.search(r"\| (known|decided).* \| `(tests/hosted/test_\w+\.py)::(test_\w+)` \|$", row)
        assert found, row
        assert f"def {found[3]}(" in (ROOT / found[2]).read_text(), row
