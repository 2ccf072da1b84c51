"""The transformers engine against PEFT."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envs.errors import InputError
from rl.engines import EngineError, Sampled, Sampling

pytestmark = pytest.mark.stack

PROMPT = [(7 * i) % 500 for i in range(100)]
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def engine(made_model: Any, run: Any) -> Iterator[Any]:
    from rl.engines.transformers import TransformersEngine

    opened = run(TransformersEngine.open(model=made_model("qwen3"), lora=LORA, dtype="float32", max_model_len=1024))
    yield opened
    run(opened.close())
    run(opened.close())


def test_logprobs_are_pefts_across_three_versions(engine: Any, run: Any, made_model: Any, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(made_model("qwen3"), dtype=torch.float32)
    policy = get_peft_model(base, LoraConfig(**LORA, task_type="CAUSAL_LM"))

    async def turns() -> list[Sampled]:
        sampling = Sampling(max_tokens=12, temperature=0.7)
        return await asyncio.gather(*(engine.generate(PROMPT[i:], sampling, stop_ids=[]) for i in range(4)))

    def apart() -> float:
        differences = []
        for i, turn in enumerate(run(turns())):
            with torch.no_grad():
                logits = policy(torch.tensor([PROMPT[i:] + list(turn.token_ids)])).logits[0, len(PROMPT) - i - 1 : -1]
            expected = (logits / 0.7).log_softmax(-1)[range(12), list(turn.token_ids)].tolist()
            differences += [abs(a - b) for a, b in zip(turn.logprobs, expected, strict=True)]
        return max(differences)

    for version in (1, 2, 3):
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        policy.save_pretrained(tmp_path / str(version))
        assert apart() > 1e-2, "the test can't tell this version from the last"
        run(engine.load(tmp_path / str(version), version))
        assert apart() < 1e-4

    async def both() -> tuple[Sampled, tuple[float, ...]]:
        """While a turn is sampled."""
        return await asyncio.gather(
            engine.generate(PROMPT, Sampling(max_tokens=12), stop_ids=[]), engine.logprobs(PROMPT, [3, 499, 7, 7])
        )

    sampled, found = run(both())
    assert len(sampled.token_ids) == 12
    with torch.no_grad():
        logits = policy(torch.tensor([[*PROMPT, 3, 499, 7, 7]])).logits[0, len(PROMPT) - 1 : -1]
    expected = logits.log_softmax(-1)[range(4), [3, 499, 7, 7]].tolist()
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-4
    with pytest.raises(EngineError, match="do not fit"):
        run(engine.logprobs([1] * 1020, [1] * 4))


def test_a_turn_ends_on_a_stop_id_which_is_part_of_it(engine: Any, run: Any) -> None:
    greedy = Sampling(max_tokens=16, temperature=0.0)
    free = run(engine.generate(PROMPT, greedy, stop_ids=[]))
    assert (free.finish, len(free.token_ids)) == ("length", 16)
    held = run(engine.generate(PROMPT, greedy, stop_ids=[free.token_ids[9]]))
    assert held.finish == "stop"
    assert held.token_ids == free.token_ids[: free.token_ids.index(free.token_ids[9]) + 1]


def test_a_prompt_longer_than_the_context_is_refused(engine: Any, run: Any) -> None:
    with pytest.raises(EngineError, match="does not fit"):
        run(engine.generate([1] * 1024, Sampling(), stop_ids=[]))


def test_what_it_cannot_do_is_bad_input(run: Any, made_model: Any) -> None:
    from rl.engines.transformers import TransformersEngine

    for arguments in ({"deterministic": True}, {"engine_args": {"block_shape": 3}}, {"engine_args": {"seed": 3}}):
        with pytest.raises(InputError):
            run(TransformersEngine.open(model=made_model("qwen3"), **arguments))
