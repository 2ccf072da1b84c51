"""Samples of prompts, drawn from a policy behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from openai import AsyncOpenAI

from envs.errors import InputError
from envs.tasks import from_row
from envs.together import together
from envs.types import Episode, Turn
from rewards.graders.rows import Row
from rewards.graders.sample import of_episode
from rl.policy import ChatPolicy, ContextFull

CONCURRENCY = 16


async def draw(rows: Sequence[Row], *, url: str, model: str, samples: int) -> list[Row]:
    """Several samples of each prompt of the rows, one turn each, at the endpoint's own temperature.

    Raises:
        InputError: a row has no prompt (`messages` or `prompt`), or one that does not fit the model.
        PolicyError: the endpoint gives no answer.
    """
    prompts = {row.group: row for row in rows}
    tasks = {group: from_row(row.item, f"{row.where}: item") for group, row in prompts.items()}
    slots = asyncio.Semaphore(CONCURRENCY)
    async with AsyncOpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "none") as client:
        policy = ChatPolicy(client, model)

        async def one(group: str, number: int) -> Row:
            episode = Episode(id=f"{group}#{number}", env="drawn", task=tasks[group])
            try:
                async with slots:
                    episode.turns.append(Turn(completion=await policy(episode, {})))
            except ContextFull as error:
                raise InputError(f"{prompts[group].where}: the prompt does not fit {model} ({error})") from error
            where = f"{prompts[group].where}, drawn {number + 1}"
            return Row(where=where, item=prompts[group].item, sample=of_episode(episode), group=group)

        return await together(one(group, number) for group in prompts for number in range(samples))
