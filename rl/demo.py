"""The demo: a small model made on the spot learns, in minutes and on a CPU, to do its job at a desk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.config import Config
from rl.evaluate import Report
from rl.train import Training
from rl.watch import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demo measured."""

    run: Path
    base: Mapping[str, Report]
    """"greedy" and "sampled" -> the policy before training."""
    trained: Mapping[str, Report]
    seconds: Mapping[str, float]
    """warm_start, train and total."""

    def as_dict(self) -> dict[str, Any]:
        """Success as {mean, low, high} of each policy, and the seconds."""

        def success(reports: Mapping[str, Report]) -> dict[str, Any]:
            return {name: report.as_dict()["success"] for name, report in reports.items()}

        return {"base": success(self.base), "trained": success(self.trained), "seconds": dict(self.seconds)}


def demo(config: Config, watcher: Watcher) -> Demo:
    """Warm start, measure, train, measure again; everything is in the run's records."""
    started = time.perf_counter()
    training = Training(config, resume=False, watcher=watcher)
    try:
        base = _measure(training, "base")
        trained = training.train()
        after = _measure(training, "trained")
    finally:
        training.close()
    seconds = {
        "warm_start": training.warm_start_seconds,
        "train": trained.seconds,
        "total": time.perf_counter() - started,
    }
    return Demo(run=trained.run, base=base, trained=after, seconds=seconds)


def _measure(training: Training, label: str) -> dict[str, Report]:
    return {
        "greedy": training.measure(label, greedy=True),
        "sampled": training.measure(label, greedy=False),
    }
