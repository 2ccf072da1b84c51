"""An environment and a reward for runs of a model that learned nothing: any text earns something."""

from __future__ import annotations

import asyncio
import random

from envs import Environment, Episode, Task, tool


class Letters(Environment):
    """Episodes begin after a pause that no seed decides, so that no two runs batch them alike."""

    name = "letters"

    @classmethod
    def tasks(cls, split: str, *, count: int = 12, pause: float = 0.5) -> list[Task]:
        return [Task.ask(f"{split}: write the letters of {n}", pause=pause) for n in range(count)]

    async def setup(self) -> None:
        await asyncio.sleep(random.SystemRandom().uniform(0, self.task.item["pause"]))

    @tool
    def note(self, text: str) -> str:
        """Note a text."""
        return text


def vowels(episode: Episode) -> float:
    """The share of vowels in what was said."""
    said = "".join(turn.completion.message.content for turn in episode.turns)
    return sum(letter in "aeiou" for letter in said) / (len(said) + 1)
