"""Bias and variance of every critic-free estimator where the exact gradient is known.

    python scripts/bench/credit.py [--groups N] [--write]

`--write` puts the table into docs/credit.md, in place of the one that is there.

The toy: in each of TURNS turns the policy goes on with probability p = sigmoid(LOGIT), or stops. Going on pays a
turn reward with mean 1 and standard deviation NOISE; the turn that stops is not judged; the outcome is always 0.
A state is the number of the turn. There is one logit a turn, all equal; the objective is the expected return.

The estimate of a group is the mean over its episodes of the sum over turns of A_k times the derivative of the log
probability of what was decided in turn k. Reported is its sum over the logits, which is the gradient of one shared
logit, and the cosine between the mean estimate, a logit each, and the exact gradient: an estimator that divides by
a standard deviation has another length, and may keep the direction.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from rl.credit import CREDIT, credit, needs  # noqa: E402

TURNS, GROUP, LOGIT, NOISE = 4, 8, 0.3, 0.5
P = 1 / (1 + math.exp(-LOGIT))
PAGE = ROOT / "docs" / "credit.md"
BEGIN, END = "<!-- scripts/bench/credit.py -->", "<!-- end -->"

Rewards = Sequence[Sequence[float | None]]
Estimator = Callable[[Rewards], list[list[float]]]
"""[G][K_i] turn rewards, the last None where the episode was stopped -> [G][K_i] advantages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What many groups said about the gradient."""

    mean: float
    error: float
    """Standard error of the mean."""
    sd: float
    """Of one group's estimate."""
    cosine: float | None
    """None where the mean estimate can't be told from 0."""


def exact() -> list[float]:
    """[TURNS] the gradient: to be there, times p (1 - p), times what going on is worth over stopping."""
    ahead, worth = 0.0, []
    for _ in range(TURNS):
        worth.append(1 + ahead)
        ahead = P * (1 + ahead)
    return [P**k * P * (1 - P) * w for k, w in enumerate(reversed(worth))]


def play(dice: np.random.Generator) -> list[list[float | None]]:
    """The turn rewards of a group."""
    group: list[list[float | None]] = []
    for _ in range(GROUP):
        row: list[float | None] = []
        while len(row) < TURNS and (not row or row[-1] is not None):
            row.append(1 + NOISE * dice.standard_normal() if dice.random() < P else None)
        group.append(row)
    return group


def measure(estimator: Estimator, groups: int, seed: int = 0) -> Found:
    """The gradient estimates of so many groups. Every estimator meets the same groups."""
    dice = np.random.default_rng(seed)
    estimates = np.zeros((groups, TURNS))
    for g in range(groups):
        rewards = play(dice)
        for row, own in zip(rewards, estimator(rewards), strict=True):
            for k, (reward, advantage) in enumerate(zip(row, own, strict=True)):
                estimates[g, k] += advantage * ((reward is not None) - P) / GROUP
    shared, mean, truth = estimates.sum(axis=1), estimates.mean(axis=0), np.array(exact())
    sd = float(shared.std(ddof=1))
    norm, noise = float(np.linalg.norm(mean)), math.sqrt(estimates.var(axis=0).sum() / groups)
    points_somewhere = norm > max(3 * noise, 1e-9)
    cosine = float(mean @ truth / norm / np.linalg.norm(truth)) if points_somewhere else None
    return Found(mean=float(shared.mean()), error=sd / math.sqrt(groups), sd=sd, cosine=cosine)


def of(name: str, **options: object) -> Estimator:
    """An estimator of the house, given what it needs."""

    def estimate(rewards: Rewards) -> list[list[float]]:
        states = [[str(k) for k in range(len(row))] for row in rewards] if "states" in needs(name) else None
        return credit(name, [0.0] * len(rewards), rewards, states, **options)

    return estimate


def alive(rewards: Rewards, *, leave_out: bool) -> list[list[float]]:
    """Two baselines over the episodes that are still there, to be seen beside the others.

    Either each turn reward is centred over those that have one, and summed to the end; or, with `leave_out`, each
    return-to-go is compared with the mean of the others that came as far.
    """
    width = max(map(len, rewards))
    own = [[x or 0.0 for x in row] for row in rewards]
    to_go = [[sum(row[k:]) for k in range(len(row))] for row in own]
    if leave_out:
        there = [[row[k] for row in to_go if k < len(row)] for k in range(width)]
        return [
            [(g - (sum(there[k]) - g) / (len(there[k]) - 1)) if len(there[k]) > 1 else 0.0 for k, g in enumerate(row)]
            for row in to_go
        ]
    paid = [[x for row in rewards if k < len(row) and (x := row[k]) is not None] for k in range(width)]
    centred = [[0.0 if x is None else x - sum(paid[k]) / len(paid[k]) for k, x in enumerate(row)] for row in rewards]
    return [[sum(row[k:]) for k in range(len(row))] for row in centred]


ROWS: dict[str, Estimator] = {
    **{f"`{name}`": of(name) for name in CREDIT if "values" not in needs(name)},
    "`return_to_go_loo`, `scale: false`": of("return_to_go_loo", scale=False),
    "`turn_return`, `by_turn`": of("turn_return", by_turn=True),
    "turn rewards centred over those alive, summed": partial(alive, leave_out=False),
    "return-to-go minus the mean of the others alive": partial(alive, leave_out=True),
}


def table(groups: int) -> str:
    """The table in Markdown."""
    truth = sum(exact())
    lines = [
        f"{groups:,} groups of {GROUP} episodes, {TURNS} turns; the exact gradient is {truth:.4f}.",
        "",
        "| estimator | mean | standard error | mean - exact | sd of a group | cosine to exact |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, estimator in ROWS.items():
        found = measure(estimator, groups)
        cosine = "none" if found.cosine is None else f"{found.cosine:.3f}"
        numbers = f"{found.mean:.4f} | {found.error:.4f} | {found.mean - truth:+.4f} | {found.sd:.3f}"
        lines.append(f"| {name} | {numbers.replace('-0.0000', '0.0000')} | {cosine} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=20_000)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    made = table(given.groups)
    print(made)
    if given.write:
        head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
