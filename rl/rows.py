"""An episode as one row of tokens: what a trainer learns from, and nothing that was not played."""

from __future__ import annotations

from dataclasses import dataclass

from envs.types import Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One episode as a trainer reads it. The last four have one length."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    mask: tuple[int, ...]
    """1 where the model sampled the token."""
    logprobs: tuple[float, ...]
    """The sampler's, natural log; 0.0 where nothing was sampled."""
    turns: tuple[int, ...]
    """The turn that sampled the token; -1 where nothing was sampled."""

    def __post_init__(self) -> None:
        lengths = {len(self.completion_ids), len(self.mask), len(self.logprobs), len(self.turns)}
        if len(lengths) != 1:
            raise ValueError(f"a row's columns have lengths {sorted(lengths)}")


def row(episode: Episode) -> Row:
    """An episode as one sequence: the first prompt, then every turn with what came between.

    Raises:
        ValueError: a turn was not sampled as tokens, or its prompt is not the previous sequence extended.
    """
    if not episode.turns:
        raise ValueError(f"episode {episode.id} has no turns")
    prompt = episode.turns[0].completion.prompt_ids
    ids, mask, logprobs, turns = list(prompt), [], list[float](), list[int]()
    for k, turn in enumerate(episode.turns):
        said = turn.completion
        if not said.token_ids or len(said.token_ids) != len(said.logprobs):
            raise ValueError(
                f"episode {episode.id}, turn {k}: {len(said.token_ids)} sampled ids, {len(said.logprobs)} logprobs"
            )
        between = said.prompt_ids[len(ids) :]
        if list(said.prompt_ids[: len(ids)]) != ids or (k > 0 and not between):
            raise ValueError(f"episode {episode.id}, turn {k}: its prompt does not extend the turn before")
        ids += [*between, *said.token_ids]
        mask += [0] * len(between) + [1] * len(said.token_ids)
        logprobs += [0.0] * len(between) + list(said.logprobs)
        turns += [-1] * len(between) + [k] * len(said.token_ids)
    return Row(
        prompt_ids=tuple(prompt),
        completion_ids=tuple(ids[len(prompt) :]),
        mask=tuple(mask),
        logprobs=tuple(logprobs),
        turns=tuple(turns),
    )
