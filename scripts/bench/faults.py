"""What tools that raise or hang cost the others: the same episodes with and without the faults, in one run.

    python scripts/bench/faults.py [--episodes 256] [--blocking] [--json FILE]

Each episode is four turns of a small model on vLLM. A turn ends with a tool call: lognormal latency
with a mean of 50 ms and sigma 1.5, the same draws in both runs. In the faulty run 5 % of the calls
raise and 2 % never come back: asleep in a coroutine, or with `--blocking` asleep in a thread, where
only the tool's timeout (1 s) ends them. Exit code 1 if the faulty run took more than 1.3 times as long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from envs import Environment, Guard, Message, Task, ToolCall, tool
from envs.types import Completion, Episode
from rewards import reward
from rl.chat import Chat
from rl.engines import Engine, Sampling
from rl.policy import EnginePolicy
from rl.rollout import Limits, Played, Player

TURNS, TOKENS = 4, 64
MEAN, SIGMA = 0.05, 1.5
RAISES, HANGS = 0.05, 0.02
TOOL_SECONDS = 1.0
ALLOWED = 1.3


class Flaky(Environment):
    """Tools whose latency, errors and hangs are drawn from the task's id: the same in every run."""

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        super().__init__(task, guard)
        self._rng = random.Random(task.id)

    def _draw(self) -> tuple[float, float]:
        """Seconds, and a number from 0 to 1 that decides about faults where the task has them."""
        seconds = self._rng.lognormvariate(math.log(MEAN) - SIGMA**2 / 2, SIGMA)
        chance = self._rng.random()
        if self.task.item["faults"] and chance < RAISES:
            raise RuntimeError("this tool is broken")
        return seconds, chance

    def _hangs(self, chance: float) -> bool:
        return bool(self.task.item["faults"]) and chance < RAISES + HANGS

    @tool(timeout=TOOL_SECONDS)
    async def fetch(self) -> str:
        """Fetch something, in a coroutine."""
        seconds, chance = self._draw()
        await (asyncio.Event().wait() if self._hangs(chance) else asyncio.sleep(seconds))
        return "fetched " * 8

    @tool(timeout=TOOL_SECONDS)
    def read(self) -> str:
        """Read something, in a thread."""
        seconds, chance = self._draw()
        time.sleep(4 * TOOL_SECONDS if self._hangs(chance) else seconds)
        return "read " * 8


class Caller:
    """Samples each turn for real, and calls one tool after it whatever was said."""

    def __init__(self, policy: EnginePolicy, chat: Chat, name: str) -> None:
        self._policy, self._chat, self._name = policy, chat, name

    async def __call__(self, episode: Episode, tools: Mapping[str, Any], /) -> Completion:
        said = await self._policy(episode, {})
        call = ToolCall(id=f"c{len(episode.turns)}", name=self._name, arguments="{}")
        message = Message(role="assistant", content=said.message.content, tool_calls=(call,))
        # A model that learned nothing rarely ends its turns; the next prompt needs one that has ended.
        ids = said.token_ids if said.finish == "stop" else (*said.token_ids[:-1], self._chat.stop_ids[0])
        return Completion(
            message=message,
            prompt_ids=said.prompt_ids,
            token_ids=ids,
            logprobs=said.logprobs,
            version=said.version,
            cost=said.cost,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of all episodes."""

    seconds: float
    played: list[Played]

    @property
    def stops(self) -> dict[str, int]:
        return dict(Counter(str(p.episode.stop) for p in self.played))

    @property
    def faults(self) -> dict[str, int]:
        results = (r for p in self.played for turn in p.episode.turns for r in turn.results)
        return dict(Counter(str(r.fault) for r in results if r.fault))


async def play(engine: Engine, chat: Chat, *, episodes: int, faults: bool, blocking: bool) -> Result:
    """Play all episodes at once."""
    player = Player(env=Flaky, reward=reward(lambda episode: 1.0), limits=Limits(turns=TURNS), concurrency=episodes)
    policy = Caller(
        EnginePolicy(engine, chat, Sampling(max_tokens=TOKENS), seed=0), chat, "read" if blocking else "fetch"
    )
    prompt = (Message(role="user", content="Please look this up, and then the next one."),)
    tasks = [Task(id=f"t{i}", prompt=prompt, item={"faults": faults}) for i in range(episodes)]
    started = time.perf_counter()
    played = await player.play_all([(task, f"{task.id}#0") for task in tasks], policy)
    return Result(seconds=time.perf_counter() - started, played=played)


def held() -> dict[str, int]:
    """What this process holds: threads, open files, children."""
    children = sum(len(p.read_text().split()) for p in Path("/proc/self/task").glob("*/children"))
    return {"threads": threading.active_count(), "files": len(os.listdir("/proc/self/fd")), "children": children}


async def measure(model: Path, *, episodes: int, blocking: bool) -> tuple[Result, Result, dict[str, Any]]:
    """The clean and the faulty run on one engine, after a short one to warm it up, and what the faulty one left."""
    from rl.engines.vllm import VllmEngine
    from rl.session import read_tokenizer

    engine = await VllmEngine.open(model=model, dtype="float32", max_model_len=1024)
    try:
        chat = Chat(read_tokenizer(str(model)))
        await play(engine, chat, episodes=min(32, episodes), faults=False, blocking=blocking)
        clean = await play(engine, chat, episodes=episodes, faults=False, blocking=blocking)
        tasks, before = len(asyncio.all_tasks()), held()
        faulty = await play(engine, chat, episodes=episodes, faults=True, blocking=blocking)
        during = held()
        await asyncio.sleep(5 * TOOL_SECONDS)  # a thread asleep in C ends when its call returns
        left = {name: count - before[name] for name, count in held().items()}
        left["tasks"] = len(asyncio.all_tasks()) - tasks
        left["threads_at_once"] = during["threads"] - before["threads"]
        return clean, faulty, left
    finally:
        await engine.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--blocking", action="store_true", help="tools that block a thread")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    from rl import tiny

    with tempfile.TemporaryDirectory() as folder:
        model = tiny.random_model(Path(folder) / "model")
        clean, faulty, left = asyncio.run(measure(model, episodes=arguments.episodes, blocking=arguments.blocking))
    ratio = faulty.seconds / clean.seconds
    numbers = {
        "clean_s": clean.seconds,
        "faulty_s": faulty.seconds,
        "ratio": ratio,
        "stops": faulty.stops,
        "faults": faulty.faults,
        "left": left,
    }
    for name, value in numbers.items():
        print(f"{name:>9}  {value:.3f}" if isinstance(value, float) else f"{name:>9}  {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return int(ratio > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
