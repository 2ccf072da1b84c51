"""What a reward model learns from: pairs of episodes of one task, and states with how often they ended well.

A state is what the model has in front of it: the tokens before its first turn, and after each turn. "After a
turn" means after what its tools answered, up to where the next turn begins, because that answer tells whether
the call was right; after the last turn it is the whole row. An episode of K turns has K + 1 states:

    prompt        | call  result | call  result | answer
                  0              1              2      3

The worth of a state is the share of rollouts through it that succeeded (Math-Shepherd, arXiv 2312.08935;
AgentPRM, arXiv 2502.10325). Pure functions, plain Python.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from envs.errors import InputError
from envs.types import Episode
from rl.rollout import Played
from rl.rows import row

SUCCESS = 1.0
"""An episode succeeded if its score is at least this, as everywhere."""

FEWEST_TASKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One played episode as the models here read it."""

    task: str
    group: str
    """The samples it was played with."""
    ids: tuple[int, ...]
    """The very tokens that were played, prompt included."""
    ends: tuple[int, ...]
    """[K + 1] how many of them each state takes, see above."""
    good: bool
    since: int = 0
    """The first state that it says something about: one that was begun again in the middle says nothing of what was
    before, where the other samples had a choice and it had none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A row with what is known of some of its states. The last three have one length, S."""

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    good: tuple[int, ...]
    """Of the rollouts through the state, those that succeeded."""
    rollouts: tuple[int, ...]
    """All of them: what the label stands on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Tasks by what is done with them. No task is in two of them."""

    train: frozenset[str]
    calibration: frozenset[str]
    held_out: frozenset[str]


def rollout(played: Played, group: str, since: int = 0) -> Rollout | None:
    """The episode as tokens; None where it has no score, or was not sampled as tokens."""
    if played.score.error is not None or not sampled(played.episode):
        return None
    return Rollout(
        task=played.episode.task.id,
        group=group,
        ids=tokens(played.episode),
        ends=ends(played.episode),
        good=played.score.value >= SUCCESS,
        since=since,
    )


def sampled(episode: Episode) -> bool:
    """Whether a local engine played it, so that there are tokens."""
    return bool(episode.turns) and all(turn.completion.token_ids for turn in episode.turns)


def tokens(episode: Episode) -> tuple[int, ...]:
    """The row of a sampled episode, prompt included."""
    found = row(episode)
    return (*found.prompt_ids, *found.completion_ids)


def ends(episode: Episode) -> tuple[int, ...]:
    """[K + 1] how many tokens of its row each state of an episode of K turns takes.

    What the tools of a last turn answered is in no state: nobody read it.
    """
    last = episode.turns[-1].completion
    starts = [len(turn.completion.prompt_ids) for turn in episode.turns]
    return (*starts, len(last.prompt_ids) + len(last.token_ids))


def labelled(rollouts: Iterable[Rollout]) -> list[Labelled]:
    """Every state that was seen, once, with the rollouts through it.

    Rollouts of one task that begin with the same tokens went through the same states, up to where they differ.
    A state stands in the first row that has it; rows that would hold none are left out.

    Example: of 8 samples 3 succeed. Before the first turn they are one state, 3 of 8. Five say the same first,
    of which 3 succeed: that state is 3 of 5.
    """
    found = list(rollouts)
    counts: dict[bytes, list[int]] = defaultdict(lambda: [0, 0])
    keys = [_keys(each) for each in found]
    for each, own in zip(found, keys, strict=True):
        for key in own[each.since :]:
            counts[key][0] += each.good
            counts[key][1] += 1
    rows = []
    for each, own in zip(found, keys, strict=True):
        fresh = [(end, counts.pop(key)) for end, key in zip(each.ends, own, strict=True) if key in counts]
        if fresh:
            rows.append(
                Labelled(
                    ids=each.ids,
                    ends=tuple(end for end, _ in fresh),
                    good=tuple(good for _, (good, _) in fresh),
                    rollouts=tuple(total for _, (_, total) in fresh),
                )
            )
    return rows


def _keys(each: Rollout) -> list[bytes]:
    """[K + 1] a digest of the task and of all tokens of each state."""
    digest, start, found = hashlib.blake2b(each.task.encode(), digest_size=16), 0, []
    for end in each.ends:
        digest.update(array("q", each.ids[start:end]).tobytes())
        found.append(digest.copy().digest())
        start = end
    return found


def pairs(rollouts: Iterable[Rollout], *, most: int, seed: int) -> list[tuple[Rollout, Rollout]]:
    """(success, failure) of one group each, no two of the same tokens.

    Args:
        most: of one group, drawn at random where there are more, lest tasks that half succeed outweigh the rest.
        seed: of that draw.
    """
    groups: dict[str, dict[tuple[int, ...], Rollout]] = defaultdict(dict)
    for each in rollouts:
        groups[each.group].setdefault(each.ids, each)
    found: list[tuple[Rollout, Rollout]] = []
    for group, members in sorted(groups.items()):
        good = [each for each in members.values() if each.good]
        bad = [each for each in members.values() if not each.good]
        all_pairs = list(product(good, bad))
        found += random.Random(f"pairs/{seed}/{group}").sample(all_pairs, min(most, len(all_pairs)))
    return found


def split(tasks: Iterable[str], *, seed: int, calibration: float = 0.15, held_out: float = 0.3) -> Split:
    """Tasks dealt at random: most to train on, some to calibrate with, some to be measured on.

    By task, because samples of one task share its prompt, and a model may know it by heart.

    Raises:
        InputError: fewer than ten tasks.
    """
    names = sorted(set(tasks))
    if len(names) < FEWEST_TASKS:
        raise InputError(
            f"{len(names)} tasks with scored episodes are too few to train on some, and to be measured on others; "
            f"name runs with at least {FEWEST_TASKS}"
        )
    random.Random(f"split/{seed}").shuffle(names)
    first = max(1, round(held_out * len(names)))
    second = first + max(1, round(calibration * len(names)))
    return Split(
        held_out=frozenset(names[:first]), calibration=frozenset(names[first:second]), train=frozenset(names[second:])
    )


def of(rollouts: Sequence[Rollout], tasks: frozenset[str]) -> list[Rollout]:
    """The rollouts of these tasks."""
    return [each for each in rollouts if each.task in tasks]
