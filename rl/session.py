"""A config made into running things: environment, reward, chat, engine, ready to play.

with Session(config, model) as session:
    played = session.play(tasks, temperature=0.0)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from envs.errors import InputError
from envs.sandbox import Sandboxes, SandboxSettings, find_tier, share, shared
from envs.types import Task
from rewards.spec import named
from rl import scene, tiny
from rl.belief import Belief
from rl.chat import Chat
from rl.config import ChatConfig, Config, EngineConfig
from rl.engines import Engine, Sampling
from rl.engines.adapter import read_config
from rl.learned.record import reads
from rl.loop import BackgroundLoop
from rl.policy import EnginePolicy
from rl.rollout import Played, rescore
from rl.trainers.settings import LORA_DEFAULTS


def read_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        InputError: there is no such model, here or on the Hub.
    """
    _look_for(model)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise InputError(f"model {model!r}: no tokenizer could be loaded: {str(error).splitlines()[0]}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_network(model: str) -> PretrainedConfig:
    """The architecture of a model, without its weights.

    Raises:
        InputError: there is no such model, here or on the Hub.
    """
    _look_for(model)
    try:
        network: PretrainedConfig = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise InputError(f"model {model!r}: its config can't be loaded: {str(error).splitlines()[0]}") from error
    return network


def _look_for(model: str) -> None:
    """Refuse what can only be meant as a directory and is none: the Hub would be asked for it, at length.

    A directory `user/model` that is there shadows the Hub's name, as it does in transformers.
    """
    on_hub = model.count("/") <= 1 and not model.startswith((".", "/", "~"))
    if not Path(model).is_dir() and not on_hub:
        raise InputError(f"model {model!r}: there is no such directory; name one, a model on the Hub, or tiny")


def open_chat(chat: ChatConfig, tokenizer: PreTrainedTokenizerBase) -> Chat:
    """The bridge between messages and this model's tokens, proven to hold."""
    template = chat.template
    try:
        text = Path(template).read_text() if template else None
    except OSError as error:
        raise InputError(f"chat.template: can't read {template}: {error.strerror}") from error
    return Chat(tokenizer, template=text, template_kwargs=chat.kwargs)


def check(config: Config) -> None:
    """Find what is wrong with a config before anything is written and any engine is started.

    Raises:
        InputError: what, and what to do about it.
    """
    scene.player(config)
    scene.holdout(config)
    scene.tasks(config, config.env.evaluate)
    for settings in scene.sandboxes(config):
        asyncio.run(_try_sandboxes(settings))
    _check_engine(config.engine)
    _check_learned(config)
    if config.adapter is not None:
        read_config(config.adapter)
    if config.model != "tiny":
        open_chat(config.chat, read_tokenizer(config.model))
    elif config.chat != ChatConfig():
        open_chat(config.chat, tiny.tokenizer(tiny.recipe_of(config).lesson))


def _check_learned(config: Config) -> None:
    specs = [*named(config.reward, "learned"), *named(config.holdout, "learned")]
    if specs:
        tokenizer = (
            tiny.tokenizer(tiny.recipe_of(config).lesson) if config.model == "tiny" else read_tokenizer(config.model)
        )
        for spec in specs:
            reads(Path(spec["path"]), tokenizer, config.model)


def _check_engine(engine: EngineConfig) -> None:
    if engine.kind == "vllm":
        from rl.engines import vllm_arguments

        vllm_arguments.check(engine.arguments, also=EngineConfig.model_fields)
    elif engine.kind == "transformers":
        from rl.engines import transformers

        transformers.check_arguments(engine.arguments, also=EngineConfig.model_fields)


async def _try_sandboxes(settings: SandboxSettings) -> None:
    _, broker = await find_tier(settings)
    await broker.close()


class Session:
    """Everything that plays, opened once and closed once."""

    def __init__(self, config: Config, model: str) -> None:
        self.config, self.model = config, model
        self.tokenizer = read_tokenizer(model)
        self.chat = open_chat(config.chat, self.tokenizer)
        self.player = scene.player(config)
        self.holdout = scene.holdout(config)
        self.loop = BackgroundLoop()
        self.engine: Engine
        self.sandboxes: Sequence[Sandboxes] = ()
        """What was opened for the environment and the graders, if they run code."""
        try:
            self.sandboxes = self.loop.run(_open_sandboxes(config))
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
        gold = scene.gold(self.config)
        belief = None if gold is None else Belief(self.engine, self.chat, gold)
        return EnginePolicy(self.engine, self.chat, sampling, seed=seed, belief=belief)

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
        return self.loop.run(self.player.play_all(jobs, policy, on_played, group=samples))

    def judge(self, played: Sequence[Played]) -> list[Played] | None:
        """The same episodes with the scores of the holdout grader; None where the config has none."""
        return None if self.holdout is None else self.loop.run(rescore(played, self.holdout, "holdout"))

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


async def _open_sandboxes(config: Config) -> list[Sandboxes]:
    share(config.sandbox)
    return [await shared(settings) for settings in scene.sandboxes(config)]


async def _open_engine(config: Config, model: str) -> Engine:
    engine = config.engine
    lora = LORA_DEFAULTS | config.lora if config.adapter is None else read_config(config.adapter)
    if engine.kind == "server":
        from rl.engines.server import ServerEngine

        assert engine.url is not None
        return await ServerEngine.open(url=engine.url, lora=lora, api_key=os.environ.get("VLLM_API_KEY"))
    arguments = engine.arguments
    limits = {"max_model_len": arguments.pop("max_model_len")} if "max_model_len" in arguments else {}
    if engine.kind == "transformers":
        from rl.engines.transformers import TransformersEngine

        return await TransformersEngine.open(
            model=model, lora=lora, dtype=engine.dtype, seed=config.seed, engine_args=arguments, **limits
        )
    from rl.engines.vllm import VllmEngine

    return await VllmEngine.open(
        model=model,
        lora=lora,
        handover=engine.handover,
        dtype=engine.dtype,
        deterministic=config.deterministic,
        seed=config.seed,
        engine_args=arguments,
        **limits,
    )
