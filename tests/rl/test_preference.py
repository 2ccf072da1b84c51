"""Preference optimisation on segments: TRL's trainer against the formula, and the command on real records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from envs.errors import InputError
from rl import tiny
from rl.pairs import Pair
from rl.trainers.preference import Collator, SegmentTrainer, dataset, settings

pytestmark = pytest.mark.stack

WORDS = tiny.tokenizer()
SHAPE = tiny.Shape(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, intermediate=32)
LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
BETA = 0.3


def pair(seed: int, prompt: int, chosen: tuple[int, ...], rejected: tuple[int, ...]) -> Pair:
    """Random ids behind a prompt of so many, with these masks."""
    dice = torch.Generator().manual_seed(seed)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 300, (number,), generator=dice).tolist())

    return Pair(
        task=str(seed),
        turn=0,
        prompt_ids=ids(prompt),
        chosen_ids=ids(len(chosen)),
        chosen_mask=chosen,
        rejected_ids=ids(len(rejected)),
        rejected_mask=rejected,
        margin=1.0,
        sampled=50,
    )


PAIRS = [
    pair(0, 7, (1, 1, 0, 0, 1), (1, 0, 1)),
    pair(1, 3, (1,), (1, 1, 1, 0, 1, 1)),
    pair(2, 12, (1, 1, 1), (1, 1, 0, 0, 0, 0, 1)),
]


def network() -> Any:
    """With weights that make it sure of itself: of a flat distribution every mistake in a sum looks the same."""
    torch.manual_seed(0)
    model = tiny.model(WORDS, SHAPE)
    for weight in model.parameters():
        weight.data *= 10 if weight.dim() == 2 else 1
    return model


def trainer(directory: Path, pairs: list[Pair] = PAIRS, model: Any = None, **fields: Any) -> SegmentTrainer:
    """Of an adapter that is not at its start, so that D is not 0."""
    plain = {"beta": BETA, "per_device_train_batch_size": 8, "gradient_checkpointing": False}
    args = settings(str(directory), 0, plain | fields)
    made = SegmentTrainer(model or network(), WORDS, pairs, args, lora=LORA if model is None else None)
    if model is None:
        torch.manual_seed(1)
        for name, weight in made.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    return made


def log_probability(model: Any, prompt: tuple[int, ...], ids: tuple[int, ...], mask: tuple[int, ...]) -> torch.Tensor:
    """Of the masked ids behind the prompt, one sequence at a time and token by token."""
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0].double()
    total = torch.zeros((), dtype=torch.float64)
    for place, (token, learned) in enumerate(zip(ids, mask, strict=True)):
        if learned:
            row = logits[len(prompt) + place - 1]
            total = total + row[token] - torch.logsumexp(row, dim=0)
    return total


def by_hand(model: PeftModel, pairs: list[Pair]) -> torch.Tensor:
    """The mean over pairs of -log sigmoid(beta * (D(chosen) - D(rejected)))."""
    losses = []
    for each in pairs:
        gained = []
        for ids, mask in ((each.chosen_ids, each.chosen_mask), (each.rejected_ids, each.rejected_mask)):
            with torch.no_grad(), model.disable_adapter():
                before = log_probability(model, each.prompt_ids, ids, mask)
            gained.append(log_probability(model, each.prompt_ids, ids, mask) - before)
        losses.append(torch.log1p(torch.exp(-BETA * (gained[0] - gained[1]))))
    return torch.stack(losses).mean()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def loss_of(made: SegmentTrainer, pairs: list[Pair]) -> torch.Tensor:
    batch = Collator(pad_id=WORDS.pad_token_id)(dataset(pairs).to_list())
    return made.compute_loss(made.model, batch)


def test_a_batch_is_the_chosen_then_the_rejected_halves() -> None:
    one = replace(
        PAIRS[0], prompt_ids=(5,), chosen_ids=(6, 7, 8), chosen_mask=(1, 0, 1), rejected_ids=(9,), rejected_mask=(1,)
    )
    batch = Collator(pad_id=0)(dataset([one]).to_list())
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["completion_mask"].tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]


def test_loss_and_gradient_are_those_of_the_formula(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    loss = loss_of(made, PAIRS)
    loss.backward()
    ours = gradients(made.model)
    expected = by_hand(made.model, PAIRS)
    expected.backward()
    theirs = gradients(made.model)
    assert abs(expected.item() - 0.6931) > 0.01  # the adapter is not at its start
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert ours.keys() == theirs.keys() and all("lora_" in name for name in ours)
    scale = max(grad.abs().max().item() for grad in theirs.values())
    assert scale > 1e-3
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-4, atol=1e-5 * scale)


def test_the_loss_that_training_logs_is_that_of_the_formula(tmp_path: Path) -> None:
    made = trainer(tmp_path, learning_rate=0.0, max_steps=1)
    expected = by_hand(made.model, PAIRS).item()
    made.train()
    assert made.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-4)  # TRL's log has four digits


def test_only_the_mask_says_which_tokens_are_learned(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    loss = loss_of(made, PAIRS[:1]).item()
    fewer = replace(PAIRS[0], chosen_mask=(1, 1, 0, 0, 0))
    assert loss_of(made, [fewer]).item() == pytest.approx(by_hand(made.model, [fewer]).item(), abs=1e-5)
    assert abs(loss_of(made, [fewer]).item() - loss) > 1e-3
    cut = replace(fewer, chosen_ids=fewer.chosen_ids[:2], chosen_mask=(1, 1))
    assert loss_of(made, [cut]).item() == pytest.approx(loss_of(made, [fewer]).item(), abs=1e-6)


def test_a_result_inside_the_segment_is_read_and_not_learned(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    each = PAIRS[0]
    other = replace(each, chosen_ids=(*each.chosen_ids[:3], 301, *each.chosen_ids[4:]))
    assert abs(loss_of(made, [each]).item() - loss_of(made, [other]).item()) > 1e-6  # what follows it has read it
    at_end = replace(each, chosen_ids=(*each.chosen_ids, 301), chosen_mask=(*each.chosen_mask, 0))
    assert loss_of(made, [at_end]).item() == pytest.approx(loss_of(made, [each]).item(), abs=1e-6)


def test_likelihoods_are_those_of_the_policy_and_of_its_start(tmp_path: Path) -> None:
    made = trainer(tmp_path, per_device_eval_batch_size=2)
    with torch.no_grad():
        for each, found in zip(PAIRS, made.likelihoods(PAIRS), strict=True):
            chosen = (each.prompt_ids, each.chosen_ids, each.chosen_mask)
            rejected = (each.prompt_ids, each.rejected_ids, each.rejected_mask)
            assert found.chosen == pytest.approx(log_probability(made.model, *chosen).item(), abs=1e-4)
            assert found.rejected == pytest.approx(log_probability(made.model, *rejected).item(), abs=1e-4)
            with made.model.disable_adapter():
                assert found.reference_chosen == pytest.approx(log_probability(made.model, *chosen).item(), abs=1e-4)
                assert found.reference_rejected == pytest.approx(
                    log_probability(made.model, *rejected).item(), abs=1e-4
                )
            margin = (found.chosen - found.reference_chosen) - (found.rejected - found.reference_rejected)
            assert found.advantage == pytest.approx(margin)
    fresh = SegmentTrainer(network(), WORDS, PAIRS, settings(str(tmp_path), 0, {}), lora=LORA)
    assert [each.advantage for each in fresh.likelihoods(PAIRS)] == pytest.approx([0.0] * 3, abs=1e-5)


def test_training_prefers_what_was_chosen_and_leaves_the_base(tmp_path: Path) -> None:
    model = network()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    args = settings(str(tmp_path), 0, {"learning_rate": 1e-2, "max_steps": 10, "gradient_checkpointing": False})
    made = SegmentTrainer(model, WORDS, PAIRS, args, lora=LORA)
    made.train()
    assert min(each.advantage for each in made.likelihoods(PAIRS)) > 1.0
    after = {name.replace(".base_layer", ""): weight for name, weight in model.named_parameters()}
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_an_adapter_is_trained_on_and_is_its_own_reference(tmp_path: Path) -> None:
    torch.manual_seed(2)
    started = get_peft_model(network(), LORA)
    for name, weight in started.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    made = trainer(tmp_path, model=started, learning_rate=1e-2, max_steps=4)
    first = made.likelihoods(PAIRS)
    assert [each.advantage for each in first] == pytest.approx([0.0] * 3, abs=1e-5)
    with started.disable_adapter():
        assert made.likelihoods(PAIRS)[0].chosen != pytest.approx(first[0].chosen, abs=1e-3)
    made.train()
    made.export(tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir() if path.is_dir()) == []
    again = PeftModel.from_pretrained(network(), tmp_path / "adapter")
    each, found = PAIRS[0], made.likelihoods(PAIRS)[0]
    assert found.reference_chosen == pytest.approx(first[0].chosen, abs=1e-4)
    with torch.no_grad():
        same = log_probability(again.eval(), each.prompt_ids, each.chosen_ids, each.chosen_mask)
    assert found.chosen == pytest.approx(same.item(), abs=1e-4) and found.chosen != first[0].chosen


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bet": 1}, "did you mean 'beta'"),
        ({"max_length": 5}, "would have no effect: .*never cut"),
        ({"precompute_ref_log_probs": True}, "would have no effect"),
        ({"beta": "high"}, "trainer.beta: .*'high'"),
        ({"eval_strategy": "sometimes"}, "sometimes is not a valid"),
    ],
)
def test_fields_that_would_do_nothing_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(str(tmp_path), 0, fields)


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    args = settings(str(tmp_path), 0, {})
    with pytest.raises(InputError, match="no pairs"):
        SegmentTrainer(network(), WORDS, [], args, lora=LORA)
    head = LoraConfig(r=4, target_modules=["lm_head"], task_type="CAUSAL_LM")
    with pytest.raises(InputError, match="lm_head"):
        SegmentTrainer(network(), WORDS, PAIRS, args, lora=head)
