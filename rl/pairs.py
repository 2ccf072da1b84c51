"""Preference pairs from recorded groups: two episodes that share their beginning and then part.

Episodes of one group that sampled the same ids and were shown the same results up to a turn stand before the same
state there. Where one of them came to more, the turns from there on are preferred to the other's: a segment of as
many turns on either side (arXiv 2501.01821; with unequal numbers the partition function of DPO does not cancel).
What came before is the prompt, what came after is cut off.

IPR (arXiv 2406.11176) also asks that the step's value, the mean over fresh rollouts from it, be higher. That needs
an environment that can be forked; here the other episodes of the group stand in for it, see `Mined.undecided`.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, TypeAlias

from rewards.score import Score
from rl.rollout import Played
from rl.rows import Row, row

Ids: TypeAlias = tuple[int, ...]
Worth = Literal["outcome", "total"]

WORTHS: Mapping[Worth, Callable[[Score], float]] = {
    "outcome": lambda score: score.value,
    "total": lambda score: score.total,
}
"""What episodes are compared by. The outcome is what is reported in the end, and what ETO and SDPO go by. With `total`
the turn rewards are added: those of the shared turns are the same on both sides as a rule, so that the difference is
that of the returns from the turn where they part."""

SEGMENT = 3
"""Turns. What most segments of arXiv 2501.01821 have, where a judge chose the length of each."""

PER_PREFIX = 4
"""Pairs of one prefix of one task: a group of eight that parts at once, four good and four bad, would make sixteen."""

ROUNDING = 1e-9
"""0.7 - 0.2 is less than 0.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A segment that was better than another behind the same prompt. Masks are as long as the ids they go with."""

    task: str
    turn: int
    """Where the episodes part, from 0."""
    prompt_ids: Ids
    """All that both stood before: the task's prompt, the turns before, and their results."""
    chosen_ids: Ids
    """The segment: sampled ids, and between turns the ids of results."""
    chosen_mask: Ids
    """1 where the model sampled the token."""
    rejected_ids: Ids
    rejected_mask: Ids
    margin: float
    """By how much the better episode was worth more."""
    sampled: int
    """Sampled tokens of the two whole episodes."""

    @property
    def learned(self) -> int:
        """Sampled tokens of the two segments: those that carry loss."""
        return sum(self.chosen_mask) + sum(self.rejected_mask)

    @property
    def turns(self) -> tuple[int, int]:
        """Turns of the chosen and of the rejected segment; something always stands between two."""
        return _runs(self.chosen_mask), _runs(self.rejected_mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """The pairs, and what became of everything else."""

    pairs: tuple[Pair, ...]
    groups: int
    episodes: int
    left_out: int
    """Episodes that broke, have no score or no turns."""
    mixed: int
    """Groups with two episodes that differ by the margin."""
    compared: int
    """Such pairs of episodes."""
    parted: int
    """Of these, the pairs that stood before the same prompt and sampled something else."""
    undecided: int
    """Different pairs of segments of which each was as often the better one: they are dropped. Where one was the better
    one more often, that direction is kept."""

    def why_none(self) -> str:
        """For a message: where the pairs were lost."""
        return (
            f"{self.groups} groups of {self.episodes} episodes, {self.left_out} of them broken or unscored; "
            f"{self.mixed} groups hold episodes that differ by the margin, in {self.compared} pairs; {self.parted} of "
            f"those share a prefix and part; {self.undecided} pairs of segments were as often the worse as the better"
        )


def mine(
    groups: Iterable[Sequence[Played]],
    *,
    segment: int | None = SEGMENT,
    margin: float = 0.5,
    worth: Worth = "outcome",
    per_prefix: int = PER_PREFIX,
    seed: int = 0,
) -> Mined:
    """Every pair of segments in which one of the groups' episodes did better than another.

    Only episodes of one group are compared: one version sampled them. What several groups of a task say about the same
    two segments is brought together.

    Args:
        groups: each the episodes of one task, sampled as tokens.
        segment: turns on either side, fewer where one of the two ends within them (see `_even`); None takes all the
            rest of both, which may differ in number (ETO, arXiv 2403.02502).
        margin: the least difference in worth, above 0.
        worth: a key of `WORTHS`.
        per_prefix: so many pairs of one prefix at most, drawn by `seed`.
        seed: of that draw; the same groups and seed give the same pairs in the same order.
    """
    if margin <= 0 or (segment is not None and segment < 1) or per_prefix < 1:
        raise ValueError(f"margin {margin}, segment {segment}, per_prefix {per_prefix}: all are above 0")
    tally: Counter[str] = Counter()
    wins: dict[tuple[str, Ids], dict[tuple[Ids, Ids], list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        usable = [p for p in group if p.episode.turns and not p.episode.broken and p.score.error is None]
        tally.update(groups=1, episodes=len(group), left_out=len(group) - len(usable))
        compared = list(_compared(usable, margin, WORTHS[worth]))
        tally.update(mixed=bool(compared), compared=len(compared))
        rows = {id(p): row(p.episode) for pair in compared for p in pair[:2]}
        for better, worse, gap in compared:
            turn = parting(better, worse)
            if turn is not None:
                tally.update(parted=1)
                found = _pair(better, worse, rows[id(better)], rows[id(worse)], turn, segment, gap)
                wins[found.task, found.prompt_ids][found.chosen_ids, found.rejected_ids].append(found)
    dice, kept = random.Random(seed), list[Pair]()
    for of_prefix in wins.values():
        decided = [made[0] for key, made in of_prefix.items() if len(made) > len(of_prefix.get(key[::-1], ()))]
        tally.update(undecided=sum(len(made) == len(of_prefix.get(key[::-1], ())) for key, made in of_prefix.items()))
        kept += dice.sample(decided, min(per_prefix, len(decided)))
    return Mined(
        pairs=tuple(kept),
        undecided=tally["undecided"] // 2,
        **{name: tally[name] for name in ("groups", "episodes", "left_out", "mixed", "compared", "parted")},
    )


def parting(one: Played, other: Played) -> int | None:
    """The first turn in which two episodes sampled something else, if both stood before the same ids there."""
    for turn, (a, b) in enumerate(zip(one.episode.turns, other.episode.turns, strict=False)):
        if a.completion.prompt_ids != b.completion.prompt_ids:
            return None
        if a.completion.token_ids != b.completion.token_ids:
            return turn
    return None


def split(pairs: Sequence[Pair], share: float, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from, and those of a random `share` of the tasks (at least one, if there are two) held out."""
    tasks = sorted({pair.task for pair in pairs})
    random.Random(seed).shuffle(tasks)
    held = min(max(round(share * len(tasks)), share > 0), len(tasks) - 1)
    kept_back = set(tasks[: max(held, 0)])
    return [p for p in pairs if p.task not in kept_back], [p for p in pairs if p.task in kept_back]


def _compared(
    usable: Sequence[Played], margin: float, worth: Callable[[Score], float]
) -> Iterator[tuple[Played, Played, float]]:
    """Better, worse, and by how much."""
    for better, worse in permutations(usable, 2):
        gap = worth(better.score) - worth(worse.score)
        if gap >= margin - ROUNDING:
            yield better, worse, gap


def _pair(
    better: Played, worse: Played, chosen: Row, rejected: Row, turn: int, segment: int | None, margin: float
) -> Pair:
    lengths = len(better.episode.turns) - turn, len(worse.episode.turns) - turn
    ends = lengths if segment is None else (_even(segment, *lengths),) * 2
    chosen_ids, chosen_mask = _segment(chosen, turn, ends[0])
    rejected_ids, rejected_mask = _segment(rejected, turn, ends[1])
    return Pair(
        task=better.episode.task.id,
        turn=turn,
        prompt_ids=better.episode.turns[turn].completion.prompt_ids,
        chosen_ids=chosen_ids,
        chosen_mask=chosen_mask,
        rejected_ids=rejected_ids,
        rejected_mask=rejected_mask,
        margin=margin,
        sampled=sum(chosen.mask) + sum(rejected.mask),
    )


def _even(segment: int, better: int, worse: int) -> int:
    """How many turns both segments have, of those that either episode has left.

    Of two episodes that part, the worse one is often the shorter: its last turn would be among the rejected, the
    other's cut off, and many such pairs teach never to end. So an end counts if both segments hold one, or if ending
    there is what the episodes part in.
    """
    turns = min(segment, better, worse)
    one_ends = (better == turns) != (worse == turns)
    return turns - 1 if one_ends and turns > 1 else turns


def _segment(tokens: Row, first: int, turns: int) -> tuple[Ids, Ids]:
    """Ids and mask from the first sampled token of turn `first` to the last one of the last of `turns` turns."""
    within = [place for place, turn in enumerate(tokens.turns) if first <= turn < first + turns]
    span = slice(within[0], within[-1] + 1)
    return tokens.completion_ids[span], tokens.mask[span]


def _runs(mask: Ids) -> int:
    return sum(here and not before for before, here in zip((0, *mask), mask, strict=False))
