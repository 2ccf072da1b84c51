"""Headroom and useful groups, by hand and against drawing them."""

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.bench.signal import measure, useful


@pytest.mark.parametrize(
    ("scores", "size", "value"),
    [
        ([1, 1, 0, 0], 2, 2 / 3),
        ([1, 1, 1, 0], 2, 1 / 2),
        ([1, 1, 1, 1], 2, 0.0),
        ([1, 0], 2, 1.0),
        ([1, 0], 4, 1 - 2 / 16),
        ([1, 0.5, 0], 2, 1.0),
    ],
)
def test_the_share_of_groups_that_differ_by_hand(scores, size, value):
    assert useful(scores, size) == pytest.approx(value)


@given(st.lists(st.integers(0, 2), min_size=3, max_size=7), st.integers(2, 3))
def test_it_is_the_share_of_all_groups_there_are(scores, size):
    groups = list(combinations(scores, size))
    assert useful(scores, size) == pytest.approx(sum(len(set(group)) > 1 for group in groups) / len(groups))


def test_it_is_unbiased_where_there_are_enough_samples():
    """The policy succeeds in 30 % of cases: groups of 4 differ with chance 1 - 0.3^4 - 0.7^4."""
    dice = random.Random(0)
    mean = sum(useful([dice.random() < 0.3 for _ in range(6)], 4) for _ in range(4000)) / 4000
    assert mean == pytest.approx(1 - 0.3**4 - 0.7**4, abs=0.01)


def test_what_groups_say_by_hand():
    found, findings = measure([[1, 1], [0, 0], [1, 0], [0.5, 0.5], [1]], low=0, high=1, sizes=(2,))
    assert (found.prompts, found.samples) == (4, 8)
    assert (found.mean, found.best) == (0.5, 0.625)
    assert (found.at_floor, found.at_ceiling, found.no_variance) == (0.25, 0.25, 0.75)
    assert found.useful == {2: 0.25}
    assert findings == []


@pytest.mark.parametrize(
    ("groups", "kind"),
    [
        ([[1, 1]] * 20, "solved"),
        ([[1, 1, 1, 1, 1, 0.9]] * 20, "solved"),
        ([[0, 0]] * 20, "hopeless"),
        ([[0, 0]] * 18 + [[1, 1]] * 9 + [[0, 1]], "few_useful_groups"),
        ([[1], [0]], "no_samples_per_prompt"),
    ],
)
def test_what_is_not_worth_training_on_is_named(groups, kind):
    _, findings = measure(groups, low=0, high=1, sizes=(2,))
    assert [finding.kind for finding in findings] == [kind]
