"""What "auto" comes to: rules of ours where the service's are not known. docs/hosted.md has them as a table.

All are pure functions of the numbers of rows and of what was decided before, in the order of this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from rl.hosted.body import ReinforcementHyperparameters, SupervisedHyperparameters

GROUP = 8
"""Samples of a prompt in a step, where compute_multiplier is 1."""
STEPS = 100
"""How many steps a job should come to."""
EVALUATIONS = 10
"""How many evaluations it should have."""
EPISODES = 100
"""How many episodes an evaluation should have at least."""

AUTO: Final = "auto"


def batch_size(rows: int) -> int:
    """Prompts a step: the power of two nearest to a sixteenth of the rows, from 4 to 64, and never more than there are.

    Example: 12 rows 4, 100 rows 8 (nearer to 6.25 than 4 is, in ratio), 1,000 rows 64.
    """
    return min(rows, 64, max(4, 1 << round(math.log2(max(rows / 16, 1)))))


def n_epochs(rows: int, batch: int) -> int:
    """As often through the data as about 100 steps take, from once to ten times."""
    return min(10, max(1, round(STEPS * batch / rows)))


def steps(rows: int, batch: int, epochs: int) -> int:
    """Updates: every row `epochs` times, the last step filled up from the next epoch."""
    return math.ceil(rows * epochs / batch)


def group(compute_multiplier: float) -> int:
    """Samples of a prompt in a step: 8 times the multiplier, and at least two, or there would be nothing to compare."""
    return max(2, round(GROUP * compute_multiplier))


def eval_interval(total: int) -> int:
    """About ten evaluations a job, the one after the last step included."""
    return max(1, math.ceil(total / EVALUATIONS))


def eval_samples(rows: int) -> int:
    """As often each validation row as makes 100 episodes, from once to 8 times."""
    return min(8, max(1, math.ceil(EPISODES / rows)))


def reinforcement(asked: ReinforcementHyperparameters, *, train: int, valid: int) -> ReinforcementHyperparameters:
    """The hyperparameters with every "auto" decided, for so many rows."""
    found: dict[str, Any] = dict(asked)
    found["batch_size"] = _or(found, "batch_size", batch_size(train))
    found["n_epochs"] = _or(found, "n_epochs", n_epochs(train, found["batch_size"]))
    found["learning_rate_multiplier"] = _or(found, "learning_rate_multiplier", 1.0)
    found["compute_multiplier"] = _or(found, "compute_multiplier", 1.0)
    total = steps(train, found["batch_size"], found["n_epochs"])
    found["eval_interval"] = _or(found, "eval_interval", eval_interval(total))
    found["eval_samples"] = _or(found, "eval_samples", eval_samples(valid))
    return ReinforcementHyperparameters(**found)


def supervised(asked: SupervisedHyperparameters, *, train: int) -> SupervisedHyperparameters:
    """The same for a supervised job: batches of 0.2 % of the rows, from 1 to 256, and three epochs."""
    found: dict[str, Any] = dict(asked)
    found["batch_size"] = _or(found, "batch_size", min(256, max(1, round(0.002 * train))))
    found["n_epochs"] = _or(found, "n_epochs", 3)
    found["learning_rate_multiplier"] = _or(found, "learning_rate_multiplier", 1.0)
    return SupervisedHyperparameters(**found)


def _or(found: Mapping[str, Any], name: str, rule: Any) -> Any:
    return rule if found[name] == AUTO else found[name]
