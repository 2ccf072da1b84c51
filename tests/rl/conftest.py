"""Engines and models that tests share: vLLM takes twenty seconds to start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Runs a coroutine on an event loop in a background thread, as a trainer does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A directory with a small random model of an architecture ("qwen3", "qwen2", "llama")."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            _write_model(kind, made[kind])
        return made[kind]

    return make


def _write_model(kind: str, path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=256,
        vocab_size=512,
        max_position_embeddings=2048,
        initializer_range=0.1,
        tie_word_embeddings=kind == "qwen3",
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(path)


@pytest.fixture(scope="module")
def engines(made_model: Callable[[str], Path], run: Run) -> Iterator[Callable[[str], Any]]:
    """The file's vLLM engine of a hand-over, started when first asked for. It holds gigabytes."""
    from rl.engines.vllm import VllmEngine

    opened: dict[str, Any] = {}

    def get(handover: Any) -> Any:
        if handover not in opened:
            lora = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "rank_pattern": {"q_proj": 12}}
            opened[handover] = run(
                VllmEngine.open(
                    model=made_model("qwen3"), lora=lora, handover=handover, dtype="float32", max_model_len=1024
                )
            )
        return opened[handover]

    yield get
    for engine in opened.values():
        run(engine.close())
