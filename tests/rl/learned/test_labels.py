"""What a reward model learns from, by hand."""

from __future__ import annotations

import pytest

from envs.errors import InputError
from made import played, turn
from rl.learned import labels
from rl.learned.labels import Rollout

LONG = (turn(None, prompt=(1, 2, 3), sampled=(4, 5)), turn(prompt=(1, 2, 3, 4, 5, 6, 7), sampled=(8,)))


def rollout(ids: str, *ends: int, good: bool, task: str = "t", group: str = "g", since: int = 0) -> Rollout:
    """Its tokens as letters."""
    return Rollout(task=task, group=group, ids=tuple(map(ord, ids)), ends=(*ends, len(ids)), good=good, since=since)


def told(rollouts: list[Rollout]) -> dict[str, tuple[int, int]]:
    """The states as text -> successes, rollouts. Each comes once."""
    found: dict[str, tuple[int, int]] = {}
    for row in labels.labelled(rollouts):
        for end, good, n in zip(row.ends, row.good, row.rollouts, strict=True):
            text = "".join(map(chr, row.ids[:end]))
            assert text not in found
            found[text] = (good, n)
    return found


def test_a_state_after_a_turn_holds_what_the_tools_answered() -> None:
    found = labels.rollout(played(turns=LONG), "g")
    assert found is not None
    assert found.ids == (1, 2, 3, 4, 5, 6, 7, 8)
    assert found.ends == (3, 7, 8), "before the first turn, after the first with its result, at the end"


def test_what_was_not_scored_or_not_sampled_is_left_out() -> None:
    assert labels.rollout(played(turns=LONG, value=None), "g") is None
    assert labels.rollout(played(), "g") is None, "a scripted episode has no tokens"


@pytest.mark.parametrize(("value", "good"), [(1.0, True), (1.5, True), (0.99, False), (-1.0, False)])
def test_a_success_is_a_score_of_one(value: float, good: bool) -> None:
    found = labels.rollout(played(turns=LONG, value=value), "g")
    assert found is not None and found.good is good


def test_samples_share_states_as_far_as_they_say_the_same() -> None:
    # Prompt p; two say a, and then x or y; one says b.
    found = told(
        [
            rollout("pax", 1, 2, good=True),
            rollout("pay", 1, 2, good=False),
            rollout("pbx", 1, 2, good=False),
        ]
    )
    assert found == {"p": (1, 3), "pa": (1, 2), "pb": (0, 1), "pax": (1, 1), "pay": (0, 1), "pbx": (0, 1)}


def test_the_same_words_at_another_task_are_another_state() -> None:
    rows = labels.labelled([rollout("pa", 1, good=True), rollout("pa", 1, good=False, task="u")])
    assert [(row.good, row.rollouts) for row in rows] == [((1, 1), (1, 1)), ((0, 0), (1, 1))]


def test_a_row_without_news_is_left_out() -> None:
    rows = labels.labelled([rollout("pa", 1, good=True), rollout("pa", 1, good=True)])
    assert [(row.ends, row.good, row.rollouts) for row in rows] == [((1, 2), (2, 2), (2, 2))]


def test_an_episode_begun_again_says_nothing_of_what_was_before() -> None:
    # Played on from "pa" twice: of "p" nothing new is known, since nobody chose between a and b there.
    found = told(
        [
            rollout("paz", 1, 2, good=True, since=1),
            rollout("pax", 1, 2, good=False),
            rollout("pb", 1, good=False),
            rollout("pax", 1, 2, good=False, since=1),
        ]
    )
    assert found == {"p": (0, 2), "pa": (1, 3), "paz": (1, 1), "pax": (0, 2), "pb": (0, 1)}


def test_the_sum_over_states_is_what_every_rollout_by_itself_adds() -> None:
    """Labels in common change nothing in a loss that is linear in them: each rollout is one trial at each state."""
    rollouts = [rollout(ids, 1, 2, good=ids[2] == "x") for ids in ("pax", "pay", "pay", "pbx", "pcx", "pax")]
    rows = labels.labelled(rollouts)
    assert sum(sum(row.rollouts) for row in rows) == sum(len(each.ends) for each in rollouts)
    assert sum(sum(row.good) for row in rows) == sum(len(each.ends) * each.good for each in rollouts)


def test_pairs_are_a_success_and_a_failure_of_one_group() -> None:
    rollouts = [
        rollout("pa", 1, good=True),
        rollout("pb", 1, good=False),
        rollout("pb", 1, good=False),
        rollout("pc", 1, good=False),
        rollout("qa", 1, good=True, task="u", group="h"),
        rollout("qd", 1, good=True, task="u", group="h"),
        rollout("re", 1, good=False, task="v", group="i"),
    ]
    found = labels.pairs(rollouts, most=8, seed=0)
    assert sorted((chr(good.ids[1]), chr(bad.ids[1])) for good, bad in found) == [("a", "b"), ("a", "c")]
    assert len(labels.pairs(rollouts, most=1, seed=0)) == 1


def test_no_task_is_trained_on_and_measured_on() -> None:
    names = [f"t{n}" for n in range(20)] * 3
    found = labels.split(names, seed=0)
    assert (len(found.train), len(found.calibration), len(found.held_out)) == (11, 3, 6)
    assert found.train | found.calibration | found.held_out == set(names)
    assert labels.split(reversed(names), seed=0) == found
    assert labels.split(names, seed=1) != found
    of = labels.of([rollout("p", good=True, task=name) for name in names], found.held_out)
    assert {each.task for each in of} == found.held_out and len(of) == 18


def test_too_few_tasks_are_refused() -> None:
    with pytest.raises(InputError, match="9 tasks"):
        labels.split([f"t{n}" for n in range(9)], seed=0)
