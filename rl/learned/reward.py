"""A reward model as a reward: `{use: learned, path: DIR}`.

An outcome model says how likely the episode is to have succeeded. A process model says it of every state, and a turn
is worth the difference that it made:

    chances of success     0.4 | 0.4 | 0.7 | 0.9        before the first turn, and after each
    turns                      0.0  +0.3  +0.2

The turns add up to the last chance less the first, whatever the way. With an outcome reward beside it, put it as
`{use: shaped, potential: {use: learned, path: DIR}}`: the end then pays back what the turns have paid, and what is
best stays best (Ng, Harada and Russell, ICML 1999).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from envs.errors import InputError
from envs.threads import in_thread
from envs.types import Episode
from rewards.score import Reward, Score
from rl.learned import labels
from rl.learned.record import Record, digest, read

States: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The tokens of an episode, and where its states end."""


def learned(*, path: str) -> Reward:
    """What a reward model says, see above; unscored where it can't be asked.

    Only episodes that a local engine played have tokens to read. The model is loaded when it is first asked.

    Args:
        path: what `rft reward-model` made.

    Raises:
        InputError: there is no reward model.
    """
    directory = Path(path)
    record, content = read(directory), digest(directory)
    ask = Together(directory, record, content)

    async def scored(episode: Episode, /) -> Score:
        if episode.broken:
            return Score.unscored(f"the episode broke: {episode.fault or episode.stop}")
        if not labels.sampled(episode):
            return Score.unscored("a reward model reads tokens, and this episode was not sampled as tokens")
        try:
            chances = await ask((labels.tokens(episode), labels.ends(episode)))
        except (InputError, RuntimeError) as error:  # torch raises RuntimeError: out of memory, a device that is gone
            return Score.unscored(f"reward model {path}: {str(error).splitlines()[0]}")
        if record.kind == "outcome":
            return Score(value=chances[0], parts={"learned": chances[0]}, graders={"learned": content})
        turns = tuple(after - before for before, after in pairwise(chances))
        parts = {"before": chances[0], "after": chances[-1]}
        return Score(value=0.0, turns=turns, parts=parts, graders={"learned": content})

    return scored


class Together:
    """Chances of success, of all states that are asked for at once in as few forwards as they fit in.

    While a batch is scored, in a thread of its own, the next one gathers.
    """

    def __init__(self, directory: Path, record: Record, content: str) -> None:
        self._directory, self._record, self._content = directory, record, content
        self._waiting: list[tuple[States, asyncio.Future[list[float]]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, states: States) -> list[float]:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((states, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        found: list[float] = await answer
        return found

    async def _work(self) -> None:
        await asyncio.sleep(0)  # who asks in the same moment comes along
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                found = await in_thread(partial(self._score, [states for states, _ in batch]))
            except (InputError, RuntimeError) as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            except BaseException:
                for _, answer in (*batch, *self._waiting):
                    answer.cancel()
                self._waiting.clear()
                raise
            for (_, answer), chances in zip(batch, found, strict=True):
                if not answer.done():  # who asked may have given up
                    answer.set_result(chances)

    def _score(self, asked: Sequence[States]) -> list[list[float]]:
        from rl.trainers import reward_model

        model = _loaded(self._directory, self._content)
        found = reward_model.logits(model, self._record.kind, asked)
        return [[self._record.scale(logit) for logit in own] for own in found]


@cache
def _loaded(directory: Path, content: str) -> Any:
    """The weights of this content, once a process however many rewards stand on them."""
    from rl.trainers import reward_model

    return reward_model.load(directory, read(directory))
