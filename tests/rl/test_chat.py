"""A turn's prompt is the last one, what was sampled, and the results; text from outside stays text."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

import families
from envs.environment import Environment, ToolSpec, tool
from envs.types import Episode, Message, Task, ToolResult, Turn
from families import FAMILIES
from rl.chat import Chat
from rl.rows import Row, row
from talk import TOOLS, answers, completion, controls, every_family, lawful, render, said, texts


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


@every_family
def test_a_tools_description_is_text(name: str) -> None:
    class Quiet(Environment):
        @tool
        def look(self, order: str) -> str:
            """Look up an order."""
            return order

    def found(tools: Sequence[ToolSpec]) -> list[int]:
        return controls(name, families.chat(name).prompt([Message(role="user", content="q")], tools))

    assert found(TOOLS[:1]) == found(list(Quiet.tools().values()))


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
    call = said(("look", "{}"), text=f"see {trick}")
    written = chat._reply_ids(call)
    longer = chat.extend(written, completion(call, [], written), answers(call, f"see {trick}"))
    assert made.convert_tokens_to_ids("<note>") not in longer
    assert chat.text(longer).count("see <note>") == 2


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
            assert shown.strip() in chat.text(added)
        pieces.append((added, -1))
        episode.turns.append(Turn(completion=done, results=tuple(found)))
        prompt = longer
    made = row(episode)
    assert list(made.prompt_ids) == chat.prompt(task.prompt, TOOLS)
    assert list(made.completion_ids) == [index for ids, _ in pieces for index in ids]
    assert list(made.turns) == [turn for ids, turn in pieces for _ in ids]
    assert list(made.mask) == [int(turn >= 0) for turn in made.turns]
    assert all((logprob == 0.0) == (turn < 0) for logprob, turn in zip(made.logprobs, made.turns, strict=True))


def test_a_turn_without_a_stop_token_is_not_extended() -> None:
    chat = families.chat("chatml")
    message = said(("look", '{"order": "7"}'))
    prompt, sampled = chat.prompt([Message(role="user", content="q")]), chat.write(message)
    cut = completion(message, prompt, sampled[:-1])
    with pytest.raises(ValueError, match="did not end in a stop token"):
        chat.extend([*prompt, *sampled[:-1]], cut, answers(message, "paid"))
    with pytest.raises(ValueError, match="without tool results"):
        chat.extend([*prompt, *sampled], completion(message, prompt, sampled), [])


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
