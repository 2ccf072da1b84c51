"""The embedded policy: a small model made on the spot, so that agentic training can be seen on a CPU.

Nothing is downloaded. The tokenizer is trained on episodes of the job, so that a whole episode at the
desk takes about 150 tokens; the model has the Qwen3 architecture and well under a million parameters;
careless demonstrations teach it every step of the job, and bad habits for a reward to take away. What
`make` leaves behind is an ordinary model directory that transformers and vLLM load like any other.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from envs.analyst import Slips
from envs.desk import Noise
from envs.errors import InputError
from envs.types import Episode
from rl.config import Config, nearest
from rl.lessons import LESSONS, Lesson, demonstrations, options
from rl.whole import whole_directory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM, TrainerCallback

    from rl.rows import Row

TURNS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPECIAL = (*TURNS, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

PIECES = r"\p{N}|\n|[^\p{N}\n,.]+[,.]?|[,.]"
"""What the tokenizer may merge within: digits stay single, so that numbers can be copied, and text is
cut only at commas, full stops and newlines, so that the JSON around a number is one or two tokens."""

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

CONTEXT = 4096
"""Tokens; an episode of twenty orders takes about 1500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a Qwen3 model with tied embeddings. The defaults come to 0.68M parameters."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that determines a tiny policy. The defaults are what the demo runs."""

    seed: int = 0
    shape: Shape = field(default_factory=Shape)
    lesson: Lesson = "desk"
    """The job that is demonstrated."""
    orders: tuple[int, int] = (1, 2)
    """At the desk: fewest and most orders of a demonstration. What a policy never saw here it won't do at all."""
    noise: Noise = field(default_factory=Noise)
    """At the desk: how often a demonstration goes wrong."""
    slips: Slips = field(default_factory=Slips)
    """Of the analyst: the same."""
    demonstrations: int = 2800
    steps: int = 700
    batch: int = 8
    """Episodes a step."""
    learning_rate: float = 4e-3
    context_share: float = 0.1
    """Of prompt and tool-result tokens, how many carry loss too: it brings copying about sooner."""
    averaged: float = 0.25
    """The share of steps, at the end, whose weights are averaged: it evens out the last batches' habits."""

    @property
    def digest(self) -> str:
        """A hash of all that the result depends on, 16 hex digits."""
        body = json.dumps([asdict(self), SPECIAL, PIECES, TEMPLATE], sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A tiny policy on disk, and what it took to make it."""

    directory: Path
    parameters: int
    vocabulary: int
    steps: int
    loss: float
    """Mean over the last steps, natural log, per token with loss."""
    seconds: float
    """When it was made: demonstrations, tokenizer and training."""
    reused: bool = False
    """True if it was found on disk."""


Progress = Callable[[int, int, float], None]
"""Told the step, the steps in all, and the latest loss (nan before the first)."""


def make(directory: Path | str, recipe: Recipe | None = None, *, progress: Progress | None = None) -> Made:
    """Make the policy of a recipe in `directory`, or find it there.

    Nothing is left in `directory` unless all of it could be made.

    Raises:
        InputError: the directory holds something else.
    """
    recipe = recipe or Recipe()
    directory = Path(directory)
    found = _found(directory, recipe)
    if found is not None:
        return found
    import torch

    from rl.chat import Chat
    from rl.trainers.sft import rows_of

    started = time.perf_counter()
    own = {option: getattr(recipe, option) for option in options(recipe.lesson)}
    episodes = demonstrations(recipe.demonstrations, recipe.lesson, seed=recipe.seed, **own)
    words = tokenizer(recipe.lesson)
    rows = rows_of(episodes, Chat(words), ())  # no tools: the template shows none
    torch.manual_seed(recipe.seed)
    network = model(words, recipe.shape)
    loss = _warm_start(network, words, rows, recipe, progress)
    made = Made(
        directory=directory,
        parameters=network.num_parameters(),
        vocabulary=len(words),
        steps=recipe.steps,
        loss=loss,
        seconds=time.perf_counter() - started,
    )
    record = {"digest": recipe.digest, "recipe": asdict(recipe), "made": asdict(made) | {"directory": None}}
    _save(directory, network, words, record)
    return made


def random_model(directory: Path | str, *, seed: int = 0, shape: Shape | None = None) -> Path:
    """A model that learned nothing, with the same tokenizer and template, in `directory`.

    Raises:
        InputError: the directory is there and not empty.
    """
    import torch

    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory} is not empty: name another directory, or remove it")
    torch.manual_seed(seed)
    words = tokenizer()
    _save(directory, model(words, shape or Shape()), words, {"seed": seed})
    return directory


def tokenizer(lesson: Lesson = "desk", vocabulary: int = 1024) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer trained on episodes of a job; it can write any text.

    The same in every process. It ends up below `vocabulary`, when there is nothing left to merge.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(PIECES), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=64,
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(demonstrations(1000, lesson)), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def model(words: PreTrainedTokenizerBase, shape: Shape) -> Qwen3ForCausalLM:
    """A Qwen3 model for this tokenizer in float32, with weights drawn from torch's current seed."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(words),
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def recipe_of(config: Config) -> Recipe:
    """How a run's embedded policy is made: as the section `tiny` says, and for the job that is played.

    Raises:
        InputError: a key that a recipe does not have, one of another lesson, or a wrong type.
    """
    _refuse_unknown(Recipe, config.tiny, "tiny")
    lesson = config.env.use if config.env.use in LESSONS else "desk"
    try:
        recipe = TypeAdapter(Recipe).validate_python({"seed": config.seed, "lesson": lesson} | config.tiny)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(map(str, item["loc"]))
        raise InputError(f"tiny.{key}: {item['msg']}, not {item['input']!r}") from error
    for other in LESSONS:
        for name in config.tiny.keys() & set(options(other)) - set(options(recipe.lesson)):
            raise InputError(f"tiny.{name} would have no effect: it is of lesson {other!r}; remove it")
    return recipe


def _refuse_unknown(kind: Any, given: Mapping[str, Any], where: str) -> None:
    """Pydantic passes over keys that a dataclass does not have, at any depth."""
    hints = get_type_hints(kind)
    for name, value in given.items():
        if name not in hints:
            raise InputError(f"{where}: unknown key {name!r}{nearest(name, hints)}")
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            _refuse_unknown(hints[name], value, f"{where}.{name}")


def _corpus(episodes: Iterable[Episode]) -> Iterator[str]:
    """The texts between special tokens, as the chat template lays them out."""
    for episode in episodes:
        for message in episode.messages:
            yield f"{message.role}\n{message.content}"
            for call in message.tool_calls:
                yield f'{{"name": "{call.name}", "arguments": {call.arguments}}}'


def _warm_start(
    network: Qwen3ForCausalLM,
    words: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    recipe: Recipe,
    progress: Progress | None,
) -> float:
    """Train in place; the loss of the last steps."""
    from rl.muon import MuonAdam
    from rl.trainers.sft import finetune, settings

    decay = round(0.4 * recipe.steps)
    warmup = min(50, recipe.steps // 4)
    fields = {
        "max_steps": recipe.steps,
        "per_device_train_batch_size": recipe.batch,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": decay, "decay_type": "linear", "min_lr_ratio": 0.02},
        "warmup_steps": warmup,
        "max_grad_norm": 1.0,
        # Batches of like lengths would pad less, but teach a batch at a time when to stop, not from the request.
        "train_sampling_strategy": "random",
        "seed": recipe.seed,
        "logging_steps": min(10, recipe.steps),
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "disable_tqdm": True,
    }
    with tempfile.TemporaryDirectory() as scratch:
        trainer = finetune(
            network,
            words,
            rows,
            settings(scratch, fields),
            context_share=recipe.context_share,
            optimizer=MuonAdam(network, lr=recipe.learning_rate),
            callbacks=[_watcher(recipe, progress)],
        )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return float(losses[-1])


def _watcher(recipe: Recipe, progress: Progress | None) -> TrainerCallback:
    """Reports progress, and averages the weights of the last steps into the model."""
    import torch
    from transformers import TrainerCallback

    first = recipe.steps - max(1, round(recipe.averaged * recipe.steps))

    class Watcher(TrainerCallback):
        loss = float("nan")
        mean: tuple[torch.Tensor, ...] = ()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.loss = (logs or {}).get("loss", self.loss)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            weights = tuple(model.parameters())
            done = state.global_step
            if done == first + 1:
                self.mean = tuple(weight.detach().clone() for weight in weights)
            elif self.mean:
                for mean, weight in zip(self.mean, weights, strict=True):
                    mean.lerp_(weight.detach(), 1 / (done - first))
            if progress is not None:
                progress(done, recipe.steps, self.loss)

        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            with torch.no_grad():
                for weight, mean in zip(model.parameters(), self.mean, strict=True):
                    weight.copy_(mean)

    return Watcher()


def _found(directory: Path, recipe: Recipe) -> Made | None:
    """The policy of this recipe, if it is there.

    Raises:
        InputError: something else is there.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return None
    try:
        record = json.loads((directory / RECORD).read_text())
        if record["digest"] == recipe.digest:
            return Made(**record["made"] | {"directory": directory, "reused": True})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{directory} holds no tiny policy ({error}): name another directory, or remove it") from error
    raise InputError(
        f"{directory} holds a tiny policy of another recipe: name another directory, or remove it "
        f"(its recipe is in {RECORD})"
    )


def _save(directory: Path, network: Qwen3ForCausalLM, words: PreTrainedTokenizerBase, record: dict[str, Any]) -> None:
    with whole_directory(directory) as draft:
        network.save_pretrained(draft)
        words.save_pretrained(draft)
        (draft / RECORD).write_text(json.dumps(record, indent=2) + "\n")


RECORD = "tiny.json"
"""Beside the weights: the recipe, its digest, and what making it took."""
