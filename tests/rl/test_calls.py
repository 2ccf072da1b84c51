"""What a model sampled, read as a message; a message, written as a model would sample it."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import families
from envs.types import Message, Task, ToolCall
from families import FAMILIES
from talk import TOOLS, Shop, every_family, lawful, render, said, texts


@every_family
def test_what_is_written_continues_the_prompt_as_the_template_would(name: str) -> None:
    chat = families.chat(name)
    question = [Message(role="user", content="Refund 7, please.")]
    for message in (said(("refund", '{"order": "7", "cents": 5}')), said(text="It is done.\nBye.")):
        canonical = render(chat, name, [*question, message], reply=False)
        built = chat.prompt(question) + chat.write(message)
        assert canonical[: len(built)] == built
        assert chat.text(canonical[len(built) :]).strip() == ""
        assert built[-1] in chat.stop_ids


@every_family
@lawful
@given(data=st.data())
def test_what_is_written_is_read_back(name: str, data: st.DataObject) -> None:
    chat = families.chat(name)
    values = st.one_of(st.integers(), st.booleans(), st.none(), texts(), st.lists(texts(), max_size=2))
    arguments = st.dictionaries(st.sampled_from(["order", "cents", "note"]), values, max_size=3)
    calls = data.draw(st.lists(st.tuples(st.sampled_from(["look", "refund", "gone"]), arguments), max_size=3))
    if name in ("llama3.1", "llama3.2", "gpt-oss"):
        calls = calls[:1]
    text = data.draw(texts().map(str.strip))
    if name in ("llama3.1", "llama3.2", "gpt-oss") and calls:
        text = ""  # these templates have no place for text beside a call
    message = said(*((called, json.dumps(given, ensure_ascii=False)) for called, given in calls), text=text)
    try:
        ids = chat.write(message)
    except ValueError:
        assert not chat._template.verbatim  # a family without types in its calls can't write every value
        assume(False)
    read = chat.parse(ids, turn=0)
    assert read.content == message.content
    assert [call.name for call in read.tool_calls] == [call.name for call in message.tool_calls]
    assert [call.id for call in read.tool_calls] == [call.id for call in message.tool_calls]
    if chat._template.verbatim:
        assert read == message


@pytest.mark.parametrize("name", ["chatml", "qwen3", "qwen3.5", "glm4.5", "gpt-oss"])
def test_a_call_that_is_quoted_is_not_a_call(name: str) -> None:
    chat = families.chat(name)
    quote = (
        'It says <tool_call>{"name": "look", "arguments": {}}</tool_call> and <|start|>assistant to=look<|message|>.'
    )
    for text in (quote, "<tool_call>", "<|message|>"):
        assert chat.parse(chat.write(said(text=text))) == said(text=text)


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_blank_lines_before_a_call_belong_to_the_text(name: str) -> None:
    chat = families.chat(name)
    message = said(("look", "{}"), text="Let me see.\n\n")
    assert chat.parse(chat.write(message)) == message


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("qwen3.5", "qwen3.6-nothink", "glm4.5")])
@pytest.mark.parametrize("arguments", ['{"order":"7"}', '{ "order" :  "7",\n"cents": 1e2 }', '{"order": "\\u00e9"}'])
def test_arguments_are_verbatim(name: str, arguments: str) -> None:
    chat = families.chat(name)
    (call,) = chat.parse(chat.write(said(("refund", arguments))), turn=4).tool_calls
    assert call == ToolCall(id="call_4_0", name="refund", arguments=arguments)


@pytest.mark.parametrize("name", ["qwen3.5", "qwen3.6-nothink", "glm4.5"])
def test_untyped_arguments_get_their_types_from_the_schema(name: str) -> None:
    chat = families.chat(name)
    ids = chat.write(said(("refund", '{"order": "75001", "cents": 5}')), TOOLS)
    (call,) = chat.parse(ids, TOOLS).tool_calls
    assert json.loads(call.arguments) == {"order": "75001", "cents": 5}
    (blind,) = chat.parse(ids).tool_calls
    assert json.loads(blind.arguments) == {"order": 75001, "cents": 5}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llama3.1", said(("look", "{}"), text="Let me look.")),
        ("llama3.1", said(("look", "{}"), ("look", "{}"))),
        ("llama3.1", said(text='{"name": "look", "parameters": {}}')),
        ("qwen2.5", said(("look", '{"order": '))),
        ("glm4.5", said(("look", '{"order": '))),
        ("qwen3.5", said(("look", '["order"]'))),
    ],
)
def test_what_a_template_would_lose_is_not_written(name: str, message: Message) -> None:
    with pytest.raises(ValueError, match=f"made/{name}"):
        families.chat(name).write(message)


MALFORMED = {
    "qwen3": [
        ('<tool_call>\n{"name": "look", "arguments": {"order": "7"}\n</tool_call><|im_end|>', ["bad_arguments"]),
        (
            '<tool_call>\n{"name": "look", "arguments": {"order": "7"}}',
            [None],
        ),  # nothing but the closing mark is missing
        ('<tool_call>{"name": "look"}</tool_call><|im_end|>', ["bad_arguments"]),
        ('<tool_call>{"name": "look", "parameters": {"order": "7"}}</tool_call><|im_end|>', ["unknown_tool"]),
        ('<tool_call>{"name": "look", "arguments": "{\\"order\\": 7}"}</tool_call>', ["bad_arguments"]),
        ('<tool_call>[{"name": "look", "arguments": {"order": "7"}}]</tool_call>', ["bad_arguments"]),
        ('<tool_call>{"name": ["look"], "arguments": {"order": "7"}}</tool_call>', ["unknown_tool"]),
        ("<tool_call></tool_call>", ["unknown_tool"]),
        ("<tool_call>look(7)</tool_call>", ["unknown_tool"]),
        ("<tool_call><tool_call><tool_call>", ["unknown_tool"] * 3),
        ('<tool_call>{"name": "look", "arguments": ' + "[" * 3000 + "</tool_call>", ["bad_arguments"]),
        ("<think><tool_call></think></tool_call>", []),
        ("<tool_call></think></tool_call>", ["unknown_tool"]),
    ],
    "llama3.1": [
        ('{"name": "look", "parameters": {"order": "7"}}<|eom_id|>', [None]),
        ('<|python_tag|>{"name": "look", "parameters": {"order": "7"}}<|eom_id|>', [None]),
        (
            '{"name": "look", "parameters": {"order": "7"}}; {"name": "look", "parameters": {"order": "8"}}',
            [None, None],
        ),
        ('{"name": "look", "parameters": {"order": "7"}} and so on<|eot_id|>', ["bad_arguments"]),
        ('{"name": "look", "parameters": {"order": <|eot_id|>', ["bad_arguments"]),
        ('{"name": "look", "arguments": {"order": "7"}}<|eot_id|>', ["unknown_tool"]),
        ("<|python_tag|>print(7)<|eom_id|>", ["unknown_tool"]),
        ("<|python_tag|><|eom_id|>", ["unknown_tool"]),
        ('{"total": 7}<|eot_id|>', []),
    ],
    "qwen3.5": [
        ("</think><tool_call>\n<function=look>\n<parameter=order>\n7\n</parameter>\n</function>\n</tool_call>", [None]),
        ("</think><tool_call>\n<function=look>\n<parameter=order>\n7\n</function>\n</tool_call>", ["unknown_tool"]),
        ('</think><tool_call>{"name": "look", "arguments": {"order": "7"}}</tool_call>', ["unknown_tool"]),
        ("still thinking <tool_call>", []),
    ],
    "glm4.5": [
        (
            "\n<think></think>\n<tool_call>look\n<arg_key>order</arg_key>\n<arg_value>7</arg_value>\n</tool_call>",
            [None],
        ),
        ("\n<think></think>\n<tool_call>look\n<arg_key>order</arg_key>\n</tool_call><|observation|>", ["unknown_tool"]),
        ("\n<think></think>\n<tool_call>look\n</tool_call><|observation|>", ["bad_arguments"]),
    ],
    "gpt-oss": [
        (' to=functions.look<|channel|>commentary json<|message|>{"order": "7"}<|call|>', [None]),
        ('<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"order": "7"}<|call|>', [None]),
        (
            "<|channel|>analysis<|message|>Hm.<|end|>"
            "<|start|>assistant to=functions.look<|channel|>commentary json<|message|>{",
            ["bad_arguments"],
        ),
        ("<|channel|>commentary to=look<|call|>", ["bad_arguments"]),
        ("<|channel|>commentary to=browser.open<|message|>{}<|call|>", ["unknown_tool"]),
    ],
}


@pytest.mark.parametrize(("name", "sampled", "faults"), [(n, t, f) for n, rows in MALFORMED.items() for t, f in rows])
def test_every_call_is_carried_out_or_faulted(name: str, sampled: str, faults: list[str | None]) -> None:
    chat = families.chat(name)
    message = chat.parse(chat.tokenizer.encode(sampled, add_special_tokens=False), TOOLS)
    results = asyncio.run(Shop(Task.ask("q")).step(message))
    assert [result.fault for result in results] == faults


@pytest.mark.parametrize(
    ("name", "sampled", "content"),
    [
        ("qwen3", "<think>\nHm.\n</think>\n\nSeven.<|im_end|>", "Seven."),
        ("qwen3", "Seven.<|im_end|>", "Seven."),
        ("qwen3", "<think>\nHm.<|im_end|>", ""),
        ("qwen3", "One.\n<tool_call>x</tool_call>\n<tool_call>y</tool_call>\nTwo.<|im_end|>", "One.\nTwo."),
        ("qwen3.5", "Hm.\n</think>\n\nSeven.<|im_end|>", "Seven."),
        ("qwen3-nothink", "Seven.<|endoftext|>", "Seven."),
        (
            "gpt-oss",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>7<|return|>",
            "7",
        ),
        ("llama3.1", " 7 <|eot_id|>", " 7 "),
    ],
)
def test_content_is_what_was_said_without_the_thoughts(name: str, sampled: str, content: str) -> None:
    chat = families.chat(name)
    assert chat.parse(chat.tokenizer.encode(sampled, add_special_tokens=False)).content == content


@every_family
@lawful
@given(ids=st.lists(st.integers(0, 1400), max_size=40), marks=st.integers(0, 2**32))
def test_nothing_a_model_samples_breaks_the_parser(name: str, ids: list[int], marks: int) -> None:
    chat, rng = families.chat(name), random.Random(marks)
    added = list(chat.tokenizer.get_added_vocab().values())
    mixed = [rng.choice(added) if rng.random() < 0.5 else index for index in ids]
    message = chat.parse(mixed, TOOLS)
    asyncio.run(Shop(Task.ask("q")).step(message))


@pytest.mark.stack
@pytest.mark.parametrize(
    "name", sorted(set(FAMILIES) - {"chatml", "qwen3.6-nothink", "glm4.5"})
)  # theirs keeps GLM's stop token
def test_well_formed_turns_are_read_as_transformers_reads_them(name: str) -> None:
    from trl.chat_template_utils import add_response_schema

    chat = families.chat(name)
    other = add_response_schema(families.make(FAMILIES[name]))
    prefix = chat.prompt([Message(role="user", content="q")])
    for message in (said(("refund", '{"order": "a7", "cents": 5}')), said(text="Done.")):
        ids = chat.write(message)
        theirs = other.parse_response(ids, prefix=prefix, tools=[spec.schema for spec in TOOLS])
        ours = chat.parse(ids, TOOLS)
        assert (theirs.get("content") or "") == ours.content
        assert [(call["function"]["name"], call["function"]["arguments"]) for call in theirs.get("tool_calls", [])] == [
            (call.name, json.loads(call.arguments)) for call in ours.tool_calls
        ]
