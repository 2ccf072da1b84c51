"""Estimators against the exact gradient of a toy in which the policy decides when to stop."""

from __future__ import annotations

import math
from itertools import product

import pytest

from rl.credit import CREDIT, needs
from scripts.bench import credit as toy

GROUPS = 3000


def expected_return(logits: list[float]) -> float:
    """Independent of the script's recursion: all 2^4 ways to decide, those after a stop being the same episode."""
    p = [1 / (1 + math.exp(-logit)) for logit in logits]
    total = 0.0
    for goes_on in product([True, False], repeat=toy.TURNS):
        chance = math.prod(q if go else 1 - q for q, go in zip(p, goes_on, strict=True))
        total += chance * (goes_on.index(False) if False in goes_on else toy.TURNS)
    return total


def test_the_gradient_is_that_of_the_expected_return() -> None:
    step = 1e-5
    for k, slope in enumerate(toy.exact()):
        up, down = ([toy.LOGIT + sign * step * (j == k) for j in range(toy.TURNS)] for sign in (1, -1))
        assert slope == pytest.approx((expected_return(up) - expected_return(down)) / (2 * step), abs=1e-8)
    assert sum(toy.exact()) == pytest.approx(0.9527, abs=5e-5)


@pytest.mark.parametrize("name", ["return_to_go_loo", "rloo"])
def test_estimators_that_count_the_ended_are_unbiased(name: str) -> None:
    options = {"scale": False} if name == "return_to_go_loo" else {}
    found = toy.measure(toy.of(name, **options), GROUPS)
    assert abs(found.mean - sum(toy.exact())) < 3 * found.error
    assert found.cosine is not None and found.cosine > 0.995


def test_the_return_to_go_has_about_half_the_variance_of_the_whole_return() -> None:
    to_go = toy.measure(toy.of("return_to_go_loo", scale=False), GROUPS)
    whole = toy.measure(toy.of("rloo"), GROUPS)
    assert to_go.sd**2 < 0.6 * whole.sd**2


@pytest.mark.parametrize(
    "name", ["`mt_grpo`", "`process_grpo`", "`turn_return`", "turn rewards centred over those alive, summed"]
)
def test_comparing_turns_with_those_still_alive_loses_the_whole_gradient(name: str) -> None:
    found = toy.measure(toy.ROWS[name], GROUPS // 3)
    assert sum(toy.exact()) - found.mean > 10 * found.error
    assert found.cosine is None


def test_a_baseline_of_those_alive_alone_is_biased_too() -> None:
    found = toy.measure(toy.ROWS["return-to-go minus the mean of the others alive"], 3 * GROUPS)
    assert sum(toy.exact()) - found.mean > 3 * found.error


def test_the_page_shows_every_estimator_without_a_critic() -> None:
    shown = toy.PAGE.read_text().split(toy.BEGIN)[1].split(toy.END)[0]
    for name in CREDIT:
        assert (f"| `{name}` |" in shown) == ("values" not in needs(name)), name


@pytest.mark.slow
def test_the_table_on_the_page_is_what_the_script_makes() -> None:
    shown = toy.PAGE.read_text().split(toy.BEGIN)[1].split(toy.END)[0].strip()
    assert shown == toy.table(20_000)
