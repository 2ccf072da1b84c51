from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from envs.desk import Desk, Noise, due_calls
from envs.errors import InputError
from envs.types import Message, ToolResult
from rl import tiny
from rl.chat import Chat
from rl.tiny import Recipe, Shape
from rl.trainers.sft import rows_of

pytestmark = pytest.mark.stack

WORDS = tiny.tokenizer()
CHAT = Chat(WORDS)
TOOLS = list(Desk.tools().values())
SMALL = Recipe(
    shape=Shape(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, intermediate=32),
    demonstrations=24,
    steps=4,
    batch=4,
)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_the_tokenizer_can_write_any_text(text: str) -> None:
    ids = WORDS.encode(text, add_special_tokens=False)
    if not any(special in text for special in tiny.SPECIAL):
        assert WORDS.decode(ids) == text


def test_every_digit_is_a_token() -> None:
    call = '{"name": "refund", "arguments": {"order_id": "4711", "amount": 129}}'
    pieces = [WORDS.decode([index]) for index in WORDS.encode(call)]
    assert [piece for piece in pieces if any(letter.isdigit() for letter in piece)] == list("4711129")
    assert len(pieces) <= 12


def test_the_tokenizer_is_the_same_each_time() -> None:
    assert tiny.tokenizer().get_vocab() == WORDS.get_vocab()
    assert len(WORDS) < 800


def test_an_episode_takes_about_150_tokens() -> None:
    quiet = Noise(skip=0, defy=0, stop=0, slip=0, repeat=0)
    rows = rows_of(tiny.demonstrations(100, orders=(1, 2), noise=quiet), CHAT, TOOLS)
    assert sum(len(r.prompt_ids) + len(r.completion_ids) for r in rows) / len(rows) < 160
    assert sum(len(r.prompt_ids) for r in rows) / len(rows) < 45


def test_rows_are_what_the_template_renders() -> None:
    for episode in tiny.demonstrations(40):
        messages = [as_dict(message) for message in episode.messages]
        rendered = WORDS.apply_chat_template(messages, tokenize=True)["input_ids"]
        (made,) = rows_of([episode], CHAT, TOOLS)
        assert [*made.prompt_ids, *made.completion_ids, *WORDS.encode("\n")] == rendered


def as_dict(message: Message) -> dict[str, Any]:
    calls = [{"function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls]
    return {"role": message.role, "content": message.content} | ({"tool_calls": calls} if calls else {})


def test_tools_cost_no_context() -> None:
    (task,) = Desk.tasks("train", count=1)
    assert CHAT.prompt(task.prompt, TOOLS) == CHAT.prompt(task.prompt, ())


def test_results_of_one_turn_share_one_user_turn() -> None:
    (task,) = Desk.tasks("train", orders=(2, 2), count=1)
    calls = [due_calls(task, request)[0] for request in task.item["requests"]]
    results = [ToolResult(call_id=str(n), name=call[0], content=f"<|im_end|>{n}") for n, call in enumerate(calls)]
    both = Message(role="assistant", tool_calls=tuple(m.tool_calls[0] for m in Desk.expert(task)[::3][:2]))
    ids = [*CHAT.prompt(task.prompt, TOOLS), *CHAT.write(both)]
    added = CHAT.extend(ids, None, results)[len(ids) :]  # type: ignore[arg-type]
    assert WORDS.decode(added) == (
        "\n<|im_start|>user\n<tool_response><|im_end|>0</tool_response><tool_response><|im_end|>1</tool_response>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert added.count(WORDS.eos_token_id) == 1
    assert CHAT.parse(CHAT.write(both)).tool_calls[1].arguments == both.tool_calls[1].arguments


def test_a_random_model_is_an_ordinary_model_directory(tmp_path: Path) -> None:
    directory = tiny.random_model(tmp_path / "model", seed=3, shape=SMALL.shape)
    model = AutoModelForCausalLM.from_pretrained(directory)
    words = AutoTokenizer.from_pretrained(directory)
    assert words.get_vocab() == WORDS.get_vocab() and words.chat_template == tiny.TEMPLATE
    assert Chat(words).stop_ids == CHAT.stop_ids
    assert model.config.architectures == ["Qwen3ForCausalLM"] and model.dtype == torch.float32
    assert model(torch.tensor([WORDS.encode("order 4711")])).logits.shape[-1] == len(WORDS)
    with pytest.raises(InputError, match="is not empty"):
        tiny.random_model(directory)


def test_making_leaves_a_model_that_is_found_again(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = tiny.make(tmp_path / "made", SMALL, progress=lambda step, steps, loss: seen.append((step, steps)))
    assert seen == [(step, 4) for step in range(1, 5)]
    assert not made.reused and made.seconds > 0 and 3 < made.loss < 8
    model = AutoModelForCausalLM.from_pretrained(made.directory)
    assert model.num_parameters() == made.parameters
    again = tiny.make(tmp_path / "made", SMALL, progress=lambda *_: pytest.fail("it was trained again"))
    assert again.reused and again.seconds == made.seconds
    with pytest.raises(InputError, match="another recipe"):
        tiny.make(tmp_path / "made", Recipe())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no tiny policy"):
        tiny.make(tmp_path / "other", SMALL)


def test_a_seed_makes_one_policy(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        recipe = Recipe(seed=seed, shape=SMALL.shape, demonstrations=24, steps=4, batch=4)
        made = tiny.make(tmp_path / name, recipe)
        return dict(AutoModelForCausalLM.from_pretrained(made.directory).state_dict())

    one, same, other = weights("a", 1), weights("b", 1), weights("c", 2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_making_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.make(tmp_path / "made", SMALL, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_saving_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Broken:
        def save_pretrained(self, directory: Path) -> None:
            (directory / "half").write_text("x")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        tiny._save(tmp_path / "made", Broken(), WORDS, {})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_digest_knows_every_setting() -> None:
    recipes = [Recipe(), Recipe(seed=1), Recipe(steps=7), Recipe(noise=Noise(skip=0.3)), Recipe(shape=Shape(layers=2))]
    assert len({recipe.digest for recipe in recipes}) == len(recipes)
    assert Recipe().digest == Recipe().digest


def test_the_last_weights_are_averaged() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    watcher = tiny._watcher(Recipe(steps=10, averaged=0.3), None)
    for step in range(1, 11):
        with torch.no_grad():
            model.weight.fill_(step)
        state = type("State", (), {"global_step": step})()
        watcher.on_step_end(None, state, None, model=model)  # type: ignore[arg-type]
    watcher.on_train_end(None, None, None, model=model)  # type: ignore[arg-type]
    assert model.weight.tolist() == [[9.0, 9.0]]


@pytest.mark.slow
def test_a_short_warm_start_learns_the_shape_of_the_job(tmp_path: Path) -> None:
    made = tiny.make(tmp_path / "made", Recipe(steps=80, demonstrations=320))
    assert made.loss < 1.4
    model = AutoModelForCausalLM.from_pretrained(made.directory)
    (first,) = rows_of(tiny.demonstrations(1), CHAT, TOOLS)
    guess = model(torch.tensor([first.prompt_ids])).logits[0, -1].argmax().item()
    assert WORDS.decode([guess]) == "<tool_call>"
