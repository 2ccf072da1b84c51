"""What a config plays and how it is judged: environment, tasks, rewards. No model, no training stack."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import envs
import rewards
import rewards.spec
from envs.environment import Environment
from envs.errors import InputError
from envs.guard import guard_of
from envs.sandbox.settings import SandboxSettings
from envs.tasks import check_disjoint, load
from envs.types import Task
from rewards.process import Gold
from rewards.score import GroupReward, Reward
from rl.config import Config, EnvConfig
from rl.learned.reward import learned
from rl.options import checked
from rl.rollout import Limits, Player

rewards.REWARDS["learned"] = learned  # it stands on a model, of which the floor below knows nothing


def environment(config: Config) -> type[Environment]:
    """The environment a config names, with its settings, its tools known to be fit for a model.

    Raises:
        InputError: there is none of that name, a setting it does not take, a tool of it has no schema, or its server
            can't be used.
    """
    server = config.env.server
    found = envs.find(config.env.use) if server is None else _served(server.model_dump_json(exclude_defaults=True))
    env = found.configured(**checked(found.configured, config.env.settings, "env.settings"))
    env.tools()
    return env


@cache
def _served(server: str) -> type[Environment]:
    """The tools of an MCP server, which is asked for them once."""
    try:
        from envs.bridges import mcp
    except ImportError as error:
        raise InputError(f"env.use mcp needs {error.name}; run: pip install 'localrft[mcp]'") from error
    return mcp.environment(mcp.Server(**json.loads(server)))


def tasks(config: Config, split: str) -> list[Task]:
    """The tasks of a split, from the config's own data or from the environment.

    Raises:
        InputError: no such split, no tasks in it, options that the environment does not take, or a task
            whose `guard` can't be kept.
    """
    data, options = config.env.data, config.env.options
    if not data:
        for key in ("prompt", "system"):
            if getattr(config.env, key) != EnvConfig.model_fields[key].default:
                raise InputError(f"env.{key} would have no effect: there are no rows, for lack of env.data")
        env = environment(config)
        found = env.tasks(split, **checked(env.tasks, options, "env.options", given=1))
        if not found:
            raise InputError(f"environment {env.name!r} has no tasks in split {split!r}; look at env.options")
        return _guarded(found, env)
    if split not in data:
        raise InputError(f"env.data names no file for split {split!r}, only for {', '.join(data)}")
    if options:
        raise InputError("env.options would have no effect: the tasks come from env.data; remove one of them")
    found = load(data[split], split=split, prompt=config.env.prompt, system=config.env.system)
    return _guarded(found, environment(config))


def _guarded(tasks: list[Task], env: type[Environment]) -> list[Task]:
    """The tasks, known to say nothing of a guard that makes no sense."""
    for task in tasks:
        if "guard" in task.item:
            bare = replace(task, item={key: value for key, value in task.item.items() if key != "guard"})
            try:
                guard_of(task).check(env(bare).available())
            except InputError as error:
                raise InputError(f"task {task.id!r}: item.{error}") from error
    return tasks


def check_splits(config: Config) -> None:
    """Load both splits, and refuse them if what is trained on would be tested on.

    Raises:
        InputError: as `tasks`, or they share a task. One and the same split for both is a choice.
    """
    names = dict.fromkeys((config.env.train, config.env.evaluate))
    check_disjoint({name: tasks(config, name) for name in names})


def sandboxes(config: Config) -> set[SandboxSettings]:
    """The sandboxes that environment and graders run code in, as far as they say so: what a run opens at its start.

    Raises:
        InputError: the config describes sandboxes that nothing runs in.
    """
    needed = rewards.spec.sandboxes(config.reward) | rewards.spec.sandboxes(config.holdout)
    if environment(config).sandboxed:
        needed.add(None)
    owned = rewards.spec.owned(config.reward) or rewards.spec.owned(config.holdout)
    if None not in needed and config.sandbox != SandboxSettings() and not owned:
        raise InputError("sandbox would have no effect: neither the environment nor a grader runs code; remove it")
    return {config.sandbox if settings is None else settings for settings in needed}


def holdout(config: Config) -> Reward | None:
    """The grader that training never sees, if the config names one.

    Raises:
        InputError: it can't be made, or compares the episodes of a group.
    """
    if not config.holdout:
        return None
    made = rewards.build(config.holdout, "holdout")
    if isinstance(made, GroupReward):
        raise InputError("holdout compares the episodes of a group, and it is asked of one at a time; name another")
    return made


def check_groups(config: Config, *, trained: int | None = None, evaluated: bool = True) -> None:
    """Refuse a reward that compares the episodes of a group where there would be nothing to compare.

    Args:
        trained: episodes of a task that a step plays; None where nothing is trained.
        evaluated: held-out tasks are played.

    Raises:
        InputError: what to set.
    """
    if not isinstance(rewards.build(config.reward), GroupReward):
        return
    if trained == 1:
        raise InputError("reward compares the episodes of a group: set trainer.num_generations to 2 or more")
    if evaluated and config.evaluate.samples == 1:
        raise InputError("reward compares the episodes of a group: set evaluate.samples to 2 or more")
    if evaluated and config.evaluate.greedy and not config.holdout:
        raise InputError(
            "reward compares the episodes of a group, and a greedy evaluation plays each task once: set "
            "evaluate.greedy to false, or name a holdout, which scores one episode at a time"
        )


def gold(config: Config) -> Gold | None:
    """The answer whose likelihood the policy is to note at every turn; None where no reward reads that.

    Raises:
        InputError: rewards read that of different answers.
    """
    found = rewards.spec.golds(config.reward) | rewards.spec.golds(config.holdout)
    if len(found) > 1:
        raise InputError("information_gain: all parts of reward and holdout need the same field and lead")
    return next(iter(found), None)


def player(config: Config, *, attended: bool = False) -> Player:
    """What plays and scores episodes by a config's rules.

    Args:
        attended: somebody sits at the terminal, and can be asked.

    Raises:
        InputError: the environment, the reward or the guard can't be made, or the guard would have to ask
            somebody at the terminal while many episodes run.
    """
    rollout, env, guard = config.rollout, environment(config), config.guard.guard()
    guard.check(env.tools())
    for approvals in guard.approvals:
        if approvals.approver.interactive and not attended:
            raise InputError(
                f"guard.approval.approver {approvals.approver.name!r} asks at the terminal, which only rft play can "
                "do; name deny, allow, a function (module:attribute) or a webhook"
            )

    def make(task: Task) -> Environment:
        made = env(task)
        made.guard = made.guard.narrowed(guard)
        return made

    return Player(
        env=make,
        reward=rewards.build(config.reward),
        limits=Limits(turns=rollout.turns, tokens=rollout.tokens, seconds=rollout.seconds),
        concurrency=rollout.concurrency,
        retries=rollout.retries,
    )
