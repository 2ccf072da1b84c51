"""How long a new adapter takes to reach the engine, and what the engine then samples: three ways, two sizes.

    python scripts/bench/handover.py [--json FILE]

`adapter` and `merged` are the engine's two hand-overs, from the trainer's `save_pretrained` until the engine answers
with the new version. `trl` is TRL's own for LoRA: merge into the model, send every tensor to a colocated vLLM,
un-merge; on CPU it needs vLLM to keep the weights it packs, and to pack them again after each hand-over.
Models are random, of the Qwen3 architecture, and made on the spot. A step is one hand-over and STEP sampled tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
STEP = 16_384
"""Sampled tokens between two hand-overs: 64 episodes of 4 turns of 64 tokens."""
REPEATS = 3
PROMPT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model, and how much of it is sampled to measure its speed."""

    shape: dict[str, int]
    dtype: str
    turns: int
    tokens: int


SIZES = {
    "4m": Size(
        shape={
            "hidden_size": 256,
            "num_hidden_layers": 5,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 32,
            "intermediate_size": 768,
            "vocab_size": 1536,
        },
        dtype="float32",
        turns=64,
        tokens=64,
    ),
    "500m": Size(
        shape={
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "vocab_size": 100_352,
        },
        dtype="bfloat16",
        turns=8,
        tokens=16,
    ),
}


def make(size: Size, path: Path) -> None:
    """A random model and a tokenizer, which TRL's engine wants to see."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rl.tiny import tokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model("qwen3", **size.shape, tie_word_embeddings=True, max_position_embeddings=2048)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, size.dtype)).save_pretrained(path)
    tokenizer().save_pretrained(path)


def trainer_model(model: Path, size: Size) -> Any:
    """The model in training: a PEFT adapter on the base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, size.dtype))
    return get_peft_model(base, LoraConfig(**LORA))


def redraw(policy: Any) -> None:
    """Stands for an update: another adapter."""
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.01)


def prompts(size: Size) -> list[list[int]]:
    """Never seen before, so that no cache answers."""
    return [[random.randrange(1000) for _ in range(PROMPT)] for _ in range(size.turns)]


async def ours(handover: Any, model: Path, size: Size) -> dict[str, Any]:
    """Seconds of a hand-over, sampled tokens a second after it, and what `auto` would have been."""
    from rl.engines import Sampling
    from rl.engines.vllm import VllmEngine

    policy = trainer_model(model, size)
    engine = await VllmEngine.open(model=model, lora=LORA, handover=handover, dtype=size.dtype, max_model_len=1024)
    sampling = Sampling(max_tokens=size.tokens)
    seconds, speeds = [], []
    for version in range(1, REPEATS + 1):
        redraw(policy)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir="/dev/shm") as adapter:
            policy.save_pretrained(adapter)
            await engine.load(Path(adapter), version)
            seconds.append(time.perf_counter() - start)
        batch = prompts(size)
        start = time.perf_counter()
        turns = await asyncio.gather(*(engine.generate(prompt, sampling, stop_ids=()) for prompt in batch))
        speeds.append(sum(len(turn.token_ids) for turn in turns) / (time.perf_counter() - start))
    await engine.close()
    return {"s": statistics.median(seconds), "tok_s": max(speeds), "handover": engine.handover}


def trls(model: Path, size: Size) -> dict[str, Any]:
    """Seconds of TRL's hand-over, with what it needs to work on CPU."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    import functools

    import vllm.model_executor.layers.utils as layers
    from accelerate import Accelerator
    from transformers import AutoTokenizer
    from trl.generation import vllm_generation

    pack: Callable[..., None] = layers.dispatch_cpu_unquantized_gemm
    layers.dispatch_cpu_unquantized_gemm = lambda layer, remove_weight: pack(layer, False)
    vllm_generation.LLM = functools.partial(vllm_generation.LLM, dtype=size.dtype, enforce_eager=True)
    policy = trainer_model(model, size)
    trl = vllm_generation.VLLMGeneration(
        policy, Accelerator(cpu=True), AutoTokenizer.from_pretrained(model), max_model_length=1024, max_num_seqs=64
    )
    served = trl.llm.llm_engine.model_executor.driver_worker.model_runner.model
    packed = [layer for layer in served.modules() if hasattr(layer, "cpu_linear")]
    seconds = []
    for _ in range(REPEATS):
        redraw(policy)
        start = time.perf_counter()
        trl.sync_weights()
        for layer in packed:
            pack(layer, False)
        seconds.append(time.perf_counter() - start)
    return {"s": statistics.median(seconds)}


def measure(way: str, size: str, model: Path) -> None:
    """One measurement in this process; the result is the last line printed."""
    random.seed(0)
    result = trls(model, SIZES[size]) if way == "trl" else asyncio.run(ours(way, model, SIZES[size]))
    print(json.dumps(result), flush=True)
    # TRL's in-process engine has no clean end, and ours has already had its own.
    os._exit(0)


def run(way: str, size: str, model: Path) -> dict[str, Any]:
    """`measure` in a process of its own: engines of two kinds do not share one."""
    command = [sys.executable, __file__, "--measure", way, size, str(model)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(size: str) -> dict[str, Any]:
    """All three ways at one size."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        make(SIZES[size], model)
        adapter, merged, trl = (run(way, size, model) for way in ("adapter", "merged", "trl"))
    return {
        "adapter_s": adapter["s"],
        "merged_s": merged["s"],
        "trl_s": trl["s"],
        "adapter_tok_s": adapter["tok_s"],
        "merged_tok_s": merged["tok_s"],
        "auto": auto(),
    }


def auto() -> str:
    """What `handover: auto` is on this machine."""
    from vllm.platforms import current_platform

    return "merged" if current_platform.is_cpu() else "adapter"


def table(results: dict[str, dict[str, Any]]) -> str:
    """For people."""
    lines = [f"{'size':6} {'way':8} {'hand-over s':>12} {'vs TRL':>8} {'tok/s':>8} {'step s':>8}"]
    for size, result in results.items():
        for way in ("adapter", "merged"):
            speed = result[f"{way}_tok_s"]
            step = result[f"{way}_s"] + STEP / speed
            mark = "  <- auto" if way == result["auto"] else ""
            ratio = result["trl_s"] / result[f"{way}_s"]
            lines.append(f"{size:6} {way:8} {result[f'{way}_s']:12.4f} {ratio:7.1f}x {speed:8.0f} {step:8.1f}{mark}")
        lines.append(f"{size:6} {'trl':8} {result['trl_s']:12.4f}")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--size", choices=SIZES, action="append", help="only this size")
    parser.add_argument("--measure", nargs=3, metavar=("WAY", "SIZE", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, size, model = arguments.measure
        measure(way, size, Path(model))
    results = {size: compare(size) for size in arguments.size or SIZES}
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
