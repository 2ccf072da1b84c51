"""Customers who say something only when they are asked: scripted ones, and models behind a chat endpoint."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from envs.errors import EnvLost, InputError, reasons
from envs.named import load_attribute
from envs.types import Task

About = Literal["order", "zip"]

SECONDS = 30.0
"""How long an endpoint may take for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a customer is asked."""

    task: Task
    about: About
    request: Mapping[str, Any]
    """Which of their requests is meant, with `number`, `item` and `action`."""
    fact: str | None
    """What they know; None where there is nothing to be known."""

    @property
    def text(self) -> str:
        """The question in words."""
        return ASKED[self.about].format_map(self.request)


Customer = Callable[[Question], Awaitable[str]]
"""Answers a question. What is withheld is known to the model only once it stands in an answer."""


async def scripted(question: Question) -> str:
    """The same answer to the same question of the same task, in every process."""
    rng = random.Random(f"customer/{question.task.id}/{question.request['number']}/{question.about}")
    if question.fact is None:
        return rng.choice(NOTHING)
    return rng.choice(ANSWERS[question.about]).format(question.fact)


class Endpoint(BaseModel):
    """A model that plays the customer: any OpenAI-compatible chat endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the key, if the endpoint asks for one; keys stay out of tasks and records."""
    temperature: float = 0.7
    max_tokens: int = 100

    async def __call__(self, question: Question) -> str:
        """Ask the model.

        Raises:
            EnvLost: the endpoint can't be reached, or answers something that is no chat completion.
        """
        from openai import AsyncOpenAI, OpenAIError  # takes half a second: for those who talk to one
        from openai.types.chat import ChatCompletion

        known = f"The answer is: {question.fact}. Say it." if question.fact else "You have nothing to say about it."
        letter = "\n".join(message.content for message in question.task.prompt if message.role == "user")
        brief = BRIEF.format(letter=letter, question=question.text, known=known)
        key = os.environ.get(self.api_key_env) or "none"
        try:
            async with AsyncOpenAI(base_url=self.base_url, api_key=key, timeout=SECONDS) as client:
                answer = await client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "system", "content": brief}, {"role": "user", "content": question.text}],
                    temperature=self.temperature,
                    max_tokens=self.max_tokens,
                )
        except OpenAIError as error:
            raise EnvLost(f"the customer, {self.base_url}: {error}") from error
        if not isinstance(answer, ChatCompletion) or not answer.choices:  # a proxy's web page, say
            raise EnvLost(f"the customer, {self.base_url}: what it answers is no chat completion")
        return answer.choices[0].message.content or ""


def customer_of(who: Any) -> Customer:
    """The customer an option names: None for the scripted one, `module:attribute`, or an endpoint's settings.

    Raises:
        InputError: it names none.
    """
    if who is None:
        return scripted
    if isinstance(who, str):
        found = load_attribute(who)
        if not callable(found):
            raise InputError(f"customer {who} is no async function of a question")
        return found  # type: ignore[no-any-return]
    try:
        return TypeAdapter(Endpoint).validate_python(who, strict=True)
    except ValidationError as error:
        raise InputError(
            f"customer is module:attribute or an endpoint with model and base_url: {reasons(error)}"
        ) from error


BRIEF = (
    "You are a customer who wrote this to a support desk:\n\n{letter}\n\nThe desk asks: {question}\n{known} "
    "Answer in one short sentence, as a customer would, and write any number digit by digit as it stands here."
)
ASKED: Mapping[About, str] = {
    "order": "About your request no. {number}: which order is it, the number?",
    "zip": "About your request no. {number}: to which zip code?",
}
ANSWERS: Mapping[About, tuple[str, ...]] = {
    "order": ("It is order {}.", "The number is {}.", "I mean {}."),
    "zip": ("To zip {}.", "The zip is {}.", "My new zip code is {}."),
}
NOTHING = ("I have nothing to say about that.", "That has nothing to do with it.")
