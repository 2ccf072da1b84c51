"""What a step is made of, whatever the clock does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import Environment, Message, Task
from envs.types import Episode
from rewards import Score, reward
from rl.collect import Collected, Collector, Group, StepLost
from rl.feed import Feed
from rl.policy import PolicyError, ScriptPolicy
from rl.rollout import Played, Player


class Talk(Environment):
    """A task that is over with an answer."""


def tasks(count: int) -> list[Task]:
    return [Task.ask("Well?", id=f"t{i}") for i in range(count)]


class Log:
    """Groups in memory."""

    def __init__(self, kept: Mapping[int, Sequence[Played]] | None = None) -> None:
        self.kept, self.groups = kept or {}, list[Group]()

    def recorded(self, step: int) -> Mapping[int, Sequence[Played]]:
        return self.kept

    def record(self, step: int, group: Group) -> None:
        assert group.ticket.position not in {g.ticket.position for g in self.groups}, "recorded twice"
        self.groups.append(group)


def sample(episode: Episode) -> int:
    return int(episode.id.rpartition("#")[2])


def late(seed: int) -> Any:
    """An answer after a while that the seed decides."""
    rng = random.Random(seed)

    async def policy(episode: Episode, tools: Any) -> Any:
        for _ in range(rng.randrange(9)):
            await asyncio.sleep(0)
        return await ScriptPolicy([Message(role="assistant", content="so")])(episode, tools)

    return policy


def collect(
    score: Any, *, log: Log | None = None, seed: int = 0, groups: int = 3, policy: Any = None, **settings: Any
) -> tuple[Collected, Collector]:
    collector = Collector(
        player=Player(env=Talk, reward=reward(score), retries=0),
        feed=Feed(tasks(10), 0),
        log=log or Log(),
        group_size=4,
        **settings,
    )
    return asyncio.run(collector.collect(policy or late(seed), 5, groups)), collector


def varied(episode: Episode) -> float:
    return float(sample(episode) % 2)


def positions(collected: Collected) -> list[int]:
    return [group.ticket.position for group in collected.groups]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sets(st.integers(0, 11)), st.integers(0, 6))
def test_a_step_does_not_depend_on_who_ends_first(seed: int, flat: set[int], refill: int) -> None:
    def score(episode: Episode) -> float:
        position = int(episode.id.partition("@")[2].partition("#")[0])
        return 0.0 if position in flat else varied(episode)

    log, other = Log(), Log()
    (one, dealer), (two, _) = (
        collect(score, seed=s, log=kept, groups=4, refill=refill) for s, kept in ((seed, log), (seed + 1, other))
    )
    assert positions(one) == positions(two) == sorted(positions(one))
    assert len(one.groups) == 4
    assert one.replaced == two.replaced <= refill
    for group in (*one.groups, *log.groups):
        assert [p.episode.id for p in group.played] == [group.ticket.episode_id(k) for k in range(4)]
    dealt = dealer.feed.dealt
    assert sorted(g.ticket.position for g in log.groups) == list(range(dealt)), "every group dealt is recorded once"
    assert dealt == 4 + one.replaced
    missing = [p for p in range(dealt) if p not in flat and p not in positions(one)]
    assert not missing, "a group with variance was thrown away"


def test_flat_groups_are_replaced_up_to_a_cap_and_counted() -> None:
    got, collector = collect(lambda episode: 1.0, refill=5)
    assert (got.replaced, collector.feed.dealt, positions(got)) == (5, 8, [0, 1, 2])
    got, _ = collect(varied, refill=5)
    assert (got.replaced, positions(got)) == (0, [0, 1, 2])


def test_groups_of_an_interrupted_step_are_used_as_they_are() -> None:
    log = Log()
    collect(varied, log=log)
    kept = {group.ticket.position: group.played for group in log.groups if group.ticket.position != 1}
    again, heard = Log(kept), list[Played]()
    got, _ = collect(varied, log=again, on_played=heard.append)
    assert (got.reused, positions(got)) == (2, [0, 1, 2])
    assert [group.ticket.position for group in again.groups] == [1]
    assert len(heard) == 4
    assert all(mine is its for mine, its in zip(got.groups[0].played, kept[0], strict=True))


def test_a_step_whose_episodes_all_broke_stops_the_run_and_leaves_nothing_to_be_reused() -> None:
    def down(episode: Episode) -> Message:
        raise PolicyError("the server is down")

    log = Log()
    with pytest.raises(StepLost, match=r"all 12 episodes .* \(fault: the server is down\)"):
        collect(varied, log=log, policy=ScriptPolicy(down))
    assert log.groups == []


def test_one_broken_episode_is_only_counted_and_its_group_recorded() -> None:
    def say(episode: Episode) -> Message:
        if episode.id.endswith("@1#2"):
            raise PolicyError("down")
        return Message(role="assistant", content="so")

    log = Log()
    got, _ = collect(varied, log=log, policy=ScriptPolicy(say))
    assert sorted(group.ticket.position for group in log.groups) == [0, 1, 2]
    assert [p.episode.broken for p in got.groups[1].played] == [False, False, True, False]


@pytest.mark.parametrize(("allowed", "stops"), [(0.0, True), (0.24, True), (0.25, False), (1.0, False)])
def test_the_run_stops_when_too_many_have_no_score(allowed: float, stops: bool) -> None:
    def judge(episode: Episode) -> Score:
        if sample(episode) == 3:
            return Score.unscored("the judge is down")
        return Score(value=float(sample(episode)))

    log = Log()
    if not stops:
        got, _ = collect(judge, log=log, max_unscored=allowed)
        assert len(got.groups) == len(log.groups) == 3
        return
    with pytest.raises(StepLost, match=r"3 of 12 episodes .*rollout\.max_unscored.*the judge is down"):
        collect(judge, log=log, max_unscored=allowed)
    assert log.groups == [], "a resume would take the unscored groups for done"
