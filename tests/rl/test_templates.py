"""Which chat templates can be extended turn by turn, and how the others are refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import date

import pytest
from tokenizers import normalizers

import families
from envs.errors import InputError
from envs.types import Message
from families import FAMILIES, REFUSED
from rl.chat import Chat
from talk import answers, completion, every_family, said


@every_family
def test_the_tokens_that_end_a_turn_are_known(name: str) -> None:
    chat = families.chat(name)
    assert set(chat.tokenizer.convert_ids_to_tokens(list(chat.stop_ids))) == FAMILIES[name].stops


def test_a_generation_config_adds_stop_tokens() -> None:
    made = families.tokenizer("chatml")
    index = made.convert_tokens_to_ids("<|fim_prefix|>")
    assert index not in families.chat("chatml").stop_ids
    assert index in Chat(made, eos=[index]).stop_ids


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_can_not_be_extended_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=f"made/{name} can't be used"):
        Chat(families.tokenizer(name))


def test_a_tokenizer_that_rewrites_what_tools_say_is_refused() -> None:
    strip = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    with pytest.raises(InputError, match="does not keep tool results as they are"):
        Chat(families.make(replace(FAMILIES["chatml"], normalizer=strip)))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (families.CHATML.replace("in messages", "in messages[-2:]"), "renders earlier turns anew"),
        (families.CHATML.replace("m.content + '</tool_r", "'</tool_r"), "does not render tool results"),
        (
            families.CHATML.replace("'<tool_response>'", "loop.index ~ '<tool_response>'"),
            "what it adds after a turn depends",
        ),
        (
            families.CHATML.replace("+ m.content }}", "+ ('!' if loop.index > 4 else '') + m.content }}"),
            "how it renders a turn depends",
        ),
        (families.CHATML.replace("m.tool_calls or []", "[]"), "does not render tool calls"),
        (families.CHATML.replace('"name"', '"nom"'), "none of those known"),
        (families.CHATML.replace("<|im_end|>", "."), "does not end in a token of its own"),
        ("{% for m in messages %}{{ m.nothing.at_all }}{% endfor %}", "UndefinedError"),
    ],
)
def test_the_reason_of_a_refusal_is_told(template: str, reason: str) -> None:
    assert template != families.CHATML
    with pytest.raises(InputError, match=reason):
        Chat(families.tokenizer("chatml"), template=template)


def test_a_model_without_a_chat_template_is_refused() -> None:
    made = families.make(FAMILIES["chatml"], "base")
    made.chat_template = None
    with pytest.raises(InputError, match="made/base has no chat template"):
        Chat(made)
    assert Chat(made, template=families.CHATML).template == families.CHATML


def test_the_training_variant_is_taken_where_the_own_template_fails_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        chat = Chat(families.tokenizer("qwen3"))
    assert chat.template == families.template("qwen3_training")
    assert "made/qwen3" in caplog.text and "TRL's variant" in caplog.text


def test_of_several_templates_the_one_for_tools_is_used() -> None:
    made = families.make(FAMILIES["chatml"])
    made.chat_template = {"default": families.template("llama3"), "tool_use": families.CHATML}
    assert Chat(made).template == families.CHATML


def test_a_template_tells_one_date_however_long_it_is_used() -> None:
    chat = Chat(families.tokenizer("llama3.2"), today=date(2025, 2, 3))
    assert "Today Date: 03 Feb 2025" in chat.text(chat.prompt([Message(role="user", content="q")]))
    assert "strftime_now(" not in chat.template


def test_a_conversation_the_template_refuses_is_the_users_fault() -> None:
    with pytest.raises(InputError, match=r"made/llama3\.1.*only supports single tool-calls"):
        families.chat("llama3.1").prompt([Message(role="user", content="q"), said(("a", "{}"), ("b", "{}"))])


def test_each_result_goes_under_the_name_of_its_own_call() -> None:
    named = families.CHATML.replace("'<tool_response>' + m", "'<tool_response>' + m.name + ': ' + m")
    assert named != families.CHATML
    chat = Chat(families.tokenizer("chatml"), template=named)
    message = said(("look", "{}"), ("refund", "{}"))
    sampled = chat.write(message)
    longer = chat.extend(sampled, completion(message, [], sampled), answers(message, "paid", "done"))
    assert "<tool_response>look: paid</tool_response><tool_response>refund: done</tool_response>" in chat.text(longer)
