"""How likely the policy finds the gold answer from where it stands, for the reward `information_gain`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from statistics import fmean

from envs.types import Task
from rewards.process import Gold, gold_answer
from rl.chat import Chat
from rl.engines import Engine


class Belief:
    """P = exp(mean_j log pi(a_j | prompt, lead, a_<j)) over the tokens a of a task's gold answer, teacher-forced.

    pi is the policy that the engine serves, at temperature 1, and the prompt is what it has in front of it at the
    beginning of a turn: everything up to the last results (IGPO, arXiv 2510.14967).

    Args:
        gold: which field of a task's row is the answer, as text in which no control token is read; and what the
            policy would say ahead of it, in which they are.
    """

    def __init__(self, engine: Engine, chat: Chat, gold: Gold) -> None:
        self._engine, self._chat, self._gold = engine, chat, gold

    async def __call__(self, task: Task, prompt_ids: Sequence[int]) -> float | None:
        """P, between 0 and 1; None where the row has no such answer, or the context no room for it.

        Raises:
            EngineError: the engine is dead or refused the request.
        """
        answer = gold_answer(task, self._gold.field)
        if answer is None:
            return None
        ids = self._chat.said(self._gold.lead, answer)
        # A token may hold the end of the lead and the answer's beginning: it counts as the answer's.
        pairs = zip(ids, self._chat.said(self._gold.lead, ""), strict=False)
        lead = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if len(prompt_ids) + len(ids) >= self._engine.max_model_len:
            return None
        return math.exp(fmean(await self._engine.logprobs([*prompt_ids, *ids[:lead]], ids[lead:])))
