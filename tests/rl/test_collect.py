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
from rewards import GroupReward, Score, reward
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
        player=Player(env=Talk, reward=score if isinstance(score, GroupReward) else reward(score), retries=0),
        feed=Feed(tasks(10), 0),
        log=log or Log(),
        group_size=4,
        **settings,
    )
    return asyncio.run(collector.collect(policy or late(seed), 5, groups)), collector


class Compared:
    """A reward that ranks the episodes of a group by what `sample` says of them, and notes whom it saw together."""

    def __init__(self) -> None:
        self.saw: list[list[str]] = []

    async def __call__(self, episode: Episode, /) -> Score:
        return (await self.group([episode]))[0]

    async def group(self, episodes: Sequence[Episode], /) -> list[Score]:
        self.saw.append([episode.id for episode in episodes])
        best = sorted(sample(episode) for episode in episodes)
        return [Score(value=float(best.index(sample(episode)))) for episode in episodes]


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


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_a_reward_that_compares_sees_each_group_once_and_whole_whoever_ends_first(seed: int) -> None:
    compared, log, heard = Compared(), Log(), list[Played]()
    got, _ = collect(compared, seed=seed, log=log, on_played=heard.append)
    assert [[p.score.value for p in group.played] for group in got.groups] == [[0.0, 1.0, 2.0, 3.0]] * 3
    ids = [[p.episode.id for p in group.played] for group in got.groups]
    assert sorted(compared.saw) == sorted(ids)
    assert sorted(p.episode.id for p in heard) == sorted(id for group in ids for id in group)
    assert len(log.groups) == 3


def test_what_broke_is_not_compared_and_the_others_are() -> None:
    def say(episode: Episode) -> Message:
        if sample(episode) in (0, 2):
            raise PolicyError("down")
        return Message(role="assistant", content="so")

    compared = Compared()
    got, _ = collect(compared, groups=1, policy=ScriptPolicy(say))
    assert [len(saw) for saw in compared.saw] == [2]
    scores = [p.score for p in got.groups[0].played]
    assert [score.error for score in scores] == ["fault: down", None, "fault: down", None]
    assert [scores[1].value, scores[3].value] == [0.0, 1.0]


def test_a_reward_that_does_not_score_every_episode_of_a_group_is_a_bug() -> None:
    class Short(Compared):
        async def group(self, episodes: Sequence[Episode], /) -> list[Score]:
            return (await super().group(episodes))[1:]

    with pytest.raises(ValueError, match="zip"):
        collect(Short())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_waiting_to_be_compared_holds_no_place_in_which_others_could_play(concurrency: int) -> None:
    player = Player(env=Talk, reward=Compared(), concurrency=concurrency)
    jobs = [(task, f"{task.id}#{k}") for task in tasks(3) for k in range(4)]
    played = asyncio.run(asyncio.wait_for(player.play_all(jobs, late(0), group=4), 20))
    assert [p.score.value for p in played] == [0.0, 1.0, 2.0, 3.0] * 3
    assert [p.episode.id for p in played] == [id for _, id in jobs]


def test_a_group_whose_judge_fails_is_left_out_and_played_again_after_it_is_mended() -> None:
    class Down(Compared):
        async def group(self, episodes: Sequence[Episode], /) -> list[Score]:
            if "@1#" in episodes[0].id:
                return [Score.unscored("the judge is down")] * len(episodes)
            return await super().group(episodes)

    log = Log()
    got, _ = collect(Down(), log=log)
    unscored = [group for group in got.groups if group.played[0].score.error is not None]
    assert len(unscored) == 1 and len(log.groups) == 3
    with pytest.raises(StepLost, match="4 of 12 episodes"):
        collect(Down(), log=(log := Log()), max_unscored=0.3)
    assert len(log.groups) == 2, "a resume would take the unscored group for done"


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
