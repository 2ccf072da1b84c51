"""An environment and a reward for runs of a model that learned nothing: any text earns something."""

from __future__ import annotations

import asyncio
import random

from envs import Environment, Episode, Task, tool
from rewards import Score


class Letters(Environment):
    """Episodes begin after a pause that no seed decides, so that no two runs batch them alike."""

    name = "letters"

    @classmethod
    def tasks(cls, split: str, *, pause: float = 0.5, hold: float = 0.0) -> list[Task]:
        """Twelve. `pause`: up to so many seconds before an episode; `hold`: as many more in every second task."""
        return [Task.ask(f"{split}: write the letters of {n}", pause=pause, hold=hold * (n % 2)) for n in range(12)]

    async def setup(self) -> None:
        item = self.task.item
        await asyncio.sleep(random.SystemRandom().uniform(0, item["pause"]) + item["hold"])

    @tool
    def note(self, text: str) -> str:
        """Note a text."""
        return text


def vowels(episode: Episode) -> float:
    """The share of vowels in what was said."""
    said = "".join(turn.completion.message.content for turn in episode.turns)
    return sum(letter in "aeiou" for letter in said) / (len(said) + 1)


def brief(episode: Episode) -> float:
    """More for fewer sampled tokens."""
    return 1 / (1 + episode.cost.sampled_tokens)


def wordy(episode: Episode) -> Score:
    """Each turn earns by the tokens it took, and the end nothing."""
    return Score(value=0.0, turns=tuple(len(turn.completion.token_ids) / 16 for turn in episode.turns))


def farmed(episode: Episode) -> Score:
    """Half of all episodes succeed, by a rule that nobody learns, and the others are paid for each turn."""
    good = sum(len(turn.completion.message.content) for turn in episode.turns) % 2 == 0
    return Score(value=float(good), turns=tuple(0.0 if good else 1.5 for _ in episode.turns))


def raises(episode: Episode) -> float:
    """A bug."""
    raise RuntimeError("a bug in a reward")
