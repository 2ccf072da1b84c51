from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from peft import LoraConfig, PeftModel

from envs.desk import Desk
from envs.errors import InputError
from rl import tiny
from rl.chat import Chat
from rl.rows import Row, row
from rl.trainers.sft import dataset, finetune, rows_of, settings, written

pytestmark = pytest.mark.stack

WORDS = tiny.tokenizer()
CHAT = Chat(WORDS)
TOOLS = list(Desk.tools().values())
EPISODES = tiny.demonstrations(16)
SHAPE = tiny.Shape(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, intermediate=32)
PLAIN = {"use_cpu": True, "bf16": False, "activation_checkpointing": False, "save_strategy": "no", "disable_tqdm": True}


def network() -> Any:
    torch.manual_seed(0)
    return tiny.model(WORDS, SHAPE)


def args(directory: Path, **fields: Any) -> Any:
    return settings(str(directory), PLAIN | fields)


def test_every_field_of_trl_goes_by_its_own_name(tmp_path: Path) -> None:
    made = args(tmp_path, learning_rate=1e-3, loss_type="dft", packing=False, max_length=77)
    assert (made.learning_rate, made.loss_type, made.max_length) == (1e-3, "dft", 77)
    assert args(tmp_path).max_length is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rat": 1}, "learning_rate"),
        ({"zzz": 1}, "unknown key 'zzz'"),
        ({"assistant_only_loss": True}, "would have no effect"),
        ({"eval_strategy": "sometimes"}, "sometimes"),
    ],
)
def test_fields_that_would_do_nothing_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        args(tmp_path, **fields)


def test_a_scripted_episode_becomes_the_row_of_a_sampled_one() -> None:
    for episode, made in zip(EPISODES, rows_of(EPISODES, CHAT, TOOLS), strict=True):
        sampled = written(episode, CHAT, TOOLS)
        assert rows_of([sampled], CHAT, ()) == [row(sampled)] == [made]
        for turn in sampled.turns:
            said = turn.completion
            calls = CHAT.parse(said.token_ids).tool_calls
            assert [c.arguments for c in calls] == [c.arguments for c in said.message.tool_calls]
            assert said.prompt_ids[-3:] == tuple(WORDS.encode("<|im_start|>assistant\n"))


def test_only_sampled_tokens_carry_loss() -> None:
    rows = rows_of(EPISODES, CHAT, TOOLS)
    for made, columns in zip(rows, dataset(rows), strict=True):
        mask = [0] * len(made.prompt_ids) + list(made.mask)
        assert columns["input_ids"] == [*made.prompt_ids, *made.completion_ids]
        assert columns["labels"] == [i if m else -100 for i, m in zip(columns["input_ids"], mask, strict=True)]


def test_a_share_of_the_context_carries_loss_on_request() -> None:
    rows = rows_of(EPISODES, CHAT, TOOLS)
    plain, shared = dataset(rows), dataset(rows, context_share=0.1, seed=1)
    context = [
        (a, b) for x, y in zip(plain, shared, strict=True) for a, b in zip(x["labels"], y["labels"], strict=True)
    ]
    assert all(a == b for a, b in context if a != -100)
    left = [b for a, b in context if a == -100]
    assert sum(b != -100 for b in left) / len(left) == pytest.approx(0.1, abs=0.03)
    assert dataset(rows, context_share=0.1, seed=1)["labels"] == shared["labels"]
    assert dataset(rows, context_share=0.1, seed=2)["labels"] != shared["labels"]


def test_the_loss_is_the_cross_entropy_of_sampled_tokens(tmp_path: Path) -> None:
    rows = rows_of(EPISODES, CHAT, TOOLS)[:4]
    model = network()
    total, count = 0.0, 0
    for made in rows:
        ids = torch.tensor([[*made.prompt_ids, *made.completion_ids]])
        sampled = torch.tensor([0] * len(made.prompt_ids) + list(made.mask))[1:] == 1
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits[sampled], ids[0, 1:][sampled], reduction="sum").item()
        count += int(sampled.sum())
    fields = {"per_device_train_batch_size": 4, "max_steps": 1, "logging_steps": 1, "learning_rate": 0.0}
    trainer = finetune(model, WORDS, rows, args(tmp_path, **fields))
    assert trainer.state.log_history[0]["loss"] == pytest.approx(total / count, abs=1e-5)


def test_full_fine_tuning_learns_in_place(tmp_path: Path) -> None:
    model = network()
    fields = {"max_steps": 12, "logging_steps": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 8}
    trainer = finetune(model, WORDS, rows_of(EPISODES, CHAT, TOOLS), args(tmp_path, **fields))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 1
    assert trainer.model is model


def test_an_adapter_learns_while_its_base_stays(tmp_path: Path) -> None:
    model = network()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    fields = {"max_steps": 8, "logging_steps": 1, "learning_rate": 3e-2, "per_device_train_batch_size": 8}
    trainer = finetune(model, WORDS, rows_of(EPISODES, CHAT, TOOLS), args(tmp_path, **fields), lora=lora)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.05
    assert isinstance(trainer.model, PeftModel)
    after = {name.replace(".base_layer", ""): weight for name, weight in model.named_parameters()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    trainer.save_model(str(tmp_path / "adapter"))
    assert PeftModel.from_pretrained(network(), tmp_path / "adapter").peft_config["default"].r == 4


def test_long_episodes_are_not_cut(tmp_path: Path) -> None:
    ids = tuple(WORDS.encode("order 4711.") * 300)
    long = Row(
        prompt_ids=ids[:1], completion_ids=ids, mask=(1,) * len(ids), logprobs=(0.0,) * len(ids), turns=(0,) * len(ids)
    )
    trainer = finetune(network(), WORDS, [long], args(tmp_path, max_steps=1))
    assert len(trainer.train_dataset[0]["input_ids"]) == len(ids) + 1 > 1024


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no episodes"):
        finetune(network(), WORDS, [], args(tmp_path))
    nowhere = LoraConfig(target_modules=["no_such_layer"], task_type="CAUSAL_LM")
    with pytest.raises(InputError, match="no_such_layer"):
        finetune(network(), WORDS, rows_of(EPISODES, CHAT, TOOLS), args(tmp_path), lora=nowhere)
