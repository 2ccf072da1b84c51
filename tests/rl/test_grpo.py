"""The GRPO step against a computation that shares no code with it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.stack
torch = pytest.importorskip("torch")

from peft import LoraConfig  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from batches import made_up, settings  # noqa: E402
from envs.errors import InputError  # noqa: E402
from rl import tiny  # noqa: E402
from rl.trainers.grpo import EpisodeGRPOTrainer, by_prompt, trimmed, without_gaps  # noqa: E402
from rl.trainers.settings import lora_config  # noqa: E402

CAP = 2.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.random_model(tmp_path_factory.mktemp("grpo") / "base", seed=1))


class Probe(EpisodeGRPOTrainer):
    """Keeps each micro-batch's loss and gradient, and those of the independent computation."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        base = self.accelerator.unwrap_model(model)
        parameters = [p for p in base.parameters() if p.requires_grad]
        expected = by_hand(base, inputs, self.beta, self.args.gradient_accumulation_steps)
        pairs = [
            torch.cat([g.flatten() for g in torch.autograd.grad(x, parameters, retain_graph=True)])
            for x in (loss, expected)
        ]
        self.seen.append((loss.item(), expected.item(), *pairs))
        return loss


def by_hand(model: Any, batch: dict[str, Any], beta: float, accumulation: int) -> Any:
    """DAPO's token mean over the window; clipped ratio; k3 KL; weights min(pi / sampler, cap) held constant."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]

    def logprobs() -> Any:
        logits = model(input_ids=ids, attention_mask=attention).logits[:, :-1].float()
        return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0][:, -width:]

    now = logprobs()
    with torch.no_grad(), model.disable_adapter():
        reference = logprobs()
    mask = (batch["completion_mask"] * batch["tool_mask"]).float()
    weight = (now.detach() - batch["sampling_per_token_logps"]).exp().clamp(max=CAP)
    ratio = (now - now.detach()).exp()
    advantage = batch["advantages"] * weight
    policy = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    kl = ((reference - now).exp() - (reference - now) - 1) * ratio
    return ((policy + beta * kl) * mask).sum() / batch["num_items_in_batch"]


PROMPTS = {"own": [()] * 8, "shared": [(11, 12, 13, 14)] * 3 + [(21, 22)] * 4 + [()]}


def run(base: str, tmp_path: Path, seed: int, prompts: str = "own", **trainer: Any) -> list[Any]:
    rng = random.Random(seed)
    probe = Probe(
        model=base,
        args=settings(tmp_path, **trainer),
        tokenizer=AutoTokenizer.from_pretrained(base),
        lora=lora_config({"r": 4}),
        rollout=lambda step, rows: [made_up(rng, i == 2, PROMPTS[prompts][i]) for i in range(rows)],
        tasks=16,
    )
    probe.seen = []
    for name, parameter in probe.model.named_parameters():
        if "lora_B" in name:  # zero at the start, which would make the policy its own reference
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(seed))
    probe.train()
    return list(probe.seen)


@pytest.mark.parametrize("beta", [0.0, 0.05])
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("prompts", PROMPTS)
def test_loss_and_gradient_equal_a_plain_computation(
    base: str, tmp_path: Path, beta: float, recomputed: bool, prompts: str
) -> None:
    seen = run(base, tmp_path, seed=3, prompts=prompts, beta=beta, gradient_checkpointing=recomputed)
    assert len(seen) == 4
    for loss, expected, gradient, expected_gradient in seen:
        assert loss == pytest.approx(expected, abs=1e-5)
        assert (gradient - expected_gradient).norm() < 1e-4 * expected_gradient.norm()
        assert expected_gradient.norm() > 1e-3


def test_rows_of_a_prompt_are_brought_together_and_none_is_lost() -> None:
    def micro_batch(prompts: list[int], first: int) -> dict[str, Any]:
        rows = torch.arange(first, first + len(prompts))
        return {
            "prompt_ids": torch.tensor([[0, p] for p in prompts]),
            "advantages": rows[:, None],
            "count": torch.tensor(4),
        }

    together = by_prompt([micro_batch([7, 5], 0), micro_batch([7, 5], 2)])
    assert [batch["prompt_ids"].tolist() for batch in together] == [[[0, 5], [0, 5]], [[0, 7], [0, 7]]]
    assert [batch["advantages"].flatten().tolist() for batch in together] == [[1, 3], [0, 2]]
    assert [batch["count"].item() for batch in together] == [4, 4]


def test_padding_that_every_row_has_is_cut_and_nothing_else() -> None:
    batch = {
        "prompt_ids": torch.tensor([[0, 0, 5], [0, 6, 7]]),
        "prompt_mask": torch.tensor([[0, 0, 1], [0, 1, 1]]),
        "completion_ids": torch.tensor([[8, 9, 0, 0], [8, 0, 0, 0]]),
        "completion_mask": torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]),
        "advantages": torch.ones(2, 4),
        "num_items_in_batch": torch.tensor(3),
    }
    cut = trimmed(batch)
    assert cut["prompt_ids"].tolist() == [[0, 5], [6, 7]]
    assert cut["completion_ids"].tolist() == [[8, 9], [8, 0]]
    assert cut["advantages"].shape == (2, 2)
    assert cut["num_items_in_batch"] == 3


def test_rows_are_moved_to_the_left_and_what_is_behind_them_is_padding() -> None:
    columns, padding = without_gaps(torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 1, 1], [1, 1, 1, 1, 0]]))
    assert columns.tolist() == [[1, 2, 3, 4], [3, 4, 4, 4], [0, 1, 2, 3]]
    assert padding.tolist() == [[False, False, False, True], [False, False, True, True], [False] * 4]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"learning_rat": 1}, "unknown key 'learning_rat'; did you mean 'learning_rate'"),
        ({"use_vllm": True}, "trainer.use_vllm would have no effect"),
        ({"vllm_gpu_memory_utilization": 0.5}, "go under engine"),
        ({"temperature": 0.7}, "set it as 'rollout.temperature'"),
        ({"num_generations": 3}, "num_generations"),
        ({"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2, "num_generations": 8}, "num_generations"),
        ({"vllm_importance_sampling_mode": "sequence_mask"}, "token_truncate"),
        ({"steps_per_generation": 4, "save_strategy": "steps", "save_steps": 3}, "save_steps"),
        ({"steps_per_generation": 3, "save_strategy": "steps", "save_steps": 2}, "multiple of the 3 updates"),
    ],
)
def test_settings_that_can_not_be_are_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        settings(tmp_path, **fields)


def test_lora_settings_are_peft_s_own_and_a_target_must_match(base: str, tmp_path: Path) -> None:
    assert isinstance(lora_config({"r": 2, "target_modules": ["q_proj"]}), LoraConfig)
    with pytest.raises(InputError, match="did you mean 'lora_alpha'"):
        lora_config({"lora_alfa": 2})
    with pytest.raises(InputError, match=r"lora.target_modules.*nonsense"):
        EpisodeGRPOTrainer(
            model=base,
            args=settings(tmp_path),
            tokenizer=AutoTokenizer.from_pretrained(base),
            lora=lora_config({"target_modules": ["nonsense"]}),
            rollout=lambda step, rows: [],
            tasks=1,
        )
