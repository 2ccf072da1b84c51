"""One step's worth of groups: dealt, played all at once, recorded as soon as each is whole.

A group is G episodes of one task by one adapter version. A group whose episodes all earned the same
teaches nothing; up to `refill` of them a step are replaced by groups of further tasks, and counted.
A group that is found in the records of an interrupted step is used as it is, not played again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from envs.types import Task
from rewards.score import Score
from rl.feed import Feed, Ticket
from rl.policy import Policy
from rl.rollout import Played, Player


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The episodes of one ticket, in the order of their samples."""

    ticket: Ticket
    played: tuple[Played, ...]

    @property
    def informative(self) -> bool:
        """True if its scored episodes earned different amounts, turn by turn or as a whole."""
        return len({earned(p.score) for p in self.played if p.score.error is None}) > 1


def earned(score: Score) -> tuple[float, tuple[tuple[int, float], ...]]:
    """What an episode was paid, and in which turns.

    A turn that paid 0 is as one that nobody judged: rewards of weight 0 must not change which groups are played.
    """
    return score.value, tuple((k, turn) for k, turn in enumerate(score.turns or ()) if turn)


def succeeded(group: Group, *, threshold: float = 1.0) -> list[bool | None]:
    """[G] whether each episode's outcome came to the threshold; None where there is no score."""
    return [None if p.score.error is not None else p.score.value >= threshold for p in group.played]


class GroupLog(Protocol):
    """Where groups are kept: `rl.records.Run` is one."""

    def recorded(self, step: int) -> Mapping[int, Sequence[Played]]:
        """Whole groups of a step that a previous, interrupted process has left, by position."""
        ...

    def record(self, step: int, group: Group) -> None:
        """Keep a whole group; after this returns it survives a kill."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a step learns from, and what it took to get it."""

    groups: tuple[Group, ...]
    replaced: int
    """Groups without variance that were replaced."""
    reused: int
    """Groups taken from the records of an interrupted step."""
    seconds: float


class StepLost(RuntimeError):
    """Nothing can be learned from a step: every episode broke, or too many have no score. The machinery's fault."""


@dataclass(slots=True, kw_only=True)
class Collector:
    """Fills steps with groups."""

    player: Player
    feed: Feed
    log: GroupLog
    group_size: int
    refill: int = 0
    max_unscored: float = 1.0
    """The share of a step's whole episodes that may stay without a score."""
    on_played: Callable[[Played], None] = field(default=lambda played: None)

    async def collect(self, policy: Policy, step: int, groups: int) -> Collected:
        """Play until there are `groups` groups. The order of what is dealt does not depend on the clock.

        Groups with an episode that has no score are recorded last, once the step is known to hold: after
        the cause is mended, a resume plays them again.

        Raises:
            StepLost: every episode broke, or more than `max_unscored` of the others have no score.
        """
        started = time.perf_counter()
        kept = self.log.recorded(step)
        wanted, budget, reused = groups, self.refill, 0
        informative: list[Group] = []
        flat: list[Group] = []
        while wanted:
            tickets = [self.feed.deal() for _ in range(wanted)]
            reused += sum(ticket.position in kept for ticket in tickets)
            played = await self._play(policy, step, tickets, kept)
            informative += [group for group in played if group.informative]
            flat += [group for group in played if not group.informative]
            wanted = min(budget, groups - len(informative))
            budget -= wanted
        self._refuse_lost([p for group in (*informative, *flat) for p in group.played])
        for group in (*informative, *flat):
            if group.ticket.position not in kept and not _scored(group):
                self.log.record(step, group)
        chosen = informative + flat[: groups - len(informative)]
        return Collected(
            groups=tuple(sorted(chosen, key=lambda group: group.ticket.position)),
            replaced=len(informative) + len(flat) - groups,
            reused=reused,
            seconds=time.perf_counter() - started,
        )

    async def _play(
        self, policy: Policy, step: int, tickets: Sequence[Ticket], kept: Mapping[int, Sequence[Played]]
    ) -> list[Group]:
        """All episodes of all tickets at once; each group is recorded when its last episode has ended."""
        done = {t.position: Group(ticket=t, played=tuple(kept[t.position])) for t in tickets if t.position in kept}
        fresh = [ticket for ticket in tickets if ticket.position not in done]
        size = self.group_size
        jobs: list[tuple[Task, str]] = [(t.task, t.episode_id(k)) for t in fresh for k in range(size)]
        parts: dict[int, dict[int, Played]] = {ticket.position: {} for ticket in fresh}

        def on_played(index: int, played: Played) -> None:
            self.on_played(played)
            ticket = fresh[index // size]
            parts[ticket.position][index % size] = played
            if len(parts[ticket.position]) == size:
                ordered = tuple(parts[ticket.position][k] for k in range(size))
                done[ticket.position] = Group(ticket=ticket, played=ordered)
                if _scored(done[ticket.position]):
                    self.log.record(step, done[ticket.position])

        await self.player.play_all(jobs, policy, on_played, group=size)
        return [done[ticket.position] for ticket in tickets]

    def _refuse_lost(self, played: Sequence[Played]) -> None:
        whole = [p for p in played if not p.episode.broken]
        if played and not whole:
            last = played[-1].episode
            raise StepLost(
                f"all {len(played)} episodes of this step broke ({last.stop}: {last.fault}); mend it, then --resume"
            )
        errors = [p.score.error for p in whole if p.score.error is not None]
        if len(errors) > self.max_unscored * len(whole):
            raise StepLost(
                f"{len(errors)} of {len(whole)} episodes of this step have no score, more than rollout.max_unscored "
                f"{self.max_unscored:g} allows; the last: {errors[-1]}. Mend the reward, then --resume"
            )


def _scored(group: Group) -> bool:
    return all(p.score.error is None for p in group.played)
