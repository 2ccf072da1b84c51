"""Mining preference pairs, on episodes made by hand: a turn's ids are what it sampled, results are 900 and up."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.types import Stop
from made import played, turn
from rewards.score import Score
from rl.pairs import PER_PREFIX, Mined, Pair, mine, parting, split
from rl.rollout import Played

PROMPT = (1, 2)


def episode(
    *said: tuple[int, ...], value: float | None = 1.0, task: str = "t", results: tuple[int, ...] = (), sample: int = 0
) -> Played:
    """Turns that sampled these ids; after turn k the model was shown the id 900 + results[k] (900 where not given)."""
    turns, prompt = [], PROMPT
    for k, ids in enumerate(said):
        turns.append(turn(None, prompt=prompt, sampled=ids))
        prompt = (*prompt, *ids, 900 + (results[k] if k < len(results) else 0))
    return played(task, value, turns=tuple(turns), sample=sample)


def only(found: Mined) -> Pair:
    (pair,) = found.pairs
    return pair


def test_what_is_shared_is_the_prompt_and_what_differs_the_segment() -> None:
    good = episode((10,), (20, 21), (30,), (40,), value=1.0)
    bad = episode((10,), (25,), (35, 36), (45,), value=0.0)
    pair = only(mine([[bad, good]], segment=2))
    assert pair == Pair(
        task="t",
        turn=1,
        prompt_ids=(1, 2, 10, 900),
        chosen_ids=(20, 21, 900, 30),
        chosen_mask=(1, 1, 0, 1),
        rejected_ids=(25, 900, 35, 36),
        rejected_mask=(1, 0, 1, 1),
        margin=1.0,
        sampled=5 + 5,
    )
    assert (pair.learned, pair.turns) == (6, (2, 2))


def test_a_segment_is_cut_behind_its_last_sampled_token() -> None:
    good = episode((10,), (20,), (30,), (40,))
    bad = episode((11,), (21,), (31,), (41,), value=0.0)
    pair = only(mine([[good, bad]], segment=1))
    assert (pair.turn, pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) == (0, PROMPT, (10,), (11,))
    assert only(mine([[good, bad]])).chosen_ids == (10, 900, 20, 900, 30)  # the default: three turns


def test_the_whole_rest_may_differ_in_length() -> None:
    good = episode((10,), (20,), (30,), (40,))
    bad = episode((10,), (21,), value=0.0)
    whole = only(mine([[good, bad]], segment=None))
    assert whole.turns == (3, 1) and whole.chosen_ids == (20, 900, 30, 900, 40) and whole.rejected_ids == (21,)


@pytest.mark.parametrize(
    ("better", "worse", "segment", "turns"),
    [
        (4, 4, 3, 3),  # neither ends in it
        (3, 3, 3, 3),  # both do
        (2, 2, 3, 2),
        (4, 3, 3, 2),  # one does: its end is cut off with its like
        (3, 4, 3, 2),
        (5, 2, 3, 1),
        (2, 1, 3, 1),  # ending is what they part in
        (1, 4, 3, 1),
        (2, 1, 1, 1),
    ],
)
def test_an_end_is_held_against_an_end(better: int, worse: int, segment: int, turns: int) -> None:
    good = episode(*[(10 + k,) for k in range(better)])
    bad = episode(*[(20 + k,) for k in range(worse)], value=0.0)
    assert only(mine([[good, bad]], segment=segment)).turns == (turns, turns)


def test_a_different_result_ends_the_prefix_and_leaves_no_pair() -> None:
    one = episode((10,), (20,), results=(0,))
    other = episode((10,), (21,), results=(1,), value=0.0)
    assert parting(one, other) is None
    found = mine([[one, other]])
    assert (found.compared, found.parted, found.pairs) == (1, 0, ())


def test_episodes_that_sampled_the_same_make_no_pair() -> None:
    found = mine([[episode((10,), (20,)), episode((10,), (20,), value=0.0), episode((10,), value=0.0)]])
    assert (found.mixed, found.compared, found.parted, found.pairs) == (1, 2, 0, ())


def test_episodes_part_in_the_turn_and_not_in_the_token() -> None:
    pair = only(mine([[episode((10, 11, 12)), episode((10, 11, 13), value=0.0)]]))
    assert pair.prompt_ids == PROMPT and pair.chosen_ids == (10, 11, 12)


@pytest.mark.parametrize(("value", "margin", "pairs"), [(0.5, 0.5, 1), (0.6, 0.5, 0), (0.2, 0.9, 0), (0.99, 0.01, 1)])
def test_a_pair_differs_by_the_margin_at_least(value: float, margin: float, pairs: int) -> None:
    group = [episode((10,), value=1.0), episode((11,), value=value)]
    assert len(mine([group], margin=margin).pairs) == pairs


def test_a_margin_is_not_missed_for_the_sake_of_rounding() -> None:
    assert 0.7 - 0.2 < 0.5
    assert only(mine([[episode((10,), value=0.7), episode((11,), value=0.2)]], margin=0.5)).margin < 0.5


def test_turn_rewards_count_only_where_the_total_is_asked_for() -> None:
    def paid(sampled: int, value: float, by_turn: tuple[float, ...]) -> Played:
        return replace(episode((sampled,), value=value), score=Score(value=value, turns=by_turn))

    group = [paid(10, 1.0, (0.0,)), paid(11, 0.0, (3.0,))]
    assert only(mine([group])).chosen_ids == (10,)
    by_total = only(mine([group], worth="total"))
    assert (by_total.chosen_ids, by_total.margin) == ((11,), 2.0)


def test_what_broke_or_has_no_score_is_left_out_and_counted() -> None:
    good, bad = episode((10,)), episode((11,), value=0.0)
    broken = played("t", 0.0, turns=tuple(episode((12,)).episode.turns), stop=Stop.FAULT)
    silent = played("t", 0.0)
    silent.episode.turns.clear()
    found = mine([[good, bad, broken, episode((13,), value=None), silent]])
    assert (found.episodes, found.left_out, found.compared) == (5, 3, 1)
    assert only(found).rejected_ids == (11,)


def test_only_episodes_of_one_group_are_compared() -> None:
    found = mine([[episode((10,))], [episode((11,), value=0.0)]])
    assert (found.groups, found.mixed, found.pairs) == (2, 0, ())


def test_the_same_segments_are_one_pair() -> None:
    group = [episode((10,)), episode((10,)), episode((11,), value=0.0)]
    found = mine([group, group])
    assert (found.parted, len(found.pairs), found.undecided) == (4, 1, 0)


def test_of_two_directions_the_more_frequent_one_stays_and_a_tie_leaves_none() -> None:
    a, b = episode((10,)), episode((11,), value=0.0)
    turned = [episode((10,), value=0.0), episode((11,), value=1.0)]
    assert only(mine([[a, b], [a, b], turned])).chosen_ids == (10,)
    tied = mine([[a, b], turned])
    assert (tied.pairs, tied.undecided) == ((), 1)
    assert "2 groups of 4 episodes, 0 of them broken or unscored; 2 groups hold episodes that differ" in tied.why_none()
    of_another_task = [episode((10,), value=0.0, task="u"), episode((11,), task="u")]
    assert len(mine([[a, b], of_another_task]).pairs) == 2


def many(task: str, parts_at: int = 0) -> list[Played]:
    """Three good and three bad episodes that part in one turn: nine pairs of one prefix."""
    before = [(5 + k,) for k in range(parts_at)]
    return [episode(*before, (10 + n,), value=float(n < 3), task=task) for n in range(6)]


def test_a_prefix_gives_no_more_pairs_than_its_share() -> None:
    assert len(mine([many("a")]).pairs) == PER_PREFIX < 9
    assert len(mine([many("a")], per_prefix=9).pairs) == len(mine([many("a")], per_prefix=100).pairs) == 9
    of_two = mine([many("a"), many("b"), many("b", parts_at=1)], per_prefix=2)
    assert [(pair.task, pair.turn) for pair in of_two.pairs] == [("a", 0)] * 2 + [("b", 0)] * 2 + [("b", 1)] * 2


def test_the_seed_decides_which_pairs_are_kept() -> None:
    groups = [many("a"), many("b")]
    assert mine(groups, seed=3) == mine(groups, seed=3)
    assert len({mine(groups, seed=seed).pairs for seed in range(5)}) > 1


def test_held_out_tasks_share_nothing_with_those_that_are_learned_from() -> None:
    pairs = mine([many(task) for task in "abcdefghij"]).pairs
    learned, held = split(pairs, 0.2)
    assert len({pair.task for pair in held}) == 2 and len(learned) + len(held) == len(pairs)
    assert not {pair.task for pair in learned} & {pair.task for pair in held}
    assert split(pairs, 0.2) == (learned, held) and split(pairs, 0.2, seed=1) != (learned, held)
    assert split(pairs, 0.0) == (list(pairs), [])
    alone = [pair for pair in pairs if pair.task == "a"]
    assert split(alone, 0.5) == (alone, [])
    assert len({pair.task for pair in split(pairs, 0.01)[1]}) == 1


def test_what_cannot_be_asked_for_is_refused() -> None:
    for wrong in ({"margin": 0.0}, {"segment": 0}, {"per_prefix": 0}):
        with pytest.raises(ValueError, match="above 0"):
            mine([], **wrong)  # type: ignore[arg-type]


DRAWN = st.lists(
    st.tuples(
        st.lists(st.lists(st.integers(10, 11), min_size=1, max_size=2).map(tuple), min_size=1, max_size=4),
        st.sampled_from([0.0, 0.5, 1.0, None]),
        st.lists(st.integers(0, 1), max_size=3).map(tuple),
    ),
    max_size=6,
)


@given(st.lists(DRAWN, max_size=3), st.sampled_from([1, 2, 3, None]), st.sampled_from([0.5, 1.0]))
def test_every_pair_is_what_it_says(drawn: list, segment: int | None, margin: float) -> None:
    groups = [
        [episode(*said, value=value, results=shown, sample=n) for n, (said, value, shown) in enumerate(group)]
        for group in drawn
    ]
    found = mine(groups, segment=segment, margin=margin)
    everything = [p for group in groups for p in group]
    assert len(set(map(str, found.pairs))) == len(found.pairs)
    for pair in found.pairs:
        assert pair.margin >= margin
        first = [
            ids[: _until(mask)]
            for ids, mask in ((pair.chosen_ids, pair.chosen_mask), (pair.rejected_ids, pair.rejected_mask))
        ]
        assert first[0] != first[1]  # they part in the first turn of the segment
        if segment is not None:
            assert pair.turns[0] == pair.turns[1] <= segment
        for ids, mask in ((pair.chosen_ids, pair.chosen_mask), (pair.rejected_ids, pair.rejected_mask)):
            assert len(ids) == len(mask) and mask[0] == mask[-1] == 1
            assert all((token < 900) == bool(sampled) for token, sampled in zip(ids, mask, strict=True))
            assert any(_whole(p)[: len(pair.prompt_ids) + len(ids)] == (*pair.prompt_ids, *ids) for p in everything)
    reverse = {(pair.prompt_ids, pair.rejected_ids, pair.chosen_ids) for pair in found.pairs}
    assert not reverse & {(pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) for pair in found.pairs}


def _until(mask: tuple[int, ...]) -> int:
    """The length of the first run of ones."""
    ends = [place for place, (here, after) in enumerate(pairwise((*mask, 0)), 1) if here and not after]
    return ends[0]


def _whole(p: Played) -> tuple[int, ...]:
    last = p.episode.turns[-1].completion
    return (*last.prompt_ids, *last.token_ids)
