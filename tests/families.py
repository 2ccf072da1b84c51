"""Tokenizers made on the spot that carry real chat templates and the control tokens of their families.

The templates are those TRL ships; the vocabularies are small, but split text as the families' own do, and mark
each control token as special, or only added, as they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rl.chat import Chat

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}"
    "{% if loop.previtem.role != 'tool' %}{{ '<|im_start|>user\\n' }}{% endif %}"
    "{{ '<tool_response>' + m.content + '</tool_response>' }}"
    "{% if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{% for c in m.tool_calls or [] %}"
    '{{ \'<tool_call>{"name": "\' + c.function.name + \'", "arguments": \' }}'
    "{{ c.function.arguments | tojson }}{{ '}</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Hermes calls in ChatML, without tool schemas: what the embedded policy speaks."""

QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|fim_prefix|>")
TOOLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
THINK = ("<think>", "</think>")
LLAMA = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|reserved_special_token_0|>"),
)
GLM = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
HARMONY = (
    *("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>"),
    *("<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>"),
)
DEEPSEEK = tuple(
    f"<｜{name}｜>"
    for name in (
        *("User", "Assistant", "tool▁calls▁begin", "tool▁calls▁end", "tool▁call▁begin", "tool▁call▁end", "tool▁sep"),
        *("tool▁outputs▁begin", "tool▁outputs▁end", "tool▁output▁begin", "tool▁output▁end"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Family:
    template: str
    """A name among TRL's templates, or Jinja."""
    special: tuple[str, ...]
    added: tuple[str, ...] = ()
    """Control tokens that are not marked special."""
    eos: str
    bos: str | None = None
    normalizer: Any = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """For the template."""
    stops: frozenset[str] = frozenset()
    """The tokens that must be known to end a turn."""


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    return make({**FAMILIES, **REFUSED}[name], name)


@cache
def chat(name: str) -> Chat:
    return Chat(tokenizer(name), template_kwargs=FAMILIES[name].kwargs)


def make(family: Family, name: str = "made") -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    if family.normalizer:
        bpe.normalizer = family.normalizer
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator([template("qwen3"), template("llama3_1"), template("gptoss")], trainer)
    bpe.add_special_tokens([AddedToken(text, normalized=False) for text in family.special])
    bpe.add_tokens([AddedToken(text, normalized=False, special=False) for text in family.added])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=family.eos,
        bos_token=family.bos,
        name_or_path=f"made/{name}",
        chat_template=family.template if "{" in family.template else template(family.template),
    )


def template(name: str) -> str:
    spec = find_spec("trl")
    assert spec and spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _qwen(template: str, added: tuple[str, ...] = (*TOOLS, *THINK), **kwargs: Any) -> Family:
    return Family(
        template=template,
        special=QWEN,
        added=added,
        eos="<|im_end|>",
        normalizer=normalizers.NFC(),
        kwargs=kwargs,
        stops=frozenset({"<|im_end|>", "<|endoftext|>"}),
    )


def _llama(template: str) -> Family:
    stops = frozenset({"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"})
    return Family(template=template, special=LLAMA, eos="<|eot_id|>", bos="<|begin_of_text|>", stops=stops)


FAMILIES: dict[str, Family] = {
    "chatml": _qwen(CHATML, TOOLS),
    "qwen2.5": _qwen("qwen2_5", TOOLS[:2]),
    "qwen3": _qwen("qwen3"),
    "qwen3-nothink": _qwen("qwen3", enable_thinking=False),
    "qwen3-2507": _qwen("qwen3_instruct_2507"),
    "qwen3.5": _qwen("qwen3_5_think"),
    "qwen3.6-nothink": _qwen("qwen3_6", enable_thinking=False),
    "llama3.1": _llama("llama3_1"),
    "llama3.2": _llama("llama3_2"),
    "glm4.5": Family(
        template="glm4moe",
        special=GLM,
        added=(*THINK, *TOOLS, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "/nothink"),
        eos="<|endoftext|>",
        stops=frozenset({"<|endoftext|>", "<|user|>", "<|observation|>"}),
    ),
    "gpt-oss": Family(
        template="gptoss",
        special=HARMONY,
        eos="<|return|>",
        stops=frozenset({"<|return|>", "<|call|>", "<|endoftext|>"}),
    ),
}
REFUSED: dict[str, Family] = {
    "llama3": _llama("llama3"),
    "phi3": Family(
        template="phi3", special=("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), eos="<|end|>"
    ),
    "gemma3": Family(template="gemma3", special=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), eos="<eos>"),
    "deepseek-v3": Family(
        template="deepseekv3",
        special=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        added=(*THINK, *DEEPSEEK),
        eos="<｜end▁of▁sentence｜>",
    ),
}
