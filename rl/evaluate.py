"""How good a policy is: success with an interval, pass@k, pass^k, what it cost and how episodes ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rl.rollout import Played
from rl.stats import Estimate, pass_at_k, pass_hat_k, proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One evaluation. Numbers that nothing was measured for are None, never 0."""

    tasks: int
    """Tasks with at least one scored episode."""
    episodes: int
    """All that were played, the left-out ones included."""
    success: Estimate | None
    """Share of scored episodes whose score reached the threshold, each task counting the same."""
    score: float | None
    """Mean score of the scored episodes, each task counting the same."""
    pass_at: Mapping[int, float]
    """k -> chance that at least one of k samples succeeds. pass@1 is the success."""
    pass_hat: Mapping[int, float]
    """k -> chance that all of k samples succeed."""
    turns: float | None
    """This and the next four: means over the episodes that the machinery did not break."""
    sampled_tokens: float | None
    prompt_tokens: float | None
    tool_calls: float | None
    seconds: float | None
    money: float
    """US dollars, of all episodes together."""
    stops: Mapping[str, int]
    """How episodes ended."""
    tool_faults: Mapping[str, int]
    """What was wrong with calls, counted over all episodes."""
    broken: int
    """Episodes the machinery broke: left out of everything but this and `stops`."""
    unscored: int
    """Whole episodes without a score: left out of success, score and pass."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; the interval as mean, low and high."""
        tree = asdict(self)
        tree["pass_at"] = {str(k): value for k, value in self.pass_at.items()}
        tree["pass_hat"] = {str(k): value for k, value in self.pass_hat.items()}
        return tree


def summarise(played: Iterable[Played], *, threshold: float = 1.0) -> Report:
    """What a set of episodes says about the policy that played them.

    Args:
        played: any number of episodes of any number of tasks, in any order.
        threshold: an episode succeeded if its score is at least this.
    """
    played = list(played)
    whole = [p for p in played if not p.episode.broken]
    scored = [p for p in whole if p.score.error is None]
    by_task: dict[str, list[float]] = defaultdict(list)
    for p in scored:
        by_task[p.episode.task.id].append(p.score.value)
    outcomes = [[value >= threshold for value in values] for values in by_task.values()]
    ks = _ks(max(map(len, outcomes), default=0))

    def mean(number: Callable[[Played], float]) -> float | None:
        return fmean(map(number, whole)) if whole else None

    results = [result for p in played for turn in p.episode.turns for result in turn.results]
    return Report(
        tasks=len(by_task),
        episodes=len(played),
        success=proportion(outcomes) if outcomes else None,
        score=fmean(map(fmean, by_task.values())) if by_task else None,
        pass_at={k: _over_tasks(pass_at_k, outcomes, k) for k in ks},
        pass_hat={k: _over_tasks(pass_hat_k, outcomes, k) for k in ks},
        turns=mean(lambda p: len(p.episode.turns)),
        sampled_tokens=mean(lambda p: p.episode.cost.sampled_tokens),
        prompt_tokens=mean(lambda p: p.episode.cost.prompt_tokens),
        tool_calls=mean(lambda p: p.episode.cost.tool_calls),
        seconds=mean(lambda p: p.episode.cost.seconds),
        money=sum(p.episode.cost.money for p in played),
        stops=dict(Counter(str(p.episode.stop) for p in played).most_common()),
        tool_faults=dict(Counter(result.fault for result in results if result.fault).most_common()),
        broken=len(played) - len(whole),
        unscored=len(whole) - len(scored),
    )


def numbers(report: Report) -> dict[str, float]:
    """What is logged of an evaluation; nothing was measured, nothing is logged."""
    success = None if report.success is None else report.success.mean
    found = {"success": success, "reward": report.score, "turns": report.turns}
    return {name: value for name, value in found.items() if value is not None}


def _ks(samples: int) -> list[int]:
    """1, 2, 4, ... and the number of samples itself."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return [*powers, samples] if samples else []


def _over_tasks(estimate: Callable[[int, int, int], float], outcomes: Sequence[Sequence[bool]], k: int) -> float:
    """The mean over the tasks that have at least k scored samples; unscored ones may leave a task with fewer."""
    return fmean(estimate(len(own), sum(own), k) for own in outcomes if len(own) >= k)
