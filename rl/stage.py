"""One episode on the screen: who said what, what the tools answered, what each turn earned."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Mapping

from openai import AsyncOpenAI
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from envs.environment import Environment
from envs.errors import InputError
from envs.tools import ToolSpec
from envs.types import Completion, Episode, Message, Task, ToolCall
from rl import scene
from rl.config import Config
from rl.policy import ChatPolicy, Policy, PolicyError, ScriptPolicy
from rl.rollout import Played, Player

STYLES = {"system": "dim", "user": "cyan", "assistant": "green", "tool": "yellow"}


class Aloud:
    """A policy whose episode is shown as it is played."""

    def __init__(self, policy: Policy, console: Console) -> None:
        self._policy, self._console, self._shown = policy, console, 0

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        self.show(episode)
        return await self._policy(episode, tools)

    def show(self, episode: Episode) -> None:
        """Show what has not been shown yet."""
        for message in episode.messages[self._shown :]:
            show_message(self._console, message)
        self._shown = len(episode.messages)


class Typed:
    """You play: a line of text is an answer, `tool {"json": ...}` a call."""

    def __init__(self, console: Console, read: Callable[[str], str] = input) -> None:
        self._console, self._read = console, read

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        for spec in tools.values():
            self._console.print(f"  {spec.name}: {spec.description}", style="dim", highlight=False)
        try:
            line = (await asyncio.to_thread(self._read, 'your turn (an answer, or: tool {"argument": ...})> ')).strip()
        except EOFError as error:
            raise PolicyError("you left") from error
        name, _, arguments = line.partition(" ")
        calls: tuple[ToolCall, ...] = ()
        if name in tools:
            calls = (ToolCall(id=f"typed-{len(episode.turns)}", name=name, arguments=arguments or "{}"),)
        return Completion(message=Message(role="assistant", content="" if calls else line, tool_calls=calls))


def play(config: Config, console: Console, *, policy: str, index: int, url: str | None, greedy: bool) -> Played:
    """Play one held-out task and show it.

    Raises:
        InputError: there is no such task, or the policy needs something that was not given.
    """
    tasks = scene.tasks(config, config.env.evaluate)
    if not 0 <= index < len(tasks):
        raise InputError(f"--task {index}: there are {len(tasks)} held-out tasks, numbered from 0")
    player = dataclasses.replace(scene.player(config, attended=True), retries=0)  # what was shown can't be taken back
    if policy == "engine":
        return _with_engine(config, console, player, tasks[index], greedy)
    chosen = _without_engine(config, console, policy, url, tasks[index], scene.environment(config))
    return asyncio.run(_perform(player, tasks[index], chosen, console))


def _without_engine(
    config: Config, console: Console, policy: str, url: str | None, task: Task, env: type[Environment]
) -> Policy:
    if policy == "expert":
        return ScriptPolicy(env.expert(task))
    if policy == "human":
        return Typed(console)
    if url is None:
        raise InputError("--policy chat needs --url, as in --url http://localhost:8000/v1")
    rollout = config.rollout
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=config.rollout.retries)
    return ChatPolicy(client, config.model, temperature=rollout.temperature, max_tokens=rollout.max_tokens)


def _with_engine(config: Config, console: Console, player: Player, task: Task, greedy: bool) -> Played:
    from accelerate import PartialState

    from rl.session import Session, check
    from rl.train import model_path
    from rl.watch import Watcher

    check(config)
    model, _ = model_path(config, PartialState(cpu=True), Watcher())
    with Session(config, model) as playing:
        playing.serve_adapter()
        policy = playing.policy(temperature=0.0 if greedy else None, seed=config.seed)
        return playing.loop.run(_perform(player, task, policy, console))


async def _perform(player: Player, task: Task, policy: Policy, console: Console) -> Played:
    aloud = Aloud(policy, console)
    played = await player.play(task, aloud, id=f"{task.id}#0")
    aloud.show(played.episode)
    show_end(console, played)
    return played


def show_message(console: Console, message: Message) -> None:
    """One message, in the colour of its role."""
    body = Text(message.content)
    for call in message.tool_calls:
        body.append(("\n" if body else "") + f"{call.name} {call.arguments}", style="bold")
    console.print(Panel(body, title=message.role, title_align="left", border_style=STYLES[message.role]))


def show_end(console: Console, played: Played) -> None:
    """How it ended, what it cost and what it earned, turn by turn where the reward says so."""
    episode, score = played.episode, played.score
    console.print(f"ended: {episode.stop}{f' ({episode.fault})' if episode.fault else ''}", highlight=False)
    cost = episode.cost
    console.print(
        f"{len(episode.turns)} turns, {cost.sampled_tokens} sampled tokens, {cost.tool_calls} tool calls, "
        f"{cost.seconds:.2f} s",
        highlight=False,
    )
    if score.error is not None:
        console.print(f"not scored: {score.error}", highlight=False)
        return
    for turn, reward in enumerate(score.turns or ()):
        console.print(f"  turn {turn + 1}: {'not judged' if reward is None else f'{reward:+.3g}'}", highlight=False)
    console.print(f"reward {score.total:.3g}  {json.dumps(dict(score.parts))}", highlight=False)
