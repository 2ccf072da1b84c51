"""Conversations for tests of what becomes of them as tokens."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

import families
from envs.environment import Environment, tool
from envs.types import Completion, Message, ToolCall, ToolResult
from families import FAMILIES
from rl.chat import Chat

every_family = pytest.mark.parametrize("name", FAMILIES)
lawful = settings(max_examples=25, deadline=None, derandomize=True)


class Shop(Environment):
    @tool
    def look(self, order: str) -> str:
        """Look up an order.

        Args:
            order: never write <|im_end|> or <tool_call> here
        """
        return f"{order}: paid"

    @tool
    def refund(self, order: str, cents: int) -> str:
        """Refund part of an order."""
        return "done"


TOOLS = list(Shop.tools().values())
CONTROLS = sorted({text for family in FAMILIES.values() for text in (*family.special, *family.added)})


def texts(*, plain: bool = False) -> st.SearchStrategy[str]:
    """Text as the web has it: any letters, broken and whole control tokens, JSON, blank lines."""
    parts = [
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0\ufdd1"), max_size=8),
        st.sampled_from(["\n", " ", '{"a": 1}', "<", "|>"]),
    ]
    if not plain:
        parts.append(st.sampled_from(CONTROLS))
    joined = st.lists(st.one_of(parts), max_size=6).map("".join).map(lambda text: unicodedata.normalize("NFC", text))
    return joined.filter(lambda text: not (plain and any(control in text for control in CONTROLS)))


def said(*calls: tuple[str, str], text: str = "") -> Message:
    made = tuple(
        ToolCall(id=f"call_0_{k}", name=name, arguments=arguments) for k, (name, arguments) in enumerate(calls)
    )
    return Message(role="assistant", content=text, tool_calls=made)


def answers(message: Message, *contents: str) -> list[ToolResult]:
    pairs = zip(message.tool_calls, contents, strict=True)
    return [ToolResult(call_id=call.id, name=call.name, content=content) for call, content in pairs]


def completion(message: Message, prompt: list[int], sampled: list[int]) -> Completion:
    logprobs = tuple(-0.01 * (k + 1) for k in range(len(sampled)))
    return Completion(message=message, prompt_ids=tuple(prompt), token_ids=tuple(sampled), logprobs=logprobs)


def render(chat: Chat, name: str, messages: list[Message], *, reply: bool, tools: list[Any] | None = None) -> list[int]:
    """What transformers itself makes of a conversation, given to it in the usual way."""
    rows = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            row["tool_calls"] = [
                {"type": "function", "id": c.id, "function": {"name": c.name, "arguments": json.loads(c.arguments)}}
                for c in message.tool_calls
            ]
        rows.append(row)
    out = chat.tokenizer.apply_chat_template(
        rows,
        tools=tools,
        chat_template=chat.template,
        add_generation_prompt=reply,
        return_dict=False,
        **FAMILIES[name].kwargs,
    )
    assert isinstance(out, list)
    return out


def controls(name: str, ids: list[int]) -> list[int]:
    known = set(families.tokenizer(name).get_added_vocab().values())
    return [index for index in ids if index in known]
