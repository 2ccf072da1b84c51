"""What `rollout.py` and `step.py` play, and how they drive the two sides: LocalRFT and TRL, each in its own process.

Episodes of TURNS turns of exactly TOKENS sampled tokens; between turns a tool that sleeps, then answers in RESULT
tokens. The model is random, of the Qwen3 architecture, and made on the spot. It never ends a turn and never writes
a call, so on both sides sampling ignores end-of-turn tokens and the parser reads a call into every turn.
Prompts, tool results and latencies come from (round, episode), so that both sides meet the same ones.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from envs.environment import Environment, tool  # noqa: E402
from envs.types import Completion, Episode, Message, Task, ToolCall, ToolResult  # noqa: E402
from rl.chat import Chat  # noqa: E402
from rl.policy import EnginePolicy  # noqa: E402

GROUP = 8
TURNS = 4
TOKENS = 64
PROMPT = 50
RESULT = 50
LATENCY = 0.050
"""Mean seconds of a tool call; lognormal, so that half of all calls are over after a third of it."""
SIGMA = 1.5
CONTEXT = 2048
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def make_model(path: Path) -> None:
    """A random Qwen3 model of 4M parameters in float32, with a byte-level tokenizer and Qwen3's chat template."""
    import torch
    import trl
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    special += ["<tool_response>", "</tool_response>", "<think>", "</think>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    corpus = sorted(Path(asyncio.__file__).parent.glob("*.py"))
    bpe.train_from_iterator((file.read_text() for file in corpus), trainer)
    words = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=CONTEXT
    )
    words.chat_template = Path(trl.__file__).with_name("chat_templates").joinpath("qwen3.jinja").read_text()
    words.save_pretrained(path)
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 768, "vocab_size": len(words)}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    tokens = {"bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config = Qwen3Config(**shape, **heads, **tokens, max_position_embeddings=CONTEXT, tie_word_embeddings=True)
    Qwen3ForCausalLM(config).save_pretrained(path)


class Words:
    """Texts that are exactly so many tokens long."""

    def __init__(self, tokenizer: Any) -> None:
        self._words = sorted(token[1:] for token in tokenizer.get_vocab() if re.fullmatch("Ġ[a-z]{3,}", token))

    def __call__(self, rng: random.Random, tokens: int) -> str:
        return "".join(f" {rng.choice(self._words)}" for _ in range(tokens))


@dataclass(frozen=True, slots=True)
class Script:
    """What one episode meets: its question, and each tool call's seconds and answer."""

    question: str
    calls: tuple[tuple[float, str], ...]


def scripts(words: Words, label: str, groups: int) -> list[Script]:
    """The episodes of one round, groups one after another."""
    mean = math.log(LATENCY) - SIGMA**2 / 2
    made = []
    for group in range(groups):
        question = words(random.Random(f"{label}/{group}"), PROMPT)
        for sample in range(GROUP):
            rng = random.Random(f"{label}/{group}/{sample}")
            calls = tuple((rng.lognormvariate(mean, SIGMA), words(rng, RESULT)) for _ in range(TURNS - 1))
            made.append(Script(question, calls))
    return made


class Library(Environment):
    """Answers slowly. One instance plays one script."""

    def __init__(self, task: Task, script: Script) -> None:
        super().__init__(task)
        self._calls = iter(script.calls)

    @tool
    async def search(self, query: str) -> str:
        """Search the library."""
        seconds, answer = next(self._calls)
        await asyncio.sleep(seconds)
        return answer


def jobs(played: Sequence[Script], label: str) -> list[tuple[Task, str]]:
    """(task, episode id) of every script, for `Player.play_all`."""
    return [
        (Task.ask(script.question, id=f"{label}/{k // GROUP}"), f"{label}/{k // GROUP}#{k % GROUP}")
        for k, script in enumerate(played)
    ]


class CallingChat(Chat):
    """Reads a call into every turn but the last, and takes no token for an end of turn."""

    proven = False

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.stop_ids, self.proven = (), True

    def extend(self, ids: Sequence[int], completion: Completion, results: Sequence[ToolResult]) -> list[int]:
        return [*ids, *self._suffix_ids(results)]

    def parse(self, token_ids: Sequence[int], tools: Sequence[Any] = (), *, turn: int = 0) -> Message:
        said = super().parse(token_ids, tools, turn=turn)
        call = ToolCall(id=f"call_{turn}_0", name="search", arguments='{"query": "x"}')
        return replace(said, tool_calls=(call,) if turn < TURNS - 1 else ()) if self.proven else said


class WholeTurns(EnginePolicy):
    """Plays turns that use up their limit as if they had ended there."""

    async def __call__(self, episode: Episode, tools: Any, /) -> Completion:
        return replace(await super().__call__(episode, tools), finish="stop")


class TrlLibrary:
    """The same environment for TRL. `coming` holds the scripts of the episodes to be reset next."""

    coming: Iterator[Script]
    clock: Any

    def reset(self, **row: Any) -> None:
        self._calls = iter(next(TrlLibrary.coming).calls)

    def get_reward(self) -> float:
        return random.random()

    async def search(self, query: str) -> str:
        """
        Search the library.

        Args:
            query: query
        """
        seconds, answer = next(self._calls)
        with TrlLibrary.clock("tool_wait"):
            await asyncio.sleep(seconds)
        return answer


def trl_trainer(model: Path, mixin: type, *, groups: int, steps: int, questions: Sequence[str]) -> Any:
    """TRL's GRPO trainer with `environment_factory` and a colocated vLLM, made to work on CPU; `mixin` over it.

    vLLM packs linear weights on CPU and drops them, so TRL could not hand new ones over: here it keeps them, and
    packs again after each hand-over.
    """
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_WAIT_POLICY": "passive"}
    import trl.trainer.grpo_trainer as module
    import vllm.model_executor.layers.utils as layers
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl.generation import vllm_generation

    pack = layers.dispatch_cpu_unquantized_gemm
    layers.dispatch_cpu_unquantized_gemm = lambda layer, remove_weight: pack(layer, False)
    vllm_generation.LLM = functools.partial(vllm_generation.LLM, dtype="float32", enforce_eager=True)
    call = {"type": "function", "function": {"name": "search", "arguments": {"query": "x"}}}
    module.parse_response = lambda *_, **__: {"role": "assistant", "content": "x", "tool_calls": [call]}

    class Trainer(mixin, module.GRPOTrainer):
        """TRL's, with clocks."""

    args = module.GRPOConfig(
        **trainer_fields(groups, steps),
        output_dir=str(model / "trl"),
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=CONTEXT,
        max_completion_length=CONTEXT // 2,
        max_tool_calling_iterations=TURNS - 1,
        generation_kwargs={"max_tokens": TOKENS, "ignore_eos": True},
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=str(model),
        args=args,
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in questions]),
        environment_factory=TrlLibrary,
        peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
    )
    served = trainer.vllm_generation.llm.llm_engine.model_executor.driver_worker.model_runner.model
    packed = [layer for layer in served.modules() if hasattr(layer, "cpu_linear")]
    send = trainer.vllm_generation.sync_weights

    def sync_weights() -> None:
        send()
        for layer in packed:
            pack(layer, False)

    trainer.vllm_generation.sync_weights = sync_weights
    return trainer


def trainer_fields(groups: int, steps: int) -> dict[str, Any]:
    """GRPOConfig fields that both sides share: a micro-batch is one group."""
    return {
        "max_steps": steps,
        "num_generations": GROUP,
        "per_device_train_batch_size": GROUP,
        "gradient_accumulation_steps": groups,
        "gradient_checkpointing": False,
        "learning_rate": 1e-4,
        "beta": 0.0,
        "save_strategy": "no",
        "report_to": [],
    }


class Side:
    """One side of a comparison in a process of its own: a line in, a line of JSON out."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        command = [sys.executable, script, "--side", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def ask(self, line: str) -> Any:
        """The side's answer; raises RuntimeError with its output if it has died."""
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self._process.args} died:\n{self._log.read()[-4000:]}")
        return json.loads(answer)

    def close(self) -> None:
        """Let the process end; kill it if it does not."""
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Desk:
    """The other end of `Side`: hears lines, answers in JSON. What libraries print goes to stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def hear(self) -> str | None:
        """The next line; None when there is nobody left to answer to."""
        return sys.stdin.readline().strip() or None

    def answer(self, value: Any) -> None:
        print(json.dumps(value), file=self._out, flush=True)
