"""The tables of docs/jobs.md are tied to tests that are there."""

import re
from pathlib import Path

from rl.hosted.body import Body, Reinforcement, ReinforcementHyperparameters
from rl.hosted.export import TARGETS

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "jobs.md").read_text()
ROWS = [line for line in DOCS.splitlines() if "`tests/" in line]


def test_every_row_is_tied_to_a_test_that_is_there():
    assert len(ROWS) > 30
    for row in ROWS:
        file, name = re.search(r"`(tests/\w+/test_\w+\.py)::(test_\w+)` \|$", row).groups()
        assert f"def {name}(" in (ROOT / file).read_text(), row


def test_every_field_of_a_job_and_every_target_is_in_the_documentation():
    fields = {*ReinforcementHyperparameters.model_fields, *Reinforcement.model_fields, *Body.model_fields, *TARGETS}
    for name in fields - {"hyperparameters", "suffix", "metadata"}:
        assert name in DOCS, name
