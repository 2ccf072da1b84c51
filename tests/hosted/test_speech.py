"""Answers read token by token: nothing is told that is taken back, and all of it is told in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.stack
pytest.importorskip("transformers")

from envs.types import Message, ToolCall  # noqa: E402
from rl import tiny  # noqa: E402
from rl.chat import Chat  # noqa: E402
from rl.engines import Piece  # noqa: E402
from rl.hosted.speech import Speech  # noqa: E402

TEXTS = st.text(alphabet="ab \n{é漢😀STOP", max_size=20)


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(tiny.tokenizer())


def played(chat: Chat, message: Message, stop: tuple[str, ...] = (), at_once: int = 1) -> tuple[str, Speech]:
    """What is told of a message as it is sampled, and the speech in the end."""
    ids = chat.write(message)
    speech, told = Speech(chat, (), stop), ""
    for start in range(0, len(ids), at_once):
        part = tuple(ids[start : start + at_once])
        last = start + at_once >= len(ids)
        told += speech.hear(
            Piece(token_ids=part, logprobs=tuple({token: -0.5} for token in part), finish="stop" if last else None)
        )
        if speech.finish is not None:
            break
    return told, speech


@given(text=TEXTS, at_once=st.integers(1, 4))
def test_what_was_told_is_the_answer(chat: Chat, text: str, at_once: int) -> None:
    told, speech = played(chat, Message(role="assistant", content=text), at_once=at_once)
    assert told == speech.message().content == text
    assert speech.finish == "stop"


@given(text=TEXTS, at_once=st.integers(1, 4))
def test_a_stop_is_neither_told_nor_kept(chat: Chat, text: str, at_once: int) -> None:
    told, speech = played(chat, Message(role="assistant", content=text), ("STOP", "ab"), at_once)
    cut = min((at for stop in ("STOP", "ab") if (at := text.find(stop)) >= 0), default=len(text))
    assert told == speech.message().content == text[:cut]


def test_text_before_a_call_is_told_and_the_call_is_whole_at_the_end(chat: Chat) -> None:
    call = ToolCall(id="call_0_0", name="note", arguments='{"text": "a"}')
    told, speech = played(chat, Message(role="assistant", content="I note it", tool_calls=(call,)))
    assert told == speech.message().content == "I note it"
    assert speech.message().tool_calls == (call,)
    assert speech.finish == "tool_calls"


def test_logprobs_leave_out_the_token_that_ends_the_turn(chat: Chat) -> None:
    _, speech = played(chat, Message(role="assistant", content="ab"))
    places = speech.logprobs(top=1)
    assert "".join(place["token"] for place in places) == "ab"
    assert speech.tokens == len(places) + 1
    assert bytes(places[0]["bytes"]).decode() == places[0]["token"]
    assert places[0]["top_logprobs"][0]["logprob"] == places[0]["logprob"] == -0.5
