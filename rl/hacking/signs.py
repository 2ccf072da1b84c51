"""What a step's episodes look like to somebody who suspects that the reward is being gamed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean

from envs.types import Episode, Stop
from rewards.process import FORM
from rl.collect import earned
from rl.rollout import Played
from rl.stats import probability_of_improvement

CUT_SHORT = (Stop.MAX_TURNS, Stop.MAX_TOKENS, Stop.TRUNCATED, Stop.TIMEOUT)
WORD = re.compile(r"\w+|[^\w\s]")
REPEATED, ECHOED = 4, 8
"""Words in a row that make a repetition within an episode, and an echo between two."""


def signs(groups: Sequence[Sequence[Played]], *, threshold: float = 1.0) -> dict[str, float]:
    """Numbers that rise, or fall, when a reward is gamed; one that nothing was measured for is left out.

    process_of_failures, process_of_successes: mean sum of turn rewards, over groups that have both.
    process_order: the chance that a success has more of it than a failure of the same group, ties counting half;
        the mean of mixed_groups groups.
    flat_groups: share of groups whose scored episodes all earned the same.
    turns, calls_per_turn, tokens_per_turn: means over episodes.
    duplicate_calls: share of calls made before in their episode, with the same arguments.
    invalid_calls: share of calls that were refused or failed.
    tool_entropy: of the tools' shares of all calls, in nats.
    cut_short: share of episodes that ran into a limit.
    repetition: share of an episode's runs of 4 words that it had said before, averaged.
    echo: share of runs of 8 words that two episodes of a group have in common, averaged over pairs.

    Args:
        groups: episodes of one task each. Broken ones are left out, unscored ones where a score is needed.
        threshold: an episode succeeded if its outcome is at least this.
    """
    whole = [[p for p in group if not p.episode.broken] for group in groups]
    episodes = [p.episode for group in whole for p in group]
    found = _process(whole, threshold) | _behaviour(episodes) | _text(whole)
    scored = [[p.score for p in group if p.score.error is None] for group in whole]
    if several := [group for group in scored if len(group) > 1]:
        found["flat_groups"] = fmean(len(set(map(earned, group))) == 1 for group in several)
    return found


def samples(groups: Sequence[Sequence[Played]]) -> dict[str, list[float]]:
    """One number an episode, for `rl.hacking.drift`: turns, calls and sampled tokens a turn."""
    episodes = [p.episode for group in groups for p in group if not p.episode.broken and p.episode.turns]
    return {
        "turns": [float(len(e.turns)) for e in episodes],
        "calls_per_turn": [sum(len(t.results) for t in e.turns) / len(e.turns) for e in episodes],
        "tokens_per_turn": [e.cost.sampled_tokens / len(e.turns) for e in episodes],
    }


def positive_on_failures(
    groups: Iterable[tuple[Sequence[bool | None], Sequence[Sequence[float]]]],
) -> float | None:
    """Of all positive advantage in groups that have both, the share that goes to failures; None without any.

    Groups of failures alone are left out: there all credit is theirs, and a process reward is for just that.

    Args:
        groups: of each group whether its episodes succeeded (None: not scored), and their advantages, [G][T_i]
            by the sampled token or [G][K_i] by the turn.
    """
    whole = failed = 0.0
    for succeeded, advantages in groups:
        if True not in succeeded or False not in succeeded:
            continue
        for success, row in zip(succeeded, advantages, strict=True):
            positive = math.fsum(a for a in row if a > 0)
            whole += positive if success is not None else 0.0
            failed += positive if success is False else 0.0
    return failed / whole if whole else None


def _process(groups: Sequence[Sequence[Played]], threshold: float) -> dict[str, float]:
    pairs: list[tuple[list[float], list[float]]] = []
    for group in groups:
        judged = [p.score for p in group if p.score.error is None and p.score.turns is not None]
        good = [s.total - s.value for s in judged if s.value >= threshold]
        bad = [s.total - s.value for s in judged if s.value < threshold]
        if good and bad:
            pairs.append((good, bad))
    if not pairs:
        return {}
    return {
        "process_of_successes": fmean(x for good, _ in pairs for x in good),
        "process_of_failures": fmean(x for _, bad in pairs for x in bad),
        "process_order": fmean(probability_of_improvement([good], [bad]) for good, bad in pairs),
        "mixed_groups": float(len(pairs)),
    }


def _behaviour(episodes: Sequence[Episode]) -> dict[str, float]:
    if not episodes:
        return {}
    turns = [turn for episode in episodes for turn in episode.turns]
    results = [result for turn in turns for result in turn.results]
    found = {
        "turns": fmean(len(e.turns) for e in episodes),
        "cut_short": fmean(e.stop in CUT_SHORT for e in episodes),
    }
    if turns:
        found["calls_per_turn"] = len(results) / len(turns)
        found["tokens_per_turn"] = sum(e.cost.sampled_tokens for e in episodes) / len(turns)
    if results:
        shares = [n / len(results) for n in Counter(result.name for result in results).values()]
        found["invalid_calls"] = fmean(result.fault in FORM for result in results)
        found["tool_entropy"] = 0.0 - math.fsum(s * math.log(s) for s in shares)
        found["duplicate_calls"] = sum(map(_duplicates, episodes)) / len(results)
    return found


def _duplicates(episode: Episode) -> int:
    calls = [(c.name, c.canonical) for turn in episode.turns for c in turn.completion.message.tool_calls]
    return len(calls) - len(set(calls))


def _text(groups: Sequence[Sequence[Played]]) -> dict[str, float]:
    found = {}
    words = [[_words(p.episode) for p in group] for group in groups]
    said = [_runs(own, REPEATED) for group in words for own in group]
    if long := [runs for runs in said if runs]:
        found["repetition"] = fmean(1 - len(set(runs)) / len(runs) for runs in long)
    echoes = []
    for group in words:
        distinct = [runs for own in group if (runs := set(_runs(own, ECHOED)))]
        echoes += [len(a & b) / len(a | b) for a, b in combinations(distinct, 2)]
    if echoes:
        found["echo"] = fmean(echoes)
    return found


def _words(episode: Episode) -> list[str]:
    """What the policy said, calls included, as words and signs."""
    said = (turn.completion.message for turn in episode.turns)
    texts = (" ".join([m.content, *(f"{c.name} {c.arguments}" for c in m.tool_calls)]) for m in said)
    return [word for text in texts for word in WORD.findall(text)]


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
