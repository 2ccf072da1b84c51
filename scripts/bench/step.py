"""How long one GRPO step takes and what it is made of: LocalRFT against TRL's `environment_factory`.

    python scripts/bench/step.py [--json FILE]

A step is 32 episodes (4 prompts x 8) of 4 turns of 64 sampled tokens, with a tool call of 50 ms (mean, lognormal,
sigma 1.5) between turns, and one update: LoRA r16 on all linear layers, float32, micro-batches of 8. Both sides run
vLLM on the same cores, and their steps take turns. Each of SETS sets of episodes is played ROUNDS times by both. In
seconds, of the quickest step of a set, because what else a machine does can only slow a step down, and the mean over
the sets, because their tools differ in what they take:

sampling   vLLM at work (ours: episodes being played, with at least one turn in the engine)
tool_wait  waiting for tools with nothing to sample
handover   from the new adapter to the engine that serves it
logprobs   a forward for old log-probabilities, where there is one
update     forward, backward, clipping and the optimizer
total      all of it, and what is left: templates, scores, padding
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from workload import (
    CONTEXT,
    GROUP,
    LORA,
    PROMPT,
    TOKENS,
    TURNS,
    CallingChat,
    Desk,
    Library,
    Side,
    TrlLibrary,
    WholeTurns,
    Words,
    jobs,
    make_model,
    scripts,
    trainer_fields,
    trl_trainer,
)

GROUPS = 4
SETS = 3
ROUNDS = 3
WARM_UP = 2
KINDS = [f"episodes-{k}" for k in range(SETS)]
PLAYED = ["warm-up"] * WARM_UP + KINDS * ROUNDS
PARTS = ("total", "sampling", "tool_wait", "handover", "logprobs", "update")


class Clock:
    """Seconds by the name of a part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start


def stepping(clock: Clock, desk: Desk) -> Any:
    """A callback that starts a step when it is told which episodes to play, and answers what it took."""
    from transformers import TrainerCallback

    class Stepping(TrainerCallback):
        episodes = ""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.episodes = desk.hear() or os._exit(0)
            clock.seconds.clear()
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            total = time.perf_counter() - self.start
            took = {part: clock.seconds[part] for part in PARTS}
            desk.answer(took | {"total": total, "update": total - clock.seconds["collected"]})

    return Stepping()


class InFlight(WholeTurns):
    """Knows when no turn is being sampled."""

    clock: Clock
    turns = 0
    idle_since = 0.0

    def begin(self) -> None:
        """The episodes start now."""
        self.idle_since = time.perf_counter()

    def end(self) -> None:
        """They are over."""
        self.clock.seconds["tool_wait"] += time.perf_counter() - self.idle_since

    async def __call__(self, episode: Any, tools: Any, /) -> Any:
        if not self.turns:
            self.end()
        self.turns += 1
        try:
            return await super().__call__(episode, tools)
        finally:
            self.turns -= 1
            if not self.turns:
                self.begin()


class Rollout:
    """What LocalRFT does before an update: hand over, play, score, assign credit."""

    trainer: Any

    def __init__(self, loop: Any, engine: Any, tokenizer: Any, clock: Clock, stepping: Any) -> None:
        from rl.engines import Sampling

        self.loop, self.engine, self.tokenizer, self.clock = loop, engine, tokenizer, clock
        self.stepping = stepping
        self.words = Words(tokenizer)
        self.policy = InFlight(engine, CallingChat(tokenizer), Sampling(max_tokens=TOKENS))
        self.policy.clock = clock

    def __call__(self, step: int, rows: int) -> Any:
        from rl.collect import Group
        from rl.feed import Ticket
        from rl.samples import samples

        if step > self.engine.version:
            with self.clock("handover"):
                self._hand_over(step)
        tasks = jobs(played := scripts(self.words, self.stepping.episodes, GROUPS), f"step-{step}")
        with self.clock("playing"):
            done = self.loop.run(self._play(played, tasks))
        self.clock.seconds["sampling"] = self.clock.seconds["playing"] - self.clock.seconds["tool_wait"]
        assert sum(p.episode.cost.sampled_tokens for p in done) == rows * TURNS * TOKENS
        groups = [
            Group(ticket=Ticket(k, tasks[k * GROUP][0]), played=tuple(done[k * GROUP : (k + 1) * GROUP]))
            for k in range(rows // GROUP)
        ]
        return [sample for group in groups for sample in samples(group, "grpo", {}, self.tokenizer.pad_token_id)]

    async def _play(self, played: Any, tasks: Any) -> Any:
        from rewards.score import Score
        from rl.rollout import Limits, Player

        async def reward(episode: Any) -> Score:
            return Score(value=random.Random(episode.id).random())

        coming = iter(played)
        player = Player(env=lambda task: Library(task, next(coming)), reward=reward, limits=Limits(turns=TURNS + 1))
        self.policy.begin()
        done = await player.play_all(tasks, self.policy)
        self.policy.end()
        return done

    def _hand_over(self, step: int) -> None:
        directory = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.trainer.export(directory)
        self.loop.run(self.engine.load(directory, step))
        shutil.rmtree(directory)


def side_ours(model: Path, desk: Desk) -> None:
    """Steps of LocalRFT."""
    from transformers import AutoTokenizer

    from rl.config import parse
    from rl.engines.vllm import VllmEngine
    from rl.loop import BackgroundLoop
    from rl.trainers.grpo import EpisodeGRPOTrainer
    from rl.trainers.settings import grpo_config, lora_config

    tokenizer = AutoTokenizer.from_pretrained(model)
    clock, loop = Clock(), BackgroundLoop()

    class Clocked(EpisodeGRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            with clock("collected"):
                return super()._generate_and_score_completions(inputs)

    opened = VllmEngine.open(model=model, lora=LORA, handover="merged", dtype="float32", max_model_len=CONTEXT)
    engine = loop.run(opened)
    with tempfile.TemporaryDirectory() as folder:
        fields = trainer_fields(GROUPS, len(PLAYED))
        tree = {"model": str(model), "env": {"use": "desk"}, "reward": {}, "output_dir": folder, "trainer": fields}
        each = stepping(clock, desk)
        rollout = Rollout(loop, engine, tokenizer, clock, each)
        rollout.trainer = Clocked(
            model=str(model),
            args=grpo_config(parse(tree), Path(folder)),
            tokenizer=tokenizer,
            lora=lora_config(LORA),
            rollout=rollout,
            tasks=GROUPS,
            callbacks=[each],
        )
        rollout.trainer.train()
    loop.run(engine.close())
    loop.close()


def side_trl(model: Path, desk: Desk) -> None:
    """Steps of TRL."""
    import torch
    from transformers import AutoTokenizer

    words = Words(AutoTokenizer.from_pretrained(model))
    clock = TrlLibrary.clock = Clock()
    each = stepping(clock, desk)

    class Clocked:
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            played = scripts(words, each.episodes, GROUPS)
            TrlLibrary.coming = iter(played)
            rows = [{"prompt": [{"role": "user", "content": script.question}]} for script in played]
            with clock("collected"):
                return super()._generate_and_score_completions(rows)

        def _get_per_token_logps_and_entropies(self, *arguments: Any, **fields: Any) -> Any:
            with contextlib.nullcontext() if torch.is_grad_enabled() else clock("logprobs"):
                return super()._get_per_token_logps_and_entropies(*arguments, **fields)

    questions = [words(random.Random(k), PROMPT) for k in range(GROUPS)]
    trainer = trl_trainer(model, Clocked, groups=GROUPS, steps=len(PLAYED), questions=questions)
    engine = trainer.vllm_generation
    generate, send = engine.generate, engine.sync_weights

    def timed_generate(*arguments: Any, **fields: Any) -> Any:
        with clock("sampling"):
            return generate(*arguments, **fields)

    def timed_send() -> None:
        with clock("handover"):
            send()

    engine.generate, engine.sync_weights = timed_generate, timed_send
    trainer.add_callback(each)
    trainer.train()


def measure() -> dict[str, dict[str, float]]:
    """Seconds of every part of a step, on both sides: of the quickest step of each set, the mean over the sets."""
    took: dict[str, dict[str, list[dict[str, float]]]] = {"ours": defaultdict(list), "trl": defaultdict(list)}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        with Side(__file__, "ours", folder) as ours, Side(__file__, "trl", folder) as trl:
            for episodes in PLAYED:
                took["ours"][episodes].append(ours.ask(episodes))
                took["trl"][episodes].append(trl.ask(episodes))
    best = {side: [min(sets[k], key=lambda step: step["total"]) for k in KINDS] for side, sets in took.items()}
    return {side: {part: mean(step[part] for step in steps) for part in PARTS} for side, steps in best.items()}


def table(results: dict[str, dict[str, float]]) -> str:
    """For people."""
    lines = [f"{'seconds':10} {'ours':>8} {'trl':>8} {'trl / ours':>11}"]
    for part in PARTS:
        ours, trl = results["ours"][part], results["trl"][part]
        lines.append(f"{part:10} {ours:8.2f} {trl:8.2f} {trl / ours if ours > 0.005 else float('nan'):11.2f}")
    rest = [each["total"] - sum(each[part] for part in PARTS[1:]) for each in results.values()]
    return "\n".join([*lines, f"{'the rest':10} {rest[0]:8.2f} {rest[1]:8.2f}"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, model = arguments.side
        {"ours": side_ours, "trl": side_trl}[side](Path(model), Desk())
        os._exit(0)  # TRL's in-process engine has no clean end, and ours has had its own
    results = measure()
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
