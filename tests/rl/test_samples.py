"""Groups to training rows, by hand."""

from __future__ import annotations

import random

import pytest

from envs.types import Stop, Task
from made import played, turn
from rewards import Score
from rl.collect import Group, succeeded
from rl.credit import CREDIT, needs
from rl.feed import Ticket
from rl.rollout import Played
from rl.samples import Sample, finished, samples, spread

PAD = 9
LONG = (turn(None, prompt=(1, 2, 3), sampled=(4, 5)), turn(prompt=(1, 2, 3, 4, 5, 6, 7), sampled=(8,)))
SHORT = (turn(prompt=(1, 2, 3), sampled=(4,)),)


def group(*members: Played) -> Group:
    return Group(ticket=Ticket(0, Task.ask("?", id="t")), played=members)


def rows(*members: Played, **options: object) -> list[Sample]:
    return samples(group(*members), "return_to_go_loo", {"scale": False} | options, PAD)


def worth(p: Played, value: float, *turns: float) -> Played:
    return Played(episode=p.episode, score=Score(value=value, turns=turns or None))


def test_every_sampled_token_carries_the_advantage_of_its_turn() -> None:
    # Returns-to-go (1.5, 1) and (0.5,); each against the other's, an ended episode counting 0.
    long, short = rows(worth(played(turns=LONG), 1.0, 0.5, 0.0), worth(played(turns=SHORT, sample=1), 0.5))
    assert long.row.prompt_ids == (1, 2, 3)
    assert long.row.completion_ids == (4, 5, 6, 7, 8)
    assert long.row.mask == (1, 1, 0, 0, 1)
    assert long.row.turns == (0, 0, -1, -1, 1)
    assert long.advantages == (1.0, 1.0, 0.0, 0.0, 1.0)
    assert short.advantages == (-1.0,)
    assert (long.reward, short.reward) == (1.5, 0.5)


def test_an_episode_without_a_score_keeps_its_place_and_carries_no_loss() -> None:
    fine, unscored = rows(played(turns=LONG), played(turns=LONG, value=None, sample=1))
    assert unscored.row.mask == (0,) * 5 and unscored.reward is None
    assert unscored.row.completion_ids == fine.row.completion_ids
    assert set(unscored.advantages) == {0.0}


def test_a_broken_episode_without_tokens_becomes_one_masked_filler() -> None:
    broken = played(turns=SHORT, value=None, stop=Stop.FAULT)
    broken.episode.turns.clear()
    filler, fine, other = rows(broken, worth(played(turns=SHORT), 1.0), worth(played(turns=SHORT), 0.0))
    assert (filler.row.prompt_ids, filler.row.completion_ids, filler.row.mask) == ((PAD,), (PAD,), (0,))
    assert (filler.advantages, filler.reward) == ((0.0,), None)
    assert fine.advantages == (1.0,) and other.advantages == (-1.0,), "the broken one counted in the baseline"


def test_an_episode_that_ended_before_its_first_turn_counts_in_the_baseline() -> None:
    empty = played(turns=SHORT, value=0.0, stop=Stop.TIMEOUT)
    empty.episode.turns.clear()
    filler, fine = samples(group(empty, played(turns=SHORT)), "dr_grpo", {}, PAD)
    assert filler.row.mask == (0,) and filler.reward == 0.0
    assert fine.advantages == (0.5,)


def test_an_estimator_by_states_is_given_them() -> None:
    """The long episode's second turn stands where nobody else came; its first where both did."""
    long, short = samples(
        group(worth(played(turns=LONG), 1.0), worth(played(turns=SHORT), 0.0)), "gigpo", {"gamma": 1.0}, PAD
    )
    assert long.advantages == (1.0, 1.0, 0.0, 0.0, 0.5)
    assert short.advantages == (-1.0,)


def test_with_a_gate_turn_rewards_only_move_what_the_outcome_earned() -> None:
    members = worth(played(turns=LONG), 1.0, 5.0, 0.0), worth(played(turns=SHORT), 0.0, 1.0)
    long, short = samples(group(*members), "dr_grpo", {}, PAD, gate=0.5)
    first, second = long.advantages[0], long.advantages[-1]
    assert first + second == pytest.approx(1.0)
    assert first > second > 0
    assert short.advantages == (-0.5,)


def test_whitening_is_over_all_sampled_tokens_of_a_step() -> None:
    """Centred in their groups they are (.5, -.5) and (1, -1), on 3, 1, 3 and 1 tokens."""
    made = [
        sample
        for high in (1.0, 2.0)
        for sample in samples(
            group(worth(played(turns=LONG), high), worth(played(turns=SHORT), 0.0)), "reinforce_pp", {"eps": 0.0}, PAD
        )
    ]
    over = spread(made)
    assert (over.tokens, over.total) == (8, 3.0)
    white = finished(made, over, "reinforce_pp", {"eps": 0.0})
    assert (spread(white).mean, spread(white).rms) == pytest.approx((0.0, 1.0))
    assert white[0].advantages[2:4] == (0.0, 0.0), "a tool's tokens got credit"
    assert white[0].advantages[0] == pytest.approx((0.5 - 0.375) / over.std(0))


def test_a_fixed_rms_is_that_of_sampled_tokens_and_without_one_nothing_changes() -> None:
    made = rows(worth(played(turns=LONG), 1.0), worth(played(turns=SHORT), 0.0), played(turns=LONG, value=None))
    scaled = finished(made, spread(made), "return_to_go_loo", {}, rms=0.25)
    assert spread(scaled).rms == pytest.approx(0.25)
    assert set(scaled[2].advantages) == {0.0}
    assert finished(made, spread(made), "return_to_go_loo", {}) == made


def test_who_succeeded_is_told_by_the_outcome_alone() -> None:
    found = succeeded(group(worth(played(turns=LONG), 1.0, -5.0, 0.0), worth(played(), 0.5, 9.0), played(value=None)))
    assert found == [True, False, None]


def test_a_group_is_informative_if_scored_episodes_earned_differently() -> None:
    def informative(*members: Played) -> bool:
        return group(*members).informative

    assert not informative(played(value=1.0), played(value=1.0))
    assert informative(played(value=1.0), played(value=0.0))
    assert not informative(played(value=1.0), played(value=None))
    assert informative(worth(played(turns=LONG), 1.0, 0.0, 1.0), worth(played(turns=LONG), 1.0, 1.0, 0.0))
    assert not informative(worth(played(turns=LONG), 1.0, 0.0, 0.0), worth(played(turns=SHORT), 1.0, 0.0), played())


def test_a_turn_that_does_not_extend_the_last_is_refused() -> None:
    torn = (LONG[0], turn(prompt=(1, 2, 3, 4, 6, 7), sampled=(8,)))
    with pytest.raises(ValueError, match="does not extend"):
        rows(played(turns=torn), played(turns=SHORT))


@pytest.mark.parametrize("name", [name for name in CREDIT if "values" not in needs(name)])
def test_turn_rewards_of_weight_0_make_the_rows_of_the_outcome_alone_bit_for_bit(name: str) -> None:
    dice = random.Random(name)
    for _ in range(50):
        members, weighted = [], []
        for k in range(dice.randint(2, 5)):
            member = played(turns=dice.choice([LONG, SHORT]), value=dice.choice([0.0, 1.0, dice.random()]), sample=k)
            paid = tuple(0.0 * dice.choice([1.0, -1.0]) for _ in member.episode.turns)
            members.append(member)
            weighted.append(worth(member, member.score.value, *paid))
        alone, both = (samples(group(*own), name, {}, PAD) for own in (members, weighted))
        assert repr(finished(alone, spread(alone), name, {})) == repr(finished(both, spread(both), name, {}))
