"""A config made into running things: environment, reward, chat, engine, ready to play.

with Session(config, model) as session:
    played = session.play(tasks, temperature=0.0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from transformers import AutoTokenizer, PreTrainedTokenizerBase

import envs
import rewards
from envs.environment import Environment
from envs.errors import InputError
from envs.tasks import load
from envs.types import Task
from rl.chat import Chat
from rl.config import Config
from rl.engines import Engine, Sampling
from rl.engines.adapter import read_config
from rl.loop import BackgroundLoop
from rl.policy import EnginePolicy
from rl.rollout import Limits, Played, Player


def environment(config: Config) -> type[Environment]:
    """The environment a config names."""
    return envs.find(config.env.use)


def tasks(config: Config, split: str) -> list[Task]:
    """The tasks of a split, from the config's own data or from the environment."""
    if split in config.env.data:
        return load(config.env.data[split], split=split)
    try:
        return environment(config).tasks(split, **config.env.options)
    except TypeError as error:
        raise InputError(f"env.options: {error}") from error


def player(config: Config) -> Player:
    """What plays and scores episodes by a config's rules."""
    rollout = config.rollout
    return Player(
        env=environment(config),
        reward=rewards.build(config.reward),
        limits=Limits(turns=rollout.turns, tokens=rollout.tokens, seconds=rollout.seconds),
        concurrency=rollout.concurrency,
        retries=rollout.retries,
    )


def read_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        InputError: there is no such model, here or on the Hub.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise InputError(f"model {model!r}: no tokenizer could be loaded: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def open_chat(config: Config, tokenizer: PreTrainedTokenizerBase) -> Chat:
    """The bridge between messages and this model's tokens, proven to hold."""
    template = config.chat.template
    try:
        text = Path(template).read_text() if template else None
    except OSError as error:
        raise InputError(f"chat.template: can't read {template}: {error.strerror}") from error
    return Chat(tokenizer, template=text, template_kwargs=config.chat.kwargs)


class Session:
    """Everything that plays, opened once and closed once."""

    def __init__(self, config: Config, model: str) -> None:
        self.config, self.model = config, model
        self.tokenizer = read_tokenizer(model)
        self.chat = open_chat(config, self.tokenizer)
        self.player = player(config)
        environment(config).tools()  # a tool that has no schema is found now, not in the first episode
        self.loop = BackgroundLoop()
        self.engine: Engine
        try:
            self.engine = self.loop.run(_open_engine(config, model))
        except BaseException:
            self.loop.close()
            raise

    def policy(self, *, temperature: float | None = None, seed: int | None = None) -> EnginePolicy:
        """The policy that the engine serves now."""
        rollout = self.config.rollout
        sampling = Sampling(
            temperature=rollout.temperature if temperature is None else temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            max_tokens=rollout.max_tokens,
        )
        return EnginePolicy(self.engine, self.chat, sampling, seed=seed)

    def serve_adapter(self) -> None:
        """Have the engine answer with the adapter that the config names, if it names one."""
        if self.config.adapter is not None:
            self.loop.run(self.engine.load(self.config.adapter, 1))

    def play(
        self,
        tasks: Sequence[Task],
        *,
        temperature: float | None = None,
        samples: int = 1,
        on_played: Callable[[int, Played], None] = lambda index, played: None,
    ) -> list[Played]:
        """Play each task `samples` times, with seeds of their own; results grouped by task."""
        jobs = [(task, f"{task.id}#{k}") for task in tasks for k in range(samples)]
        policy = self.policy(temperature=temperature, seed=self.config.seed)
        return self.loop.run(self.player.play_all(jobs, policy, on_played))

    def close(self) -> None:
        """Stop the engine and the loop. Idempotent."""
        if hasattr(self, "engine"):
            self.loop.run(self.engine.close())
            del self.engine
        self.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _open_engine(config: Config, model: str) -> Engine:
    engine, arguments = config.engine, config.engine.arguments
    common: dict[str, Any] = {
        "model": model,
        "lora": lora_fields(config),
        "dtype": engine.dtype,
        "seed": config.seed,
        "deterministic": config.deterministic,
    }
    if "max_model_len" in arguments:
        common["max_model_len"] = arguments.pop("max_model_len")
    common["engine_args"] = arguments
    if engine.kind == "transformers":
        from rl.engines.transformers import TransformersEngine

        return await TransformersEngine.open(**common)
    from rl.engines.vllm import VllmEngine

    return await VllmEngine.open(**common, handover=engine.handover)


def lora_fields(config: Config) -> Mapping[str, Any]:
    """PEFT's settings of the adapters that the engine will be given: those of `adapter`, or the section `lora`'s.

    Raises:
        InputError: `adapter` is not an adapter.
    """
    from rl.trainers.settings import LORA_DEFAULTS

    return LORA_DEFAULTS | config.lora if config.adapter is None else read_config(config.adapter)
