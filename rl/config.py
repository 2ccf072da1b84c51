"""Every setting, in one frozen tree. What a library already names keeps its name and its section.

    config = load("configs/demo.yaml", "seed=1", "trainer.learning_rate=1e-4")

`trainer` takes every field of TRL's `GRPOConfig`, `lora` every field of PEFT's `LoraConfig`, `engine`
every engine argument of vLLM; they are checked where those libraries are imported. All else is
checked here, without them. A setting that would have no effect is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.errors import InputError, unknown
from envs.sandbox.settings import SandboxSettings
from rl import trees
from rl.credit.settings import CRITICAL, CreditConfig
from rl.guarding import GuardConfig
from rl.hacking import DECISIVE, DETECTORS, Action

CONFIG = "config.json"
"""In a run directory: the config it was made with."""

ADAPTER = "adapter"
"""And there, the trained adapter."""

BASE = "base"
"""And the embedded policy that it adapts."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=BaseModel)


class ServerConfig(Section):
    """An MCP server: a program that is started for every episode, or the address of one that runs."""

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    """Variables for the program; of our own it gets PATH, HOME and a few more."""
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}
    timeout: float = Field(30.0, gt=0)
    """Seconds for the server to be ready, and for each call."""


class EnvConfig(Section):
    """What is played."""

    use: str
    """A name from `envs.ENVS`, `module:attribute`, or "mcp": the tools of `server`."""
    server: ServerConfig | None = None
    """Of `use: mcp`."""
    settings: dict[str, Any] = {}
    """What the environment itself takes: arguments of its `configured`."""
    options: dict[str, Any] = {}
    """Arguments of the environment's `tasks`, for every split."""
    data: dict[str, str] = {}
    """Split -> file (JSONL, parquet) or dataset on the Hub, for environments that bring no tasks."""
    prompt: str = "prompt"
    """Of `data`: the column that holds the prompt, in rows without `messages`."""
    system: str | None = None
    """Of `data`: a system message to put before prompts that have none."""
    train: str = "train"
    evaluate: str = "test"

    @model_validator(mode="after")
    def _server_goes_with_mcp(self) -> EnvConfig:
        if (self.use == "mcp") != (self.server is not None):
            raise ValueError("env.server belongs to env.use 'mcp', and that one needs it")
        return self


class RolloutConfig(Section):
    """How episodes are played. The sampling names are vLLM's."""

    turns: int = Field(16, ge=1)
    tokens: int | None = Field(None, ge=1)
    """Sampled tokens an episode; None leaves it to `turns` and the context."""
    seconds: float = Field(600.0, gt=0)
    max_tokens: int = Field(512, ge=1)
    """Of one turn."""
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    concurrency: int = Field(256, ge=1)
    retries: int = Field(2, ge=0)
    """How often an episode that the machinery broke is played again."""
    max_unscored: float = Field(0.5, ge=0, le=1)
    """The share of a step's episodes that the reward may fail to score before the run stops."""


class EngineConfig(BaseModel):
    """Which engine, and its own arguments by their own names."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Literal["vllm", "transformers", "server"] = "vllm"
    handover: Literal["auto", "adapter", "merged"] = "auto"
    dtype: str = "auto"
    url: str | None = None
    """Of the vLLM server, for kind "server"."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What goes to the engine as it is."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _url_goes_with_server(self) -> EngineConfig:
        if (self.kind == "server") != (self.url is not None):
            raise ValueError("engine.url belongs to engine.kind 'server', and that one needs it")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> EngineConfig:
        """The other engines' settings; those of vLLM are checked where vLLM is imported."""
        if self.kind == "vllm":
            return self
        if self.handover != "auto":
            raise ValueError(f"engine.handover would have no effect with engine.kind {self.kind!r}; remove it")
        if self.kind == "server" and self.dtype != "auto":
            raise ValueError("engine.dtype would have no effect: the server has its own; remove it")
        if self.kind == "server" and self.arguments:
            names = ", ".join(f"engine.{name}" for name in self.arguments)
            raise ValueError(f"{names} would have no effect: engine arguments go to `vllm serve`; remove them")
        return self


class ChatConfig(Section):
    template: str | None = None
    """A Jinja file to use in place of the model's own template."""
    kwargs: dict[str, Any] = {}
    """Variables of the template, as in `enable_thinking: false`."""


class PPOConfig(Section):
    """The critic of algorithm ppo. The names are those TRL's PPO had."""

    cliprange_value: float | None = Field(0.2, gt=0)
    """How far an update may move a value from what it was; None does not clip."""
    critic_learning_rate: float | None = Field(None, gt=0)
    """None is that of the trainer."""


class FeedConfig(Section):
    refill: int = Field(0, ge=0)
    """How many zero-variance groups a step may replace by groups of other tasks, per rank."""


class EvalConfig(Section):
    """How a policy is measured on held-out tasks."""

    tasks: int | None = Field(200, ge=1)
    """How many, from the first; None takes all."""
    samples: int = Field(1, ge=1)
    """Sampled episodes a task, for pass@k and pass^k."""
    greedy: bool = True
    """Also play each task once at temperature 0."""
    keep: int | None = Field(None, ge=1)
    """Keep the checkpoints of so many evaluations with the highest reward, and the newest, in place of the newest
    `trainer.save_total_limit`."""


class WatchConfig(Section):
    """What is looked for at each evaluation during training, and what is done about it."""

    detectors: tuple[str, ...] | None = None
    """Keys of `rl.hacking.DETECTORS`; None takes all."""
    alarm: Action = "warn"
    """What a confirmed alarm may do: warn, stop the run, or stop and go back to the last good checkpoint."""

    @model_validator(mode="after")
    def _known(self) -> WatchConfig:
        if self.detectors is None:
            return self
        for name in self.detectors:
            if name not in DETECTORS:
                raise ValueError(f"watch.detectors: {unknown('detector', name, DETECTORS)}")
        if self.alarm != "warn" and not DECISIVE & set(self.detectors):
            names = " and ".join(sorted(DECISIVE))
            raise ValueError(f"watch.alarm would have no effect: only {names} stop a run, and neither is watched for")
        return self


class Config(Section):
    """A run."""

    method: Literal["reinforcement", "supervised"] = "reinforcement"
    """How the policy learns. supervised: from the replies in the rows that `env.options.files` names; nothing is
    played, and `trainer` takes the fields of TRL's `SFTConfig`."""
    model: str
    """A directory, a name on the Hub, or "tiny": the embedded policy, made on the spot."""
    env: EnvConfig
    reward: dict[str, Any] = {}
    """Name -> reward; see `rewards.build`."""
    holdout: dict[str, Any] = {}
    """The same, of a grader that training never sees: evaluations are scored by it as well."""
    output_dir: Path
    seed: int = 0
    deterministic: bool = False
    """Same bits from the same seed, at a price in speed."""
    guard: GuardConfig = GuardConfig()
    sandbox: SandboxSettings = SandboxSettings()
    """Where environments and graders run code."""
    rollout: RolloutConfig = RolloutConfig()
    engine: EngineConfig = EngineConfig()
    chat: ChatConfig = ChatConfig()
    algorithm: Literal["grpo", "ppo"] = "grpo"
    """With a group of episodes in place of a critic, or with a critic."""
    ppo: PPOConfig | None = None
    """Of algorithm ppo."""
    credit: CreditConfig = CreditConfig()
    feed: FeedConfig = FeedConfig()
    evaluate: EvalConfig = EvalConfig()
    watch: WatchConfig = WatchConfig()
    lora: dict[str, Any] = {}
    trainer: dict[str, Any] = {}
    tiny: dict[str, Any] = {}
    """How the embedded policy is made, for model "tiny"."""
    adapter: Path | None = None
    """A LoRA adapter to evaluate."""

    @model_validator(mode="before")
    @classmethod
    def _ppo_asks_its_critic(cls, tree: Any) -> Any:
        """Unless it is said otherwise, by the token."""
        if not isinstance(tree, dict) or tree.get("algorithm") != "ppo":
            return tree
        credit = tree.get("credit") or {}
        named = {"name": "gae", **credit} if isinstance(credit, dict) else credit
        return {**tree, "ppo": tree.get("ppo") or {}, "credit": named}

    @model_validator(mode="after")
    def _credit_fits_algorithm(self) -> Config:
        name, asks = self.credit.name, ", ".join(sorted(CRITICAL))
        if self.algorithm == "ppo" and name not in CRITICAL:
            raise ValueError(f"credit.name: {name} compares a group; algorithm ppo asks its critic: set one of {asks}")
        if self.algorithm == "grpo" and name in CRITICAL:
            raise ValueError(
                f"credit.name: {name} needs values, which come from a critic: set algorithm: ppo. grouped_td takes its "
                "values from the group, return_to_go_loo needs none"
            )
        if self.algorithm == "grpo" and self.ppo is not None:
            raise ValueError("the section 'ppo' belongs to algorithm ppo; set that, or remove it")
        return self

    @model_validator(mode="after")
    def _reinforcement_needs_a_reward(self) -> Config:
        if self.method == "reinforcement" and "reward" not in self.model_fields_set:
            raise ValueError("the key 'reward' is missing")
        return self

    @model_validator(mode="after")
    def _tiny_needs_tiny(self) -> Config:
        if self.tiny and self.model != "tiny":
            raise ValueError("the section 'tiny' belongs to model 'tiny'")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Config:
        if self.method == "supervised":
            for name in (
                "reward",
                "rollout",
                "engine",
                "algorithm",
                "ppo",
                "credit",
                "feed",
                "evaluate",
                "guard",
                "adapter",
                "deterministic",
            ):
                field = type(self).model_fields[name]
                if getattr(self, name) != ({} if name == "reward" else field.default):
                    raise ValueError(f"{name} would have no effect with method 'supervised'; remove it")
        return self

    @model_validator(mode="after")
    def _deterministic_needs_vllm(self) -> Config:
        if self.deterministic and self.engine.kind != "vllm":
            raise ValueError(f"deterministic: engine.kind {self.engine.kind!r} can't keep it; set it to vllm")
        return self


def load(path: str | Path, *overrides: str) -> Config:
    """Read a YAML config and apply `key=value` overrides (`trainer.max_steps=3`; values are YAML).

    Raises:
        InputError: no such file, not YAML, an unknown key (with the nearest valid one), a wrong type.
    """
    tree = trees.read(path)
    for override in overrides:
        trees.apply(tree, override)
    return parse(tree, where=str(path))


def load_run(path: Path, *overrides: str) -> Config:
    """A config file as it is; of a run directory its resolved config, with the adapter it made.

    Raises:
        InputError: the directory holds no run, or a run that has made no adapter yet.
    """
    if not path.is_dir():
        return load(path, *overrides)
    if not (path / CONFIG).exists():
        raise InputError(f"{path} holds no run (there is no {CONFIG}); name a config file or a run directory")
    if not (path / ADAPTER).is_dir():
        raise InputError(f"{path} has no {ADAPTER}/ yet: train it to the end, or name a checkpoint as adapter=PATH")
    model = [f"model={path / BASE}", "tiny={}"] if (path / BASE).is_dir() else []
    return load(path / CONFIG, f"adapter={path / ADAPTER}", *model, *overrides)


def parse(tree: Mapping[str, Any], where: str = "config") -> Config:
    """A config of plain data, as `load` reads it."""
    return validated(Config, tree, where)


def validated(kind: type[S], tree: Mapping[str, Any], where: str) -> S:
    """A section of plain data, every mistake named with its key.

    Raises:
        InputError: an unknown key (with the nearest valid one), a missing one, a wrong type.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError("\n".join(_explain(kind, where, item) for item in error.errors())) from error


def _explain(kind: type[BaseModel], where: str, item: Any) -> str:
    key = ".".join(map(str, item["loc"]))
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: unknown key {key!r}{nearest(str(item['loc'][-1]), _names_at(kind, item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"{where}: the key {key!r} is missing"
    got = "" if item["type"] == "value_error" else f", not {item['input']!r}"
    return f"{where}: {key + ': ' if key else ''}{item['msg'].removeprefix('Value error, ')}{got}"


def _names_at(section: type[Any], path: Iterable[str | int]) -> list[str]:
    for name in path:
        if name in section.model_fields:  # a place in a list or a mapping is of the type that was named before
            section = next(_sections(section.model_fields[str(name)].annotation))
    return [field.name for field in fields(section)] if is_dataclass(section) else list(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[Any]]:
    """The sections in a type: that of `list[Rule] | None` is Rule."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean ...?` for an unknown name, or all valid ones if none is near."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(valid)}"
