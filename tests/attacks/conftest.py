"""One broker a tier for all attacks, and a count of what was carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from attacks.ground import Ground

TEST = "test_an_attack_comes_to_nothing"


@pytest.fixture(scope="session")
def ground() -> Iterator[Callable[[str], Ground]]:
    """The ground of a tier, made when first asked for."""
    made: dict[str, Ground] = {}

    def get(tier: str) -> Ground:
        if tier not in made:
            made[tier] = Ground(tier)
        return made[tier]

    yield get
    for each in made.values():
        each.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many attacks each tier saw, and why some were not carried out."""
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            name = getattr(report, "nodeid", "").rpartition("::")[2]
            if name.startswith(TEST) and "[" in name:
                tier = name[name.index("[") + 1 :].split("-")[0]
                counts.setdefault(tier, Counter())[outcome] += 1
                if outcome == "skipped" and isinstance(report.longrepr, tuple):
                    reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    if not counts:
        return
    terminalreporter.section("attacks")
    for tier, count in counts.items():
        carried_out = count["passed"] + count["failed"] + count["error"]
        unsafe = count["failed"] + count["error"]
        terminalreporter.line(
            f"{tier}: {carried_out} of {count.total()} carried out, {unsafe} unsafe, {count['skipped']} not carried out"
        )
    for reason, number in reasons.items():
        terminalreporter.line(f"  not carried out, {number} times: {reason}")
