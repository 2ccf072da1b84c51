"""Episodes begun again in the middle: the first turns as they were recorded, then the policy goes on by itself.

What a state is worth is a mean over ways to go on from it, and samples of a group soon part ways. So the recorded
calls are carried out once more in a fresh environment, and where it answers as it did, new rollouts start from there
(Math-Shepherd, arXiv 2312.08935). Where it answers otherwise, this is another state: nothing is learned from it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from envs.environment import ToolSpec
from envs.together import together
from envs.types import Completion, Episode, ToolResult
from rewards.score import Score, check
from rl.learned.labels import Rollout
from rl.policy import Policy, PolicyError
from rl.rollout import Played, Player, run_episode


class Resumed:
    """A policy that says what was said in the first turns of an episode, and then what another says.

    It goes no further where the environment did not answer as it was recorded, and `departed` then says how.
    """

    def __init__(self, episode: Episode, turns: int, then: Policy) -> None:
        self._recorded, self._then = episode.turns[:turns], then
        self.departed: str | None = None

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        done = len(episode.turns)
        if 0 < done <= len(self._recorded):
            now, before = episode.turns[done - 1].results, self._recorded[done - 1].results
            if _told(now) != _told(before):
                self.departed = f"turn {done}: the tools answered {_told(now)}, recorded is {_told(before)}"
                raise PolicyError(self.departed)
        if done < len(self._recorded):
            return self._recorded[done].completion
        return await self._then(episode, tools)


def _told(results: Sequence[ToolResult]) -> list[tuple[str, str, str | None]]:
    """What the model saw of them."""
    return [(each.name, each.content, each.fault) for each in results]


@dataclass(slots=True, kw_only=True)
class Rerolled:
    """What came of it."""

    played: list[tuple[int, int, Played]] = field(default_factory=list)
    """(which of the episodes, from which turn, what it came to)."""
    departed: int = 0
    """Rollouts left out because the environment answered otherwise, or ended where the recorded one went on."""
    lost: int = 0
    """And because they broke, or have no score."""


def starts(rollouts: Sequence[Rollout], seed: int) -> list[tuple[int, int]]:
    """(which rollout, how many of its turns): a start in each that has more than one turn, no two of one state.

    Drawn evenly from the turns that something follows. The draw does not look at how the episode ended, or states
    on the way to failure would be asked about more often than they are met.
    """
    found: dict[tuple[str, tuple[int, ...]], tuple[int, int]] = {}
    for index, each in enumerate(rollouts):
        if len(each.ends) > 2:
            turns = random.Random(f"start/{seed}/{each.group}/{index}").randrange(1, len(each.ends) - 1)
            found.setdefault((each.task, each.ids[: each.ends[turns]]), (index, turns))
    return list(found.values())


async def reroll(
    episodes: Sequence[Episode],
    begin: Sequence[tuple[int, int]],
    player: Player,
    policy: Policy,
    *,
    rolls: int,
    on_played: Callable[[], None] = lambda: None,
) -> Rerolled:
    """Play on from the middle of recorded episodes, each start `rolls` times.

    Limits count the recorded turns too, so that a rollout has as many left as the episode had.

    Args:
        begin: from `starts`.
        player: where it is played, and how it is scored.
        policy: what plays on; one that the episodes' tokens are of.
    """
    found, slots = Rerolled(), asyncio.Semaphore(player.concurrency)

    async def one(index: int, turns: int, roll: int) -> None:
        recorded = episodes[index]
        resumed = Resumed(recorded, turns, policy)
        async with slots:
            episode = await run_episode(
                player.env(recorded.task), resumed, player.limits, id=f"{recorded.id}>{turns}.{roll}"
            )
        on_played()
        if resumed.departed or (len(episode.turns) <= turns and not episode.broken):
            found.departed += 1
            return
        score = Score.unscored("it broke") if episode.broken else await player.reward(episode)
        if score.error is None:
            score = check(score, "reward", turns=len(episode.turns))
        if score.error is None:
            found.played.append((index, turns, Played(episode=episode, score=score)))
        found.lost += score.error is not None

    await together(one(index, turns, roll) for index, turns in begin for roll in range(rolls))
    found.played.sort(key=lambda each: (each[0], each[2].episode.id))
    return found
