"""docs/bench.md says what the bench finds."""

import re
from pathlib import Path

from rewards.bench import KINDS

DOCS = (Path(__file__).parents[3] / "docs" / "bench.md").read_text()


def test_every_kind_of_finding_is_explained_with_its_weight():
    assert dict(re.findall(r"^\| `(\w+)` \| (stop|fix|note) \|", DOCS, flags=re.MULTILINE)) == KINDS
