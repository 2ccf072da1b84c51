"""The vLLM engine against PEFT, on small models of real architectures."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envs.errors import InputError
from rl.engines import EngineError, Sampling

pytestmark = pytest.mark.stack

PROMPT = [(7 * i) % 500 for i in range(300)]
"""Two blocks of the prefix cache (128 tokens each on CPU) and more, so that a stale cache would answer for it."""

versions = itertools.count(1)
"""Of the engines here: one grows past the other's."""

ADAPTERS: dict[str, dict[str, Any]] = {
    "all linear": {"target_modules": "all-linear"},
    "two of the fused": {"target_modules": ["q_proj", "up_proj"]},
    "rank-stabilised": {"target_modules": "all-linear", "use_rslora": True},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {"q_proj": 12, "layers.1.mlp.down_proj": 2},
        "alpha_pattern": {"k_proj": 40, "gate_proj": 3},
    },
}


class Policy:
    """A PEFT model in float32 whose adapter can be redrawn, saved and asked for logprobs."""

    def __init__(self, model: Path, **lora: Any) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", **lora))

    def redraw(self, seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)

    def logprobs(self, prompt: list[int], sampled: tuple[int, ...], temperature: float = 1.0) -> list[float]:
        import torch

        with torch.no_grad():
            logits = self.model(torch.tensor([[*prompt, *sampled]])).logits[0, len(prompt) - 1 : -1] / temperature
        return logits.log_softmax(-1)[range(len(sampled)), list(sampled)].tolist()


def apart(policy: Policy, engine: Any, run: Callable[..., Any], *, temperature: float = 1.0) -> float:
    """The largest difference between the engine's logprobs and PEFT's, over one turn."""
    sampling = Sampling(max_tokens=32, temperature=temperature)
    sampled = run(engine.generate(PROMPT, sampling, stop_ids=[], seed=1))
    assert sampled.version == engine.version
    expected = policy.logprobs(PROMPT, sampled.token_ids, temperature)
    return max(abs(a - b) for a, b in zip(sampled.logprobs, expected, strict=True))


@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS.keys())
@pytest.mark.parametrize("handover", ["merged", "adapter"])
def test_logprobs_are_pefts_across_three_versions(
    handover: str, lora: dict[str, Any], engines: Any, made_model: Any, run: Any, tmp_path: Path
) -> None:
    engine = engines(handover)
    policy = Policy(made_model("qwen3"), **lora)
    for version in itertools.islice(versions, 3):
        policy.redraw(version)
        policy.model.save_pretrained(tmp_path / str(version))
        before = apart(policy, engine, run)
        run(engine.load(tmp_path / str(version), version))
        assert before > 1e-2, "the test can't tell this version from the last"
        assert apart(policy, engine, run) < 1e-4
    assert apart(policy, engine, run, temperature=0.7) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_merging_fits_other_architectures(kind: str, made_model: Any, run: Any, tmp_path: Path) -> None:
    from rl.engines.vllm import VllmEngine

    lora = {"target_modules": ["q_proj", "o_proj", "gate_proj", "down_proj"]}
    engine = run(
        VllmEngine.open(model=made_model(kind), lora=lora, handover="merged", dtype="float32", max_model_len=512)
    )
    policy = Policy(made_model(kind), **lora)
    for version in (1, 2):
        policy.redraw(version)
        policy.model.save_pretrained(tmp_path / str(version))
        run(engine.load(tmp_path / str(version), version))
        assert apart(policy, engine, run) < 1e-4
    run(engine.close())


@pytest.mark.parametrize("handover", ["merged", "adapter"])
def test_logprobs_of_given_tokens_are_pefts_by_the_version_that_answers(
    handover: str, engines: Any, made_model: Any, run: Any, tmp_path: Path
) -> None:
    engine, policy = engines(handover), Policy(made_model("qwen3"), target_modules="all-linear")
    given = ((PROMPT, (3, 500, 7, 7)), (PROMPT[:5], (0,)), ([9], tuple(PROMPT)))
    for version in itertools.islice(versions, 2):
        policy.redraw(version)
        policy.model.save_pretrained(tmp_path / str(version))
        run(engine.load(tmp_path / str(version), version))
        for prompt, tokens in given * 2:  # a second time, when its prefix cache holds all of it
            found = run(engine.logprobs(prompt, tokens))
            expected = policy.logprobs(prompt, tokens)
            assert len(found) == len(tokens)
            assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-4
    with pytest.raises(EngineError):
        run(engine.logprobs([1] * 1020, [1] * 10))
    assert run(engine.healthy())


def test_a_turn_ends_on_a_stop_id_which_is_part_of_it(engines: Any, run: Any) -> None:
    engine = engines("merged")
    free = run(engine.generate(PROMPT, Sampling(max_tokens=16), stop_ids=[], seed=3))
    assert free.finish == "length"
    assert len(free.token_ids) == len(free.logprobs) == 16
    stop = free.token_ids[9]
    first = free.token_ids.index(stop)
    held = run(engine.generate(PROMPT, Sampling(max_tokens=16), stop_ids=[stop], seed=3))
    assert held.finish == "stop"
    assert held.token_ids == free.token_ids[: first + 1]


def test_many_seeded_turns_at_once_do_not_kill_the_engine(engines: Any, run: Any) -> None:
    import asyncio

    async def many() -> list[Any]:
        turns = [engines("merged").generate(PROMPT * 3, Sampling(max_tokens=2), stop_ids=[], seed=i) for i in range(24)]
        return await asyncio.gather(*turns)

    assert len(run(many())) == 24
    assert run(engines("merged").healthy())


def test_a_prompt_longer_than_the_context_is_refused_and_the_engine_lives(engines: Any, run: Any) -> None:
    engine = engines("merged")
    with pytest.raises(EngineError):
        run(engine.generate([1] * 2000, Sampling(max_tokens=4), stop_ids=[]))
    assert run(engine.healthy())


def test_versions_must_grow(engines: Any, run: Any, tmp_path: Path) -> None:
    engine = engines("merged")
    with pytest.raises(ValueError, match="must be greater"):
        run(engine.load(tmp_path, engine.version))


def test_a_directory_without_an_adapter_is_bad_input(engines: Any, run: Any, tmp_path: Path) -> None:
    engine = engines("merged")
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        run(engine.load(tmp_path, engine.version + 1))


def test_an_adapter_is_not_loaded_under_turns_being_sampled(engines: Any, run: Any, tmp_path: Path) -> None:
    import asyncio

    engine = engines("merged")

    async def both() -> None:
        turn = asyncio.ensure_future(engine.generate(PROMPT, Sampling(max_tokens=200), stop_ids=[]))
        await asyncio.sleep(0.05)
        try:
            await engine.load(tmp_path, engine.version + 1)
        finally:
            await turn

    with pytest.raises(EngineError, match="being sampled"):
        run(both())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_num_seq": 4}, "max_num_seqs"),
        ({"logprobs_mode": "raw_logprobs"}, "ours to set"),
    ],
)
def test_engine_arguments_that_cannot_be_are_bad_input(
    arguments: dict[str, Any], message: str, run: Any, made_model: Any
) -> None:
    from rl.engines.vllm import VllmEngine

    with pytest.raises(InputError, match=message):
        run(VllmEngine.open(model=made_model("qwen3"), engine_args=arguments))
