"""The embedded policy: a small model made on the spot, so that agentic training can be seen on a CPU.

Nothing is downloaded. The tokenizer is trained on desk episodes, so that a whole episode takes about
150 tokens; the model has the Qwen3 architecture and well under a million parameters. What `make`
leaves behind is an ordinary model directory that transformers and vLLM load like any other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envs.desk import Desk, Noise, demonstration
from envs.types import Completion, Episode, Message, Stop, Task, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)

PIECES = r"\p{N}|\n|[^\p{N}\n,.]+[,.]?|[,.]"
"""What the tokenizer may merge within: digits stay single, so that numbers can be copied, and text is
cut only at commas, full stops and newlines, so that the JSON around a tool call is one or two tokens."""

TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{%- if loop.first or loop.previtem.role != 'tool' -%}{{ '<|im_start|>user\\n' }}{%- endif -%}
{{ '<tool_response>' + message.content + '</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' -%}{{ '<|im_end|>\\n' }}{%- endif -%}
{%- else -%}
{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] -%}
{%- set call = call.function or call -%}
{{ '<tool_call>{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments if call.arguments is string else call.arguments | tojson }}{{ '}</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
"""ChatML with Hermes tool calls. Tool schemas are not shown: the tools are few, and the warm start
teaches them at no cost in context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a Qwen3 model with tied embeddings."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate: int = 256


def tokenizer(vocabulary: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on desk demonstrations; it can write any text.

    The same in every process. The vocabulary stays below its limit when there is nothing left to merge.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(PIECES), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=64,
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(demonstrations(1000)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def demonstrations(count: int, *, orders: Sequence[int] = (1, 3), noise: Noise | None = None, seed: int = 0) -> list[Episode]:
    """Scripted desk episodes, played for real: what the tools answered is in them."""
    rng = random.Random(f"tiny/{seed}")
    tasks = Desk.tasks("demonstrations", orders=orders, count=count)
    scripts = [demonstration(task, rng, noise or Noise()) for task in tasks]

    async def play() -> list[Episode]:
        return [await _play(task, script) for task, script in zip(tasks, scripts, strict=True)]

    return asyncio.run(play())


async def _play(task: Task, script: Sequence[Message]) -> Episode:
    desk = Desk(task)
    turns = [Turn(completion=Completion(message=message), results=await desk.step(message)) for message in script]
    return Episode(id=task.id, env=Desk.name, task=task, turns=turns, stop=Stop.DONE, state=desk.state())


def _corpus(episodes: Iterable[Episode]) -> Iterator[str]:
    """The texts between special tokens, as the chat template lays them out."""
    for episode in episodes:
        for message in episode.messages:
            yield f"{message.role}\n{message.content}"
            for call in message.tool_calls:
                yield f'{{"name": "{call.name}", "arguments": {call.arguments}}}'


CONTEXT = 4096
"""Tokens; a twenty-order episode takes about 1500."""
