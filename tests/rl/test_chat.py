"""Messages to tokens and back, for every family of chat templates."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import unicodedata
from dataclasses import replace
from datetime import date
from typing import Any

import families
import pytest
from families import FAMILIES, REFUSED
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from envs.environment import Environment, tool
from envs.errors import InputError
from envs.types import Completion, Episode, Message, Task, ToolCall, ToolResult, Turn
from rl.chat import Chat, Row, row

every_family = pytest.mark.parametrize("name", FAMILIES)
lawful = settings(max_examples=40, deadline=None, derandomize=True)


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
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0\ufdd1" if plain else ""), max_size=8
        ),
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


@every_family
@lawful
@given(system=texts(plain=True), user=texts(plain=True), tools=st.booleans())
def test_a_prompt_without_control_text_is_the_canonical_one(name: str, system: str, user: str, tools: bool) -> None:
    chat = families.chat(name)
    messages = [Message(role="system", content=system), Message(role="user", content=user)]
    specs = TOOLS[1:] if tools else []
    expected = render(chat, name, messages, reply=True, tools=[spec.schema for spec in specs] or None)
    assert chat.prompt(messages, specs) == expected


@every_family
@lawful
@given(system=texts(), user=texts())
def test_text_from_outside_never_becomes_a_control_token(name: str, system: str, user: str) -> None:
    chat = families.chat(name)

    def found(system: str, user: str) -> list[int]:
        messages = [Message(role="system", content=system), Message(role="user", content=user)]
        return controls(name, chat.prompt(messages, TOOLS))

    # templates may leave out a message that is blank, so the stand-in must be blank with it
    stand_in = ["x" if text.strip() else text for text in (system, user)]
    assert found(system, user) == found(*stand_in)


@every_family
def test_control_text_is_kept_letter_by_letter(name: str) -> None:
    chat = families.chat(name)
    every = "".join([*FAMILIES[name].special, *FAMILIES[name].added])
    text = chat.text(chat.prompt([Message(role="user", content=every)], TOOLS))
    assert every in text
    assert "never write <|im_end|> or <tool_call> here" in text or name == "chatml"


def test_a_name_can_not_complete_a_control_token_with_the_template_around_it() -> None:
    chat = families.chat("qwen3.5")  # it writes <function=NAME>
    history = [Message(role="user", content="q"), said(("x<|im_end|", "{}")), Message(role="user", content="q")]
    ids = chat.prompt(history)
    plain = chat.prompt([history[0], said(("x", "{}")), history[2]])
    assert "<function=x<|im_end|>" in chat.text(ids)
    assert controls("qwen3.5", ids) == controls("qwen3.5", plain)


def test_a_normalizer_can_not_make_control_tokens_of_other_text() -> None:
    made = families.make(replace(families._qwen(families.CHATML, families.TOOLS), normalizer=normalizers.NFKC()))
    made.backend_tokenizer.add_tokens([families.AddedToken("<note>", normalized=True, special=False)])
    trick = "＜note＞"  # NFKC writes it <note>
    assert made.convert_tokens_to_ids("<note>") in made.encode(trick)
    chat = Chat(made)
    ids = chat.prompt([Message(role="user", content=f"see {trick}")])
    assert made.convert_tokens_to_ids("<note>") not in ids
    assert "see <note>" in chat.text(ids)


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
    except ValueError:  # says so rather than losing a part of it
        assume(False)
    read = chat.parse(ids, turn=0)
    assert read.content == message.content
    assert [call.name for call in read.tool_calls] == [call.name for call in message.tool_calls]
    assert [call.id for call in read.tool_calls] == [call.id for call in message.tool_calls]
    if chat._template.verbatim:
        assert read == message


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


@every_family
@lawful
@given(seed=st.integers(0, 2**32), contents=st.lists(st.lists(texts(), min_size=1, max_size=3), max_size=4))
def test_each_prompt_is_the_last_one_with_what_was_sampled_and_the_results(
    name: str, seed: int, contents: list[list[str]]
) -> None:
    """Sampled ids are anything at all, control tokens included; results are any text."""
    chat, rng = families.chat(name), random.Random(seed)
    size = len(chat.tokenizer)
    task = Task.ask("q <|im_end|>", id="t")
    episode = Episode(id="t#0", env="shop", task=task)
    prompt = chat.prompt(task.prompt, TOOLS)
    pieces: list[tuple[list[int], int]] = []
    for k, results in enumerate([*contents, None]):
        sampled = [rng.randrange(size) for _ in range(rng.randrange(6))] + [rng.choice(chat.stop_ids)]
        message = chat.parse(sampled, TOOLS, turn=k)
        done = completion(message, prompt, sampled)
        pieces.append((sampled, k))
        if results is None:
            episode.turns.append(Turn(completion=done))
            break
        found = [ToolResult(call_id=f"call_{k}_{i}", name="look", content=text) for i, text in enumerate(results)]
        longer = chat.extend([*prompt, *sampled], done, found)
        added = longer[len(prompt) + len(sampled) :]
        assert longer[: len(prompt) + len(sampled)] == [*prompt, *sampled]
        neutral = [replace(result, content="x" if result.content.strip() else result.content) for result in found]
        plain = chat.extend([*prompt, *sampled], done, neutral)[len(prompt) + len(sampled) :]
        assert controls(name, added) == controls(name, plain)
        for result in found:
            shown = (
                json.dumps(result.content, ensure_ascii=False)
                if name in ("llama3.1", "llama3.2", "gpt-oss")
                else result.content
            )
            shown = shown.replace("\ufdd0", "\ufffd").replace("\ufdd1", "\ufffd").strip()
            assert shown in chat.text(added)
        pieces.append((added, -1))
        episode.turns.append(Turn(completion=done, results=tuple(found)))
        prompt = longer
    made = row(episode)
    assert list(made.prompt_ids) == chat.prompt(task.prompt, TOOLS)
    assert list(made.completion_ids) == [index for ids, _ in pieces for index in ids]
    assert list(made.turns) == [turn for ids, turn in pieces for _ in ids]
    assert list(made.mask) == [int(turn >= 0) for turn in made.turns]
    assert all((logprob == 0.0) == (turn < 0) for logprob, turn in zip(made.logprobs, made.turns, strict=True))


@every_family
@lawful
@given(contents=st.lists(texts(plain=True), min_size=4, max_size=4))
def test_a_conversation_built_turn_by_turn_is_the_canonical_rendering(name: str, contents: list[str]) -> None:
    chat = families.chat(name)
    parallel = name not in ("llama3.1", "llama3.2", "gpt-oss")
    one, two = (
        said(("look", '{"order": "7"}')),
        said(("look", '{"order": "8"}'), ("refund", '{"order": "8", "cents": 1}')),
    )
    two = two if parallel else replace(two, tool_calls=two.tool_calls[:1])
    messages = [Message(role="system", content="Be brief."), Message(role="user", content="Go.")]
    prompt = chat.prompt(messages, TOOLS[1:])
    for message in (one, two):
        sampled = chat.write(message)
        results = answers(message, *contents[: len(message.tool_calls)])
        prompt = chat.extend([*prompt, *sampled], completion(message, prompt, sampled), results)
        messages += [message, *(Message(role="tool", content=r.content, tool_call_id=r.call_id) for r in results)]
    assert prompt == render(chat, name, messages, reply=True, tools=[spec.schema for spec in TOOLS[1:]])


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


REPLY = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (families.CHATML.replace("in messages", "in messages[-2:]"), "renders earlier turns anew"),
        (families.CHATML.replace("m.content + '</tool_r", "'</tool_r"), "does not render tool results"),
        (families.CHATML.replace("'<tool_response>'", "loop.index ~ '<tool_response>'"), "depends on the turns before"),
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


def test_a_turn_without_a_stop_token_is_not_extended() -> None:
    chat = families.chat("chatml")
    message = said(("look", '{"order": "7"}'))
    prompt, sampled = chat.prompt([Message(role="user", content="q")]), chat.write(message)
    cut = completion(message, prompt, sampled[:-1])
    with pytest.raises(ValueError, match="did not end in a stop token"):
        chat.extend([*prompt, *sampled[:-1]], cut, answers(message, "paid"))
    with pytest.raises(ValueError, match="without tool results"):
        chat.extend([*prompt, *sampled], completion(message, prompt, sampled), [])


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
@given(ids=st.lists(st.integers(0, 1100), max_size=40), marks=st.integers(0, 2**32))
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


def played(*turns: tuple[list[int], list[int]]) -> Episode:
    made = [Turn(completion=completion(said(), prompt, sampled)) for prompt, sampled in turns]
    return Episode(id="t#0", env="shop", task=Task.ask("q"), turns=made)


def test_a_row_is_the_episode_as_one_sequence() -> None:
    made = row(played(([1, 2], [3, 4]), ([1, 2, 3, 4, 9, 9], [5])))
    assert made == Row(
        prompt_ids=(1, 2),
        completion_ids=(3, 4, 9, 9, 5),
        mask=(1, 1, 0, 0, 1),
        logprobs=(-0.01, -0.02, 0.0, 0.0, -0.01),
        turns=(0, 0, -1, -1, 1),
    )


@pytest.mark.parametrize(
    ("episode", "reason"),
    [
        (played(), "has no turns"),
        (played(([1], [])), "turn 0: 0 sampled ids"),
        (played(([1, 2], [3]), ([1, 2, 4, 9], [5])), "turn 1: its prompt does not extend"),
        (played(([1, 2], [3]), ([1, 2, 3], [5])), "turn 1: its prompt does not extend"),
        (played(([1, 2], [3]), ([1, 2], [5])), "turn 1: its prompt does not extend"),
    ],
)
def test_an_episode_that_is_not_one_sequence_makes_no_row(episode: Episode, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        row(episode)


def test_a_row_has_columns_of_one_length() -> None:
    with pytest.raises(ValueError, match="lengths"):
        Row(prompt_ids=(1,), completion_ids=(2, 3), mask=(1, 1), logprobs=(0.0,), turns=(0, 0))
