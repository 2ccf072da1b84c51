"""The PPO step against a computation that shares no code with it: no adapters, no hooks, no padding removed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.stack
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from torch.func import functional_call  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from batches import made_up, settings  # noqa: E402
from envs.errors import InputError  # noqa: E402
from rl import tiny  # noqa: E402
from rl.config import PPOConfig  # noqa: E402
from rl.samples import Sample  # noqa: E402
from rl.trainers.critic import Critic  # noqa: E402
from rl.trainers.grpo import EpisodeGRPOTrainer  # noqa: E402
from rl.trainers.ppo import EpisodePPOTrainer, value_losses  # noqa: E402
from rl.trainers.settings import lora_config  # noqa: E402

CAP, CLIP = 2.0, 0.2
SCALE = 32 / 4
"""lora_alpha over r."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.random_model(tmp_path_factory.mktemp("ppo") / "base", seed=1))


def judged(rng: random.Random, *, unscored: bool = False, by_turn: bool = False) -> Sample:
    """A made-up episode with what a critic said of it and should have said."""
    sample = made_up(rng, unscored)
    turns = sample.row.turns
    asked = [k >= 0 and not unscored and (not by_turn or t == 0 or turns[t - 1] != k) for t, k in enumerate(turns)]
    return replace(
        sample,
        values=tuple(rng.uniform(-1, 1) for _ in turns),
        returns=tuple(rng.uniform(-1, 1) if yes else None for yes in asked),
    )


class Probe(EpisodePPOTrainer):
    """Keeps each micro-batch's loss and gradients by name."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        self.seen.append((loss.item(), gradients(loss, trained(self)), {k: v.clone() for k, v in inputs.items()}))
        return loss


def trained(trainer: Any) -> dict[str, Any]:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def gradients(loss: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {k: torch.zeros_like(p) if g is None else g for (k, p), g in zip(parameters.items(), found, strict=True)}


def build(
    base: str, tmp_path: Path, seed: int, *, kind: Any = Probe, samples: Any = judged, ppo: Any = None, **trainer: Any
) -> Any:
    """A trainer whose rollouts are made up, with adapters and a value head that are not zero."""
    torch.manual_seed(seed)
    given = {} if kind is EpisodeGRPOTrainer else {"ppo": ppo or PPOConfig(cliprange_value=CLIP)}
    made = kind(
        model=base,
        args=settings(tmp_path, **trainer),
        tokenizer=AutoTokenizer.from_pretrained(base),
        lora=lora_config({"r": 4}),
        rollout=lambda step, rows: [samples(r, unscored=i == 2) for i, r in enumerate(rngs(seed + step, rows))],
        tasks=16,
        **given,
    )
    made.seen = []
    for name, parameter in trained(made).items():
        if "lora_B" in name or "value_head" in name:
            generator = torch.Generator().manual_seed(seed + len(name))
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    torch.manual_seed(seed)  # TRL shuffles by it, and a critic was drawn from it
    return made


def rngs(seed: int, rows: int) -> Iterator[random.Random]:
    return (random.Random(1000 * seed + i) for i in range(rows))


@lru_cache
def plain_model(base: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(base)


def hidden(base: str, parameters: dict[str, Any], adapter: str, ids: Any, attention: Any) -> Any:
    """Last hidden states (B, L, H) of the base with an adapter written out as W + scale B A."""
    plain = plain_model(base)
    weights = dict(plain.model.named_parameters())
    for name in list(weights):
        stem = f"base_model.model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.{adapter}.weight" in parameters:
            a, b = (parameters[f"{stem}.lora_{x}.{adapter}.weight"] for x in "AB")
            weights[name] = weights[name].detach() + SCALE * b @ a
    said = functional_call(plain.model, weights, kwargs={"input_ids": ids, "attention_mask": attention})
    return said.last_hidden_state, plain.get_output_embeddings().weight.detach()


def by_hand(base: str, parameters: dict[str, Any], batch: dict[str, Any], beta: float) -> Any:
    """Token mean of the clipped ratio and k3 KL; mean over states of the clipped squared error of the values."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]

    def logprobs(adapter: str) -> Any:
        states, head = hidden(base, parameters, adapter, ids, attention)
        logits = states[:, :-1] @ head.T
        return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0][:, -width:]

    now, reference = logprobs("default"), logprobs("nobody").detach()
    mask = (batch["completion_mask"] * batch["tool_mask"]).float()
    weight = (now.detach() - batch["sampling_per_token_logps"]).exp().clamp(max=CAP)
    ratio = (now - now.detach()).exp()
    advantage = batch["advantages"] * weight
    policy = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    kl = ((reference - now).exp() - (reference - now) - 1) * ratio
    loss = ((policy + beta * kl) * mask).sum() / batch["num_items_in_batch"]

    states, _ = hidden(base, parameters, "critic", ids, attention)
    head = "base_model.model.value_head"
    values = (states[:, -width - 1 : -1] @ parameters[f"{head}.weight"].T + parameters[f"{head}.bias"])[..., 0]
    asked = ~batch["returns"].isnan()
    v, old, r = values[asked], batch["values"][asked], batch["returns"][asked]
    clipped = torch.min(torch.max(v, old - CLIP), old + CLIP)
    return loss + torch.maximum((v - r) ** 2, (clipped - r) ** 2).sum() / 2 / batch["num_returns_in_batch"]


def far(one: dict[str, Any], other: dict[str, Any], part: str) -> float:
    """The distance of two gradients over the length of the second, of the parameters whose name holds `part`."""
    assert one.keys() == other.keys()
    left, right = (torch.cat([g.flatten() for name, g in x.items() if part in name]) for x in (one, other))
    assert right.norm() > 1e-4
    return float((left - right).norm() / right.norm())


@pytest.mark.parametrize(("beta", "recomputed"), [(0.0, False), (0.05, True)])
def test_loss_and_gradient_equal_a_plain_computation(base: str, tmp_path: Path, beta: float, recomputed: bool) -> None:
    trainer = build(base, tmp_path, 3, beta=beta, gradient_checkpointing=recomputed)
    expected = []

    class Checked(Probe):
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            own = trained(self)
            plain = by_hand(base, own, inputs, self.beta)
            expected.append((plain.item(), gradients(plain, own)))
            return super()._compute_loss(model, inputs)

    trainer.__class__ = Checked
    trainer.train()
    assert len(trainer.seen) == 4
    for (loss, gradient, _), (plain, plain_gradient) in zip(trainer.seen, expected, strict=True):
        assert loss == pytest.approx(plain, abs=1e-5)
        for part in ("default", "critic", "value_head"):
            assert far(gradient, plain_gradient, part) < 1e-4


def test_recomputed_blocks_remember_their_adapter(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without checkpointing the gradients are the same; without the memory the critic's would be wrong."""

    def gradient(name: str, recomputed: bool) -> dict[str, Any]:
        trainer = build(base, tmp_path / name, 5, max_steps=1, gradient_checkpointing=recomputed)
        trainer.train()
        found: dict[str, Any] = trainer.seen[0][1]
        return found

    kept, recomputed = gradient("kept", False), gradient("recomputed", True)
    assert all(far(recomputed, kept, part) < 1e-6 for part in ("default", "critic", "value_head"))
    monkeypatch.setattr(Critic, "_contexts", lambda self: (nullcontext(), nullcontext()))
    assert far(gradient("forgotten", True), kept, "lora_A.critic") > 0.1


def test_neither_s_gradient_reaches_the_other_and_the_base_stays(base: str, tmp_path: Path) -> None:
    trainer = build(base, tmp_path / "ppo", 7, num_iterations=2)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    alone = build(base, tmp_path / "grpo", 7, kind=EpisodeGRPOTrainer, num_iterations=2)
    alone.train()
    after = dict(trainer.model.named_parameters())
    moved = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert moved == {name for name in after if "lora" in name or "value_head" in name}
    actor = dict(alone.model.named_parameters())
    assert all(torch.equal(after[name], actor[name]) for name in actor), (
        "a critic beside it changed what the actor learns"
    )

    def content(rng: random.Random, unscored: bool) -> Sample:
        sample = judged(rng, unscored=unscored)
        return replace(sample, returns=tuple(None for _ in sample.returns))

    idle = build(base, tmp_path / "idle", 7, samples=content, num_iterations=2)
    start = {name: p.detach().clone() for name, p in trained(idle).items()}
    idle.train()
    moved = {name for name, p in trained(idle).items() if not torch.equal(p, start[name])}
    assert moved == {name for name in start if "default" in name}, "the actor's loss changed the critic"


def test_values_are_those_before_each_token_whatever_the_rows_beside_it(base: str, tmp_path: Path) -> None:
    trainer = build(base, tmp_path, 11)
    rows = [judged(rng).row for rng in rngs(11, 7)]
    found = trainer.values(rows)
    parameters = trained(trainer)
    head = "base_model.model.value_head"
    for row, own in zip(rows, found, strict=True):
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        states, _ = hidden(base, parameters, "critic", ids, torch.ones_like(ids))
        expected = (states @ parameters[f"{head}.weight"].T + parameters[f"{head}.bias"])[0, :, 0]
        assert own == pytest.approx(expected[len(row.prompt_ids) - 1 : -1].tolist(), abs=1e-5)
    assert trainer.model.training
    fresh = EpisodePPOTrainer(
        ppo=PPOConfig(),
        model=base,
        args=settings(tmp_path / "fresh"),
        tokenizer=AutoTokenizer.from_pretrained(base),
        lora=lora_config({"r": 4}),
        rollout=lambda step, count: [],
        tasks=1,
    )
    assert all(set(own) == {0.0} for own in fresh.values(rows)), "a critic that learned nothing expects nothing"


def test_the_value_loss_is_that_of_the_worse_of_two_and_nothing_where_it_is_not_asked() -> None:
    values = torch.tensor([[0.5, 0.5, 7.0]], requires_grad=True)
    old, returns = torch.tensor([[0.2, 0.2, 0.0]]), torch.tensor([[0.3, 1.0, torch.nan]])
    losses, clipped = value_losses(values, old, returns, 0.2)
    assert losses[0].tolist() == pytest.approx([0.02, 0.18, 0.0])
    assert clipped.tolist() == [[False, True, False]]
    losses.sum().backward()
    assert values.grad[0].tolist() == pytest.approx([0.2, 0.0, 0.0])
    losses, clipped = value_losses(values, old, returns, None)
    assert losses[0].tolist() == pytest.approx([0.02, 0.125, 0.0])
    assert not clipped.any()


def test_metrics_say_what_the_critic_knew_and_an_unscored_episode_is_not_in_them(base: str, tmp_path: Path) -> None:
    trainer = build(
        base, tmp_path, 13, max_steps=1, samples=lambda rng, unscored: judged(rng, unscored=unscored, by_turn=True)
    )
    trainer.train()
    line = next(entry for entry in trainer.state.log_history if "critic/loss" in entry)
    samples = [judged(rng, unscored=i == 2, by_turn=True) for i, rng in enumerate(rngs(13, 8))]
    pairs = [(v, r) for s in samples for v, r in zip(s.values, s.returns, strict=True) if r is not None]
    assert len(pairs) == 7 * 3
    v, r = (torch.tensor(x, dtype=torch.float64) for x in zip(*pairs, strict=True))
    assert line["critic/returns"] == pytest.approx(r.mean().item())
    assert line["critic/values"] == pytest.approx(v.mean().item())
    explained = 1 - (r - v).var(correction=0) / r.var(correction=0)
    assert line["critic/explained_variance"] == pytest.approx(explained.item())
    assert 0 <= line["critic/clip_ratio"] <= 1 and line["critic/loss"] > 0 and line["critic/grad_norm"] > 0


def test_the_critic_learns_at_a_rate_of_its_own_and_its_norm_is_clipped_apart(base: str, tmp_path: Path) -> None:
    trainer = build(
        base,
        tmp_path,
        17,
        max_steps=1,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        max_grad_norm=1e-3,
        ppo=PPOConfig(critic_learning_rate=5e-3),
    )
    kept: dict[str, float] = {}
    step = trainer._clip_grad_norm

    def clip(model: Any) -> Any:
        norm = step(model)
        for part, mine in (("actor", False), ("critic", True)):
            grads = [p.grad for n, p in trained(trainer).items() if (".critic." in n or "value_head" in n) == mine]
            kept[part] = torch.cat([g.flatten() for g in grads]).norm().item()
        return norm

    trainer._clip_grad_norm = clip
    before = {name: p.detach().clone() for name, p in trained(trainer).items()}
    trainer.train()
    assert kept == pytest.approx({"actor": 1e-3, "critic": 1e-3}, rel=1e-3)
    moved = {name: (p - before[name]).abs().max().item() for name, p in trained(trainer).items()}
    # Adam's first step is about as long as its rate.
    assert max(v for name, v in moved.items() if ".default." in name) == pytest.approx(1e-3, rel=0.05)
    assert max(v for name, v in moved.items() if ".critic." in name) == pytest.approx(5e-3, rel=0.05)


def test_a_run_resumed_from_a_checkpoint_is_the_run_that_was_not_stopped(base: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "beta": 0.05, "num_iterations": 2}
    how |= {"ppo": PPOConfig(critic_learning_rate=5e-3), "gradient_checkpointing": True}
    whole = build(base, tmp_path / "whole", 19, max_steps=6, **how)
    whole.train()
    resumed = build(base, tmp_path / "resumed", 19, max_steps=6, **how)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert resumed.state.global_step == 6
    theirs = trained(resumed)
    assert {name.rpartition(".lora")[0] != name or "value_head" in name for name in theirs} == {True}
    for name, parameter in trained(whole).items():
        assert torch.equal(parameter, theirs[name]), name
    states = [t.optimizer.state_dict()["state"] for t in (whole, resumed)]
    assert states[0].keys() == states[1].keys() and len(states[0]) == len(theirs)
    assert all(torch.equal(states[0][k]["exp_avg"], states[1][k]["exp_avg"]) for k in states[0])


def test_the_engine_is_handed_the_actor_alone(base: str, tmp_path: Path) -> None:
    trainer = build(base, tmp_path, 23)
    trainer.export(tmp_path / "export")
    assert {path.name for path in (tmp_path / "export").iterdir()} >= {"adapter_model.safetensors"}
    assert not [path for path in (tmp_path / "export").rglob("*") if path.is_dir()]
    written = load_file(tmp_path / "export" / "adapter_model.safetensors")
    own = {name: p for name, p in trained(trainer).items() if ".default." in name}
    assert len(written) == len(own)
    for name, parameter in own.items():
        assert torch.equal(written[name.replace(".default.", ".")], parameter)


def test_checkpointing_that_would_forget_the_adapter_is_refused(base: str, tmp_path: Path) -> None:
    trainer = build(
        base, tmp_path, 29, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True}
    )
    with pytest.raises(InputError, match="algorithm ppo needs use_reentrant: false"):
        trainer.train()
