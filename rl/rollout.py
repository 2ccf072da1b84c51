"""Playing episodes: each one its own coroutine, no barrier between turns, every end a `Stop`.

A slow or hanging tool holds up nobody but its own episode. What the model got wrong is text back
to it; what the machinery got wrong ends the episode as `Stop.FAULT` or `Stop.ENV_LOST`, is tried
again, and is left out if it fails again; what we got wrong raises and stops the run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from envs.environment import Environment
from envs.errors import EnvLost
from envs.together import together
from envs.types import Cost, Episode, Stop, Task, Turn
from rewards.score import GroupReward, Reward, Score, check, score_group
from rl.policy import ContextFull, Policy, PolicyError

log = logging.getLogger(__name__)

CLOSE_SECONDS = 30.0
"""How long an environment may take to close before the run goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one episode may use."""

    turns: int = 16
    tokens: int | None = None
    """Sampled tokens. Checked after each turn, so the last one may pass it by its own limit."""
    seconds: float = 600.0

    def reached(self, episode: Episode) -> Stop | None:
        """The limit that is used up, if one is."""
        if len(episode.turns) >= self.turns:
            return Stop.MAX_TURNS
        if self.tokens is not None and episode.cost.sampled_tokens >= self.tokens:
            return Stop.MAX_TOKENS
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """An episode and what it was worth."""

    episode: Episode
    score: Score


async def run_episode(env: Environment, policy: Policy, limits: Limits, *, id: str) -> Episode:
    """Play one episode. However it ends, the end is `episode.stop`.

    What raises is a bug, of ours or of the environment's author, or an engine that died.
    `env.close()` runs in every case, cancellation included.
    """
    episode = Episode(id=id, env=env.name, task=env.task)
    started = time.perf_counter()
    try:
        episode.stop = await _play(env, policy, limits, episode)
        episode.state = env.state()
    except EnvLost as error:
        episode.stop, episode.fault = Stop.ENV_LOST, str(error)
    except PolicyError as error:
        episode.stop, episode.fault = Stop.FAULT, str(error)
    finally:
        episode.cost += Cost(seconds=time.perf_counter() - started)
        await _close(env)
    return episode


async def _play(env: Environment, policy: Policy, limits: Limits, episode: Episode) -> Stop:
    """Turn after turn, to the stop that they lead to."""
    try:
        async with asyncio.timeout(limits.seconds) as clock:
            await env.setup()
            episode.context = env.context()
            while (stop := await _play_turn(env, policy, limits, episode)) is None:
                pass
    except TimeoutError:
        if not clock.expired():
            raise
        return Stop.TIMEOUT
    except ContextFull:
        return Stop.MAX_TOKENS
    return stop


async def _play_turn(env: Environment, policy: Policy, limits: Limits, episode: Episode) -> Stop | None:
    """One completion and its calls, added to the episode; the stop it led to, if any."""
    completion = await policy(episode, env.available())
    episode.cost += completion.cost
    env.guard.spent += completion.cost
    if completion.finish != "stop":
        episode.turns.append(Turn(completion=completion))
        return Stop.TRUNCATED if completion.finish == "length" else Stop.MAX_TOKENS
    results = await env.step(completion.message)
    episode.turns.append(Turn(completion=completion, results=results))
    episode.cost += Cost(tool_calls=len(results), money=sum(result.money for result in results))
    if env.done or not completion.message.tool_calls:
        return Stop.DONE
    return limits.reached(episode)


async def _close(env: Environment) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS) as clock:
            await env.close()
    except EnvLost:
        log.debug("environment %s was gone when it was closed", env.name)
    except TimeoutError:
        if not clock.expired():
            raise
        log.warning("environment %s took longer than %g s to close and was left behind", env.name, CLOSE_SECONDS)


@dataclass(slots=True, kw_only=True)
class Player:
    """Plays tasks in one kind of environment and scores them."""

    env: Callable[[Task], Environment]
    reward: Reward
    limits: Limits = field(default_factory=Limits)
    concurrency: int = 256
    """Episodes in flight at once."""
    retries: int = 2
    """How often an episode that the machinery broke is played again."""
    retried: int = 0
    """Episodes played again so far."""

    async def play(self, task: Task, policy: Policy, *, id: str) -> Played:
        """Play and score one episode; an episode that stays broken is unscored, not 0."""
        return (await scored([await self._episode(task, policy, id=id)], self.reward))[0]

    async def _episode(self, task: Task, policy: Policy, *, id: str) -> Episode:
        """Play one episode, again if the machinery broke it."""
        for attempt in range(self.retries + 1):
            episode = await run_episode(self.env(task), policy, self.limits, id=id)
            if not episode.broken:
                break
            self.retried += attempt < self.retries
        return episode

    async def play_all(
        self,
        tasks: Sequence[tuple[Task, str]],
        policy: Policy,
        on_played: Callable[[int, Played], None] = lambda index, played: None,
        *,
        group: int = 1,
    ) -> list[Played]:
        """Play many tasks at once, `(task, episode id)` each; results in the order of the tasks.

        `on_played` hears of each episode, with its index, as soon as it is scored. If one raises (a
        bug of ours or of an environment's author) the others are cancelled and closed.

        Args:
            group: so many tasks in a row are one and the same. A reward that compares them scores them when the last
                of them has ended; any other scores each episode by itself, as soon as it has.
        """
        slots = asyncio.Semaphore(self.concurrency)
        size = group if isinstance(self.reward, GroupReward) else 1

        async def one(index: int, task: Task, id: str) -> list[Played]:
            async with slots:
                played = await self.play(task, policy, id=id)
            on_played(index, played)
            return [played]

        async def episode(task: Task, id: str) -> Episode:
            async with slots:
                return await self._episode(task, policy, id=id)

        async def compared(first: int) -> list[Played]:
            episodes = await together(episode(task, id) for task, id in tasks[first : first + size])
            found = await scored(episodes, self.reward)
            for index, played in enumerate(found, first):
                on_played(index, played)
            return found

        try:
            async with asyncio.TaskGroup() as running:
                jobs = [
                    running.create_task(one(i, *tasks[i]) if size == 1 else compared(i))
                    for i in range(0, len(tasks), size)
                ]
        except BaseExceptionGroup as group_error:
            # One bug tends to show in many episodes at once, and the first says it all.
            raise group_error.exceptions[0] from None
        return [played for job in jobs for played in job.result()]


async def scored(episodes: Sequence[Episode], reward: Reward) -> list[Played]:
    """What a reward says of the episodes of a group; one that broke is unscored, not 0, and no part of the group."""
    whole = [episode for episode in episodes if not episode.broken]
    scores = zip(whole, await score_group(reward, whole), strict=True)
    checked = iter([check(score, "reward", turns=len(episode.turns)) for episode, score in scores])
    return [
        Played(episode=e, score=Score.unscored(f"{e.stop}: {e.fault}") if e.broken else next(checked)) for e in episodes
    ]


async def rescore(played: Sequence[Played], reward: Reward, name: str) -> list[Played]:
    """The same episodes with what another reward says of them."""
    scores = await together(reward(p.episode) for p in played)
    return [
        Played(episode=p.episode, score=check(score, name, turns=len(p.episode.turns)))
        for p, score in zip(played, scores, strict=True)
    ]
