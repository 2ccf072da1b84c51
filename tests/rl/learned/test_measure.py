"""How good a reward model is, by hand and by counting pairs."""

from __future__ import annotations

import random
from collections import defaultdict
from statistics import fmean

import pytest

from rl.learned.measure import FEWEST_TASKS, Trial, best_of, by_turn, forecasts


def trial(score: float, good: bool, task: str = "t", group: str = "g") -> Trial:
    return Trial(task=task, group=group, score=score, chance=min(max(score, 0.0), 1.0), good=good)


def counted(trials: list[Trial]) -> float | None:
    """AUROC by its definition: every success against every failure."""
    won = [
        1.0 if a.score > b.score else 0.5 if a.score == b.score else 0.0
        for a in trials
        for b in trials
        if a.good and not b.good
    ]
    return fmean(won) if won else None


def drawn(tasks: int, signal: float, seed: int = 0) -> list[Trial]:
    """Eight samples a task; scores rounded, so that there are ties."""
    rng = random.Random(seed)
    found = []
    for task in range(tasks):
        share = rng.random()
        for _ in range(8):
            good = rng.random() < share
            score = round(signal * good + rng.gauss(0, 1), 1)
            found.append(trial(score, good, f"t{task}", f"g{task}"))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_that_of_counting_pairs(seed: int) -> None:
    trials = drawn(12, 1.0, seed)
    found = forecasts(trials, seed=0)
    assert found.auroc is not None and found.auroc.value == pytest.approx(counted(trials))
    groups = defaultdict(list)
    for each in trials:
        groups[each.group].append(each)
    within = [area for own in groups.values() if (area := counted(own)) is not None]
    assert found.auroc_within is not None and found.auroc_within.mean == pytest.approx(fmean(within))


def test_an_interval_is_of_tasks_drawn_anew() -> None:
    """Repeating every trial tells nothing new, and the interval does not shrink."""
    trials = drawn(30, 1.0)
    once, thrice = forecasts(trials, seed=0).auroc, forecasts(trials * 3, seed=0).auroc
    assert once is not None and thrice is not None
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low)


def test_scores_without_a_signal_are_not_told_from_chance() -> None:
    found = forecasts(drawn(60, 0.0), seed=0)
    assert found.auroc is not None and found.auroc.low < 0.5 < found.auroc.high
    best = best_of(drawn(60, 0.0), seed=0)
    assert best is not None and best.difference.low < 0 < best.difference.high


def test_where_all_end_alike_there_is_no_area() -> None:
    found = forecasts([trial(0.2, False), trial(0.4, False)], seed=0)
    assert found.auroc is None and found.auroc_within is None
    assert (found.good, found.brier_constant) == (0.0, 0.0)
    assert found.brier == pytest.approx((0.04 + 0.16) / 2)


def test_who_merely_counts_turns_is_found_out() -> None:
    """Episodes that stop early fail, so the number of turns tells much, and among those of one turn nothing."""
    rng = random.Random(0)
    trials = []
    for task in range(40):
        for _ in range(8):
            turns, good = (6, rng.random() < 0.7) if rng.random() < 0.5 else (2, False)
            trials += [Trial(task=f"t{task}", group="g", score=k, chance=0.5, good=good, turn=k) for k in range(turns)]
    together = forecasts(trials, seed=0).auroc
    assert together is not None and together.low > 0.6
    found = by_turn(trials, seed=0)
    assert set(found) == set(range(6)) and {area.value for area in found.values()} == {0.5}


def test_turns_that_few_tasks_come_to_are_left_out() -> None:
    trials = [trial(float(n % 3), n % 2 == 0, f"t{n // 2}", "g") for n in range(2 * FEWEST_TASKS)]
    assert set(by_turn(trials, seed=0)) == {0}
    assert by_turn(trials[2:], seed=0) == {}


def test_best_of_n_by_hand() -> None:
    trials = [
        trial(0.9, True, "a", "a"),
        trial(0.1, False, "a", "a"),
        trial(0.5, False, "b", "b"),
        trial(0.7, True, "b", "b"),
        trial(0.5, True, "c", "c"),
        trial(0.5, False, "c", "c"),
        trial(0.3, False, "d", "d"),
        trial(0.2, False, "d", "d"),
        trial(0.9, True, "e", "e"),
    ]
    found = best_of(trials, seed=0)
    assert found is not None
    assert (found.n, found.tasks) == (2, 4), "e has one sample"
    # Chosen: a 1, b 1, c a tie worth 0.5, d 0. At random: 0.5, 0.5, 0.5, 0.
    assert found.chosen.mean == pytest.approx(2.5 / 4)
    assert found.random.mean == pytest.approx(1.5 / 4)
    assert found.difference.mean == pytest.approx(1 / 4)
    assert found.any == pytest.approx(3 / 4)


def test_best_of_one_is_no_choice() -> None:
    assert best_of([trial(0.9, True, "a", "a"), trial(0.1, False, "b", "b")], seed=0) is None


def test_a_signal_makes_the_choice_better_than_chance() -> None:
    best = best_of(drawn(60, 3.0), seed=0)
    assert best is not None and best.difference.low > 0
    assert best.random.mean < best.chosen.mean <= best.any
