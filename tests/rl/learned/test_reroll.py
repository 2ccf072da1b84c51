"""Episodes begun again in the middle, in real environments with scripted policies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import ClassVar

import pytest

from envs import Environment, Message, Task, ToolCall, tool
from envs.types import Episode, Stop
from rewards.score import Score
from rl.learned.labels import Rollout
from rl.learned.reroll import Rerolled, reroll, starts
from rl.policy import PolicyError, ScriptPolicy
from rl.rollout import Limits, Player, run_episode


class Counter(Environment):
    """Adds up. Where its task says so it answers otherwise from one episode to the next, or is over at a sum."""

    episodes: ClassVar[itertools.count[int]] = itertools.count()

    async def setup(self) -> None:
        self.sum = 0
        self.number = next(self.episodes) if self.task.item.get("fickle") else 0

    @tool
    def add(self, n: int) -> str:
        """Add a number."""
        self.sum += n
        self.done = self.sum >= self.task.item.get("enough", 99)
        return f"{self.sum} in {self.number}"

    def state(self) -> dict[str, int]:
        return {"sum": self.sum}


def says(*numbers: int) -> list[Message]:
    calls = [ToolCall(id=f"c{k}", name="add", arguments=f'{{"n": {n}}}') for k, n in enumerate(numbers)]
    return [*(Message(role="assistant", tool_calls=(call,)) for call in calls), Message(role="assistant", content="so")]


def recorded(*numbers: int, **item: object) -> Episode:
    task = Task.ask("add", id="t", **item)
    return asyncio.run(run_episode(Counter(task), ScriptPolicy(says(*numbers)), Limits(), id="e"))


async def over_five(episode: Episode, /) -> Score:
    if episode.state["sum"] == 13:
        return Score.unscored("unlucky")
    return Score(value=float(episode.state["sum"] > 5))


def adds(episode: Episode) -> Message:
    """Goes on with 10, once, and then answers."""
    said = [turn.completion.message for turn in episode.turns]
    return says()[0] if any('"n": 10' in call.arguments for m in said for call in m.tool_calls) else says(10)[0]


def rerolled(
    episodes: Sequence[Episode], begin: Sequence[tuple[int, int]], rolls: int = 1, **given: object
) -> Rerolled:
    player = Player(env=Counter, reward=over_five, limits=Limits(**given))  # type: ignore[arg-type]
    return asyncio.run(reroll(episodes, begin, player, ScriptPolicy(adds), rolls=rolls))


def test_the_recorded_calls_are_carried_out_and_the_policy_goes_on() -> None:
    found = rerolled([recorded(1, 1, 3)], [(0, 2)], rolls=2)
    assert (len(found.played), found.departed, found.lost) == (2, 0, 0)
    index, turns, played = found.played[0]
    assert (index, turns) == (0, 2)
    told = [result.content for turn in played.episode.turns for result in turn.results]
    assert told == ["1 in 0", "2 in 0", "12 in 0"] and played.score.value == 1.0


def test_an_environment_that_answers_otherwise_is_not_gone_on_with() -> None:
    found = rerolled([recorded(1, 2, 3, fickle=True)], [(0, 1)], rolls=3)
    assert (found.played, found.departed, found.lost) == ([], 3, 0)


def test_an_episode_that_is_over_too_soon_has_departed() -> None:
    """Recorded where 2 was not enough, played again where it is."""
    episode = recorded(2, 3)
    episode.task.item["enough"] = 2  # type: ignore[index]
    found = rerolled([episode], [(0, 1)])
    assert (found.played, found.departed, found.lost) == ([], 1, 0)


def test_limits_count_the_recorded_turns() -> None:
    found = rerolled([recorded(1, 1, 3)], [(0, 2)], turns=3)
    assert [p.episode.stop for _, _, p in found.played] == [Stop.MAX_TURNS]


def test_what_breaks_or_has_no_score_is_counted_apart() -> None:
    def breaks(episode: Episode) -> Message:
        raise PolicyError("gone")

    player = Player(env=Counter, reward=over_five)
    found = asyncio.run(reroll([recorded(1, 2)], [(0, 1)], player, ScriptPolicy(breaks), rolls=2))
    assert (found.played, found.departed, found.lost) == ([], 0, 2)
    unlucky = rerolled([recorded(3, 4)], [(0, 1)])
    assert (unlucky.played, unlucky.departed, unlucky.lost) == ([], 0, 1)


def test_rollouts_are_scored_and_named_apart() -> None:
    found = rerolled([recorded(1, 1), recorded(2, 1)], [(0, 1), (1, 1)], rolls=2)
    assert [(index, p.score.value) for index, _, p in found.played] == [(0, 1.0), (0, 1.0), (1, 1.0), (1, 1.0)]
    assert len({(index, p.episode.id) for index, _, p in found.played}) == 4


def rollout(ids: str, *ends: int, group: str = "g") -> Rollout:
    return Rollout(task="t", group=group, ids=tuple(map(ord, ids)), ends=(*ends, len(ids)), good=False)


def test_starts_are_after_a_turn_that_something_follows() -> None:
    many = [rollout(f"{chr(200 + n)}abcd", 1, 2, 3, 4, group=str(n)) for n in range(200)]
    counts = [sum(turns == k for _, turns in starts(many, 0)) for k in range(5)]
    assert counts[0] == counts[4] == 0 and sum(counts) == 200
    assert all(40 < n < 95 for n in counts[1:4]), "evenly drawn"
    assert starts([rollout("pa", 1)], 0) == [], "one turn: nothing follows it"
    assert starts(many, 0) == starts(many, 0) != starts(many, 1)


def test_a_state_is_begun_from_once() -> None:
    assert starts([rollout("pab", 1, 2)] * 5, 0) == [(0, 1)]


@pytest.mark.parametrize("good", [True, False])
def test_the_draw_does_not_look_at_how_an_episode_ended(good: bool) -> None:
    ids = [f"p{n}abc" for n in range(50)]
    many = [Rollout(task="t", group=i, ids=tuple(map(ord, i)), ends=(1, 2, 3, 4, 5), good=good) for i in ids]
    other = [Rollout(task="t", group=i, ids=tuple(map(ord, i)), ends=(1, 2, 3, 4, 5), good=not good) for i in ids]
    assert starts(many, 0) == starts(other, 0)
