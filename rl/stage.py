"""One episode on the screen: who said what, what the tools answered, what each turn earned."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

from openai import AsyncOpenAI
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from envs.errors import InputError
from envs.plain import visible
from envs.sandbox import SandboxSettings, share
from envs.tools import ToolSpec
from envs.types import Completion, Episode, Message, Role, Task, ToolCall, Turn
from rl import scene
from rl.config import Config
from rl.policy import ChatPolicy, Policy, PolicyError, ScriptPolicy
from rl.random_agent import random_agent
from rl.rollout import Played, Player

SHOWN_CHARS = 4000
"""How much of one text is shown; the model sees more of it (`guard.result_chars`)."""

STYLES = {"system": "dim", "user": "cyan", "assistant": "green", "tool": "yellow"}


class Aloud:
    """A policy whose episode is shown as it is played."""

    def __init__(self, policy: Policy, console: Console) -> None:
        self._policy, self._console, self._shown = policy, console, -1

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        self.show(episode)
        return await self._policy(episode, tools)

    def show(self, episode: Episode) -> None:
        """Show what has not been shown yet."""
        if self._shown < 0:
            for message in episode.task.prompt:
                show_text(self._console, message.role, message.role, message.content)
            self._shown = 0
        for number, turn in enumerate(episode.turns[self._shown :], self._shown + 1):
            show_turn(self._console, number, turn)
        self._shown = len(episode.turns)


class Typed:
    """You play: a line of text is an answer, `tool {"json": ...}` a call."""

    def __init__(self, console: Console, read: Callable[[str], str] = input) -> None:
        self._console, self._read = console, read

    async def __call__(self, episode: Episode, tools: Mapping[str, ToolSpec], /) -> Completion:
        for spec in tools.values():
            about = visible(f"  {spec.name}: {spec.description}")
            self._console.print(about, style="dim", highlight=False, markup=False)
        try:
            line = (await asyncio.to_thread(self._read, 'your turn (an answer, or: tool {"argument": ...})> ')).strip()
        except EOFError as error:
            raise PolicyError("you left") from error
        name, _, arguments = line.partition(" ")
        calls: tuple[ToolCall, ...] = ()
        if name in tools:
            calls = (ToolCall(id=f"typed-{len(episode.turns)}", name=name, arguments=arguments or "{}"),)
        return Completion(message=Message(role="assistant", content="" if calls else line, tool_calls=calls))


def play(
    config: Config,
    console: Console,
    *,
    policy: str,
    index: int,
    url: str | None = None,
    model: str | None = None,
    greedy: bool = False,
) -> Played:
    """Play one held-out task and show it.

    Args:
        policy: "engine", "expert", "random", "human" or "chat".
        index: of the task among the held-out ones, from 0.
        url: of the server, for policy "chat".
        model: what that server calls the model; the config's unless given.
        greedy: always the likeliest token, for policies "engine" and "chat".

    Raises:
        InputError: there is no such task, or the policy needs something that was not given.
    """
    tasks = scene.tasks(config, config.env.evaluate)
    if not 0 <= index < len(tasks):
        raise InputError(f"--task {index}: there are {len(tasks)} held-out tasks, numbered from 0")
    player = dataclasses.replace(scene.player(config, attended=True), retries=0)  # what was shown can't be taken back
    for name, given in (("--url", url), ("--model", model)):
        if given is not None and policy != "chat":
            raise InputError(f"{name} would have no effect with --policy {policy}; it belongs to --policy chat")
    if policy == "engine":
        return _with_engine(config, console, player, tasks[index], greedy)
    chosen: Policy
    if policy == "expert":
        chosen = ScriptPolicy(scene.environment(config).expert(tasks[index]))
    elif policy == "random":
        chosen = random_agent(random.Random(f"{config.seed}/{index}"))
    elif policy == "human":
        chosen = Typed(console)
    else:
        chosen = _chat(config, url, model or config.model, greedy)
    return asyncio.run(_alone(config.sandbox, _perform(player, tasks[index], chosen, console)))


def _chat(config: Config, url: str | None, model: str, greedy: bool) -> ChatPolicy:
    if url is None:
        raise InputError("--policy chat needs --url, as in --url http://localhost:8000/v1")
    rollout = config.rollout
    client = AsyncOpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "none", max_retries=rollout.retries)
    temperature = 0.0 if greedy else rollout.temperature
    return ChatPolicy(client, model, temperature=temperature, max_tokens=rollout.max_tokens)


def _with_engine(config: Config, console: Console, player: Player, task: Task, greedy: bool) -> Played:
    from accelerate import PartialState

    from rl.opening import model_path
    from rl.session import Session, check
    from rl.watch import Watcher

    check(config)
    model, _ = model_path(config, PartialState(cpu=True), Watcher())
    with Session(config, model) as playing:
        playing.serve_adapter()
        policy = playing.policy(temperature=0.0 if greedy else None, seed=config.seed)
        return playing.loop.run(_perform(player, task, policy, console))


async def _alone(sandbox: SandboxSettings, episode: Awaitable[Played]) -> Played:
    """Play in an event loop of its own, with the sandboxes that the config describes."""
    share(sandbox)
    return await episode


async def _perform(player: Player, task: Task, policy: Policy, console: Console) -> Played:
    aloud = Aloud(policy, console)
    played = await player.play(task, aloud, id=f"{task.id}#0")
    aloud.show(played.episode)
    show_end(console, played)
    return played


def show_turn(console: Console, number: int, turn: Turn) -> None:
    """What was said and called, then what each call came to."""
    said = turn.completion
    calls = [f"{call.name} {call.arguments}" for call in said.message.tool_calls]
    tokens = f", {said.cost.sampled_tokens} tokens" if said.cost.sampled_tokens else ""
    show_text(console, "assistant", f"assistant, turn {number}{tokens}", said.message.content, calls)
    for result in turn.results:
        notes = [result.fault, f"${result.money:g}" if result.money else None, f"{result.seconds:.2f} s"]
        notes += [f"{'approved' if a.granted else 'not approved'} by {a.by}" for a in result.approvals]
        show_text(console, "tool", ", ".join(["tool " + result.name, *filter(None, notes)]), result.content)


def show_text(console: Console, role: Role, title: str, text: str, calls: Sequence[str] = ()) -> None:
    """A text in the colour of its role, and calls below it; what a terminal would obey is written out."""
    body = Text(_shortened(text))
    for call in calls:
        body.append(("\n" if body else "") + _shortened(call), style="bold")
    console.print(Panel(body, title=Text(visible(title)), title_align="left", border_style=STYLES[role]))


def _shortened(text: str) -> str:
    if len(text) <= SHOWN_CHARS:
        return visible(text)
    return f"{visible(text[:SHOWN_CHARS])}\n[{len(text) - SHOWN_CHARS} more characters]"


def show_end(console: Console, played: Played) -> None:
    """How it ended, what it cost and what it earned, turn by turn where the reward says so."""
    episode, score = played.episode, played.score
    why = f" ({visible(episode.fault)})" if episode.fault else ""
    console.print(f"ended: {episode.stop}{why}", highlight=False, markup=False)
    cost = episode.cost
    console.print(
        f"{len(episode.turns)} turns, {cost.sampled_tokens} sampled tokens, {cost.tool_calls} tool calls, "
        f"{cost.seconds:.2f} s" + (f", ${cost.money:g}" if cost.money else ""),
        highlight=False,
    )
    if score.error is not None:
        console.print(f"not scored: {visible(score.error)}", highlight=False, markup=False)
        return
    for number, (turn, reward) in enumerate(zip(episode.turns, score.turns or (), strict=False), 1):
        earned = "not judged" if reward is None else f"{reward:+.3g}"
        called = ", ".join(call.name for call in turn.completion.message.tool_calls) or "answer"
        console.print(f"  turn {number}: {earned:>10}  {visible(called)}", highlight=False, markup=False)
    console.print(f"reward {score.total:.3g}  {json.dumps(dict(score.parts))}", highlight=False)
