"""Supervised fine-tuning of an adapter on the replies in rows: a run directory like any other, without episodes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.bridges.hosted import Example, examples_of
from envs.errors import InputError
from envs.tasks import jsonl_rows
from envs.types import Completion, Episode, Stop, Task, Turn
from rl import checkpoint
from rl.config import ADAPTER, Config
from rl.opening import model_path, opened
from rl.records import Run
from rl.watch import Watcher
from rl.whole import whole_directory

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

    from rl.chat import Chat
    from rl.rows import Row
    from rl.train import Trained


@dataclass(slots=True)
class _Log:
    """Where the trainer's numbers go."""

    run: Run
    watcher: Watcher
    total: int

    def __call__(self, entry: Mapping[str, Any]) -> None:
        self.run.metrics.append(dict(entry))
        if "loss" in entry:
            self.watcher.step(entry["step"], self.total, entry)


def examples(config: Config, split: str) -> list[Example]:
    """The replies in a split's file; none where no file is named for it.

    Raises:
        InputError: it can't be read, or a row of it can't be used.
    """
    files = config.env.options.get("files", {})
    if not isinstance(files, Mapping) or "train" not in files:
        raise InputError("env.options.files: method supervised needs the file of split train")
    if split not in files:
        return []
    path = Path(files[split])
    return [example for n, row in jsonl_rows(path) for example in examples_of(row, f"{path}, line {n}")]


def rows(found: list[Example], chat: Chat) -> list[Row]:
    """The replies as token ids, written as the model would have sampled them.

    Raises:
        InputError: the model's chat template can't say one.
    """
    from rl.trainers.sft import rows_of

    made = []
    for n, example in enumerate(found):
        episode = Episode(
            id=str(n),
            env="hosted",
            task=Task(id=str(n), prompt=example.prompt),
            turns=[Turn(completion=Completion(message=example.reply))],
            stop=Stop.DONE,
        )
        try:
            made += rows_of([episode], chat, example.tools)
        except ValueError as error:
            raise InputError(f"reply {n + 1}: {error}") from error
    return made


def settings(config: Config) -> SFTConfig:
    """TRL's settings for a run, with those defaults that differ from TRL's.

    Raises:
        InputError: a field that is unknown, without effect, or refused by TRL.
    """
    import torch

    from rl.trainers import sft

    on_gpu = torch.cuda.is_available()
    defaults = {"logging_steps": 1, "disable_tqdm": True, "bf16": on_gpu, "use_cpu": not on_gpu}
    return sft.settings(str(config.output_dir), {**defaults, **config.trainer, "seed": config.seed})


def train(config: Config, *, resume: bool, watcher: Watcher) -> Trained:
    """Train to the end, or to the first SIGINT; write the adapter.

    Raises:
        InputError: something in the config or the rows can't be used.
    """
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    from rl.session import open_chat, read_tokenizer
    from rl.train import Trained
    from rl.trainers.callbacks import Interrupt, Metrics, Seal
    from rl.trainers.settings import lora_config
    from rl.trainers.sft import finetune

    started = time.perf_counter()
    args, lora = settings(config), lora_config(config.lora)
    learned, held_out = examples(config, config.env.train), examples(config, "validation")
    run = opened(config, resume=resume)
    try:
        start = checkpoint.newest(config.output_dir) if resume else None
        if resume:
            run.rewind(checkpoint.step_of(start) if start else -1)
        limit, args.save_total_limit = args.save_total_limit, None
        model, _ = model_path(config, PartialState(), watcher)
        tokenizer = read_tokenizer(model)
        chat = open_chat(config.chat, tokenizer)
        interrupt = Interrupt(watcher.say, window=1)
        log = _Log(run, watcher, args.max_steps)
        trainer = finetune(
            AutoModelForCausalLM.from_pretrained(model, dtype="bfloat16" if args.bf16 else "float32"),
            tokenizer,
            rows(learned, chat),
            args,
            lora=lora,
            callbacks=[Metrics(log), Seal(config.output_dir, dict, limit), interrupt],
            held_out=rows(held_out, chat),
            resume=str(start) if start else None,
        )
        steps = trainer.state.global_step
        with whole_directory(config.output_dir / ADAPTER) as draft:
            trainer.model.save_pretrained(draft)
        run.note("interrupted" if interrupt.stopped else "trained", step=steps)
    finally:
        run.close()
    return Trained(
        run=config.output_dir,
        steps=steps,
        interrupted=interrupt.stopped,
        seconds=time.perf_counter() - started,
    )
