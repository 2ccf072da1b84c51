"""Groups to training rows against a critic, by hand."""

from __future__ import annotations

import pytest

from envs.types import Stop, Task
from made import played, turn
from rewards import Score
from rl.collect import Group
from rl.feed import Ticket
from rl.rollout import Played
from rl.samples import finished, spread, token_rows
from rl.valued import valued

PAD = 9
LONG = (turn(None, prompt=(1, 2, 3), sampled=(4, 5)), turn(prompt=(1, 2, 3, 4, 5, 6, 7), sampled=(8,)))
SHORT = (turn(prompt=(1, 2, 3), sampled=(4,)),)
BEFORE = (0.5, 0.6, 9.0, 9.0, 0.7)
"""A critic's values of LONG; those before a tool's tokens are nobody's business."""


def group(*members: Played) -> Group:
    return Group(ticket=Ticket(0, Task.ask("?", id="t")), played=members)


def worth(p: Played, value: float, *turns: float | None) -> Played:
    return Played(episode=p.episode, score=Score(value=value, turns=turns or None))


def test_by_the_token_every_sampled_token_is_a_state() -> None:
    members = group(worth(played(turns=LONG), 1.0), worth(played(turns=SHORT), 0.0))
    long, short = valued(members, [BEFORE, (0.25,)], "gae", {"lam": 1.0}, PAD)
    assert long.advantages == pytest.approx((0.5, 0.4, 0.0, 0.0, 0.3))
    assert long.returns[:2] == pytest.approx((1.0, 1.0)) and long.returns[4] == pytest.approx(1.0)
    assert long.returns[2:4] == (None, None)
    assert long.values == BEFORE and (long.reward, short.reward) == (1.0, 0.0)
    assert (short.advantages, short.returns) == ((-0.25,), (0.0,))


def test_by_the_turn_only_where_a_turn_begins() -> None:
    members = group(worth(played(turns=LONG), 1.0, 0.5, None), worth(played(turns=SHORT), 0.0))
    long, short = valued(members, [BEFORE, (0.25,)], "gae_turn", {"lam": 0.5, "gamma": 1.0}, PAD)
    # The last turn: 1 - .7 = .3. The first: .5 + .7 - .5 = .7, and half of .3.
    assert long.advantages == pytest.approx((0.85, 0.85, 0.0, 0.0, 0.3))
    assert long.returns == (pytest.approx(1.35), None, None, None, pytest.approx(1.0))
    assert long.reward == 1.5
    assert (short.advantages, short.returns) == ((-0.25,), (0.0,))


@pytest.mark.parametrize("name", ["gae", "gae_turn"])
def test_what_stands_before_a_tool_s_tokens_changes_nothing(name: str) -> None:
    members = group(worth(played(turns=LONG), 1.0))
    (one,) = valued(members, [BEFORE], name, {}, PAD)
    (other,) = valued(members, [(0.5, 0.6, -3.0, 77.0, 0.7)], name, {}, PAD)
    assert (one.advantages, one.returns) == (other.advantages, other.returns)


@pytest.mark.parametrize("name", ["gae", "gae_turn"])
def test_an_episode_without_a_score_or_without_a_turn_teaches_nothing(name: str) -> None:
    empty = played(turns=SHORT, value=0.0, stop=Stop.TIMEOUT)
    empty.episode.turns.clear()
    members = group(played(turns=LONG, value=None), empty, worth(played(turns=SHORT), 1.0))
    unscored, filler, fine = valued(members, [BEFORE, (5.0,), (0.25,)], name, {}, PAD)
    assert unscored.row.mask == (0,) * 5 and unscored.reward is None
    assert set(unscored.advantages) == {0.0} and set(unscored.returns) == {None}
    assert (filler.row.mask, filler.advantages, filler.returns, filler.reward) == ((0,), (0.0,), (None,), 0.0)
    assert (fine.advantages, fine.returns) == ((0.75,), (1.0,))
    assert [sample.row for sample in (unscored, filler, fine)] == token_rows(members, PAD)


def test_whitening_moves_the_advantages_and_not_what_the_critic_learns() -> None:
    members = group(worth(played(turns=LONG), 1.0), worth(played(turns=SHORT), 0.0))
    made = valued(members, [BEFORE, (0.25,)], "gae", {"lam": 1.0}, PAD)
    white = finished(made, spread(made), "gae", {"lam": 1.0})
    assert (spread(white).mean, spread(white).rms) == (pytest.approx(0.0, abs=1e-12), pytest.approx(1.0, abs=1e-3))
    assert [sample.returns for sample in white] == [sample.returns for sample in made]
    assert white[0].advantages[2:4] == (0.0, 0.0)
