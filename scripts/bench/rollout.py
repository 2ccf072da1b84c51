"""How fast episodes with slow tools are sampled: LocalRFT, vLLM alone, and TRL's `environment_factory`.

    python scripts/bench/rollout.py [--json FILE]

EPISODES episodes of 4 turns of 64 sampled tokens, with a tool call of 50 ms (mean, lognormal, sigma 1.5) between
turns. In sampled tokens a second, the best of ROUNDS rounds, all ways taking turns in every round, because what else
a machine does can only slow a round down:

ours          `Player.play_all`: the real environment, policy, chat template and engine
one_shot      the same vLLM, one request of 256 tokens an episode: no turns, shorter contexts, no tools
same_context  the same vLLM, turn by turn with the same contexts, tool results known beforehand and no latency
trl           TRL's rollout with a colocated vLLM, `GRPOTrainer._generate_and_score_completions`: from prompts to a
              batch that can be trained on, with the forward for old log-probabilities that its importance correction
              needs (ours is made in the forward of the update). The hand-over before the first round is not counted.
trl_loop      of that, only sampling and the tool loop
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workload import (
    CONTEXT,
    GROUP,
    LORA,
    TOKENS,
    TURNS,
    CallingChat,
    Desk,
    Library,
    Script,
    Side,
    TrlLibrary,
    WholeTurns,
    Words,
    jobs,
    make_model,
    scripts,
    trl_trainer,
)

EPISODES = 64
ROUNDS = 5
WAYS = ("ours", "one_shot", "same_context")
SAMPLED = EPISODES * TURNS * TOKENS


class Ours:
    """LocalRFT's side, and vLLM alone in the same engine."""

    def __init__(self, engine: Any, chat: CallingChat, words: Words) -> None:
        self.engine, self.chat, self.words = engine, chat, words

    async def run(self, way: str, label: str) -> dict[str, Any]:
        """One round of a way; seconds, and the mean length of an episode's last context."""
        await self.engine._llm.reset_prefix_cache()  # another way has met the same episodes
        played = scripts(self.words, label, EPISODES // GROUP)
        return await getattr(self, way)(played, label)

    async def ours(self, played: Sequence[Script], label: str) -> dict[str, Any]:
        from rewards.score import Score
        from rl.engines import Sampling
        from rl.rollout import Limits, Player

        async def reward(episode: Any) -> Score:
            return Score(value=0.0)

        coming = iter(played)
        player = Player(env=lambda task: Library(task, next(coming)), reward=reward, limits=Limits(turns=TURNS + 1))
        policy = WholeTurns(self.engine, self.chat, Sampling(max_tokens=TOKENS))
        start = time.perf_counter()
        done = await player.play_all(jobs(played, label), policy)
        seconds = time.perf_counter() - start
        turns = [p.episode.turns for p in done]
        assert sum(len(turn.completion.token_ids) for each in turns for turn in each) == SAMPLED
        return {"seconds": {"ours": seconds}, "context": _context([each[-1].completion.prompt_ids for each in turns])}

    async def one_shot(self, played: Sequence[Script], label: str) -> dict[str, Any]:
        prompts = [self._prompt(*job) for job in jobs(played, label)]
        start = time.perf_counter()
        await asyncio.gather(*(self._sample(prompt, TURNS * TOKENS) for prompt in prompts))
        return {"seconds": {"one_shot": time.perf_counter() - start}, "context": _context(prompts)}

    async def same_context(self, played: Sequence[Script], label: str) -> dict[str, Any]:
        from envs.types import Completion, Message, ToolResult

        contexts = [self._prompt(*job) for job in jobs(played, label)]
        said = Completion(message=Message(role="assistant"))
        answers = [
            [self.chat.extend([], said, [ToolResult(call_id="", name="search", content=text)]) for _, text in s.calls]
            for s in played
        ]
        start = time.perf_counter()
        for turn in range(TURNS):
            sampled = await asyncio.gather(*(self._sample(context, TOKENS) for context in contexts))
            if turn < TURNS - 1:
                parts = zip(contexts, sampled, answers, strict=True)
                contexts = [[*context, *ids, *answer[turn]] for context, ids, answer in parts]
        return {"seconds": {"same_context": time.perf_counter() - start}, "context": _context(contexts)}

    def _prompt(self, task: Any, id: str) -> list[int]:
        return self.chat.prompt(task.prompt, list(Library.tools().values()))

    async def _sample(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """vLLM without our engine around it, asked for what our engine asks for."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        final = RequestOutputKind.FINAL_ONLY
        params = SamplingParams(max_tokens=tokens, ignore_eos=True, logprobs=0, detokenize=False, output_kind=final)
        name = f"raw-{next(_NUMBERS)}"
        outputs = [out async for out in self.engine._llm.generate({"prompt_token_ids": list(prompt)}, params, name)]
        ids = outputs[-1].outputs[0].token_ids
        assert len(ids) == tokens
        return list(ids)


_NUMBERS = itertools.count()


def _context(prompts: Sequence[Sequence[int]]) -> float:
    return statistics.mean(map(len, prompts))


async def side_ours(model: Path, desk: Desk) -> None:
    """Answers `WAY LABEL`."""
    from transformers import AutoTokenizer

    from rl.engines.vllm import VllmEngine

    tokenizer = AutoTokenizer.from_pretrained(model)
    engine = await VllmEngine.open(model=model, lora=LORA, dtype="float32", max_model_len=CONTEXT)
    try:
        ours = Ours(engine, CallingChat(tokenizer), Words(tokenizer))
        while line := await asyncio.to_thread(desk.hear):
            desk.answer(await ours.run(*line.split()))
    finally:
        await engine.close()


def side_trl(model: Path, desk: Desk) -> None:
    """Answers `trl LABEL`."""
    from transformers import AutoTokenizer

    words = Words(AutoTokenizer.from_pretrained(model))

    class Clocked:
        """Times the rollout, and the sampling and tool loop in it."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            start = time.perf_counter()
            result = super()._generate_and_score_completions(inputs)
            self.took["seconds"]["trl"] = time.perf_counter() - start
            return result

        def _generate(self, prompts: Any) -> Any:
            start = time.perf_counter()
            result = super()._generate(prompts)
            took = {"trl_loop": time.perf_counter() - start}
            prompt_ids, completion_ids, mask = result[:3]
            assert sum(map(sum, mask)) == SAMPLED
            parts = zip(prompt_ids, completion_ids, strict=True)
            context = statistics.mean(len(p) + len(c) - TOKENS for p, c in parts)
            self.took = {"seconds": took, "context": context}
            return result

    TrlLibrary.clock = contextlib.nullcontext
    trainer = trl_trainer(model, Clocked, groups=EPISODES // GROUP, steps=1, questions=["x"] * GROUP)
    trainer.model.train()
    while line := desk.hear():
        played = scripts(words, line.split()[1], EPISODES // GROUP)
        TrlLibrary.coming = iter(played)
        trainer._generate_and_score_completions(
            [{"prompt": [{"role": "user", "content": script.question}]} for script in played]
        )
        desk.answer(trainer.took)


def measure(rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Sampled tokens a second, and the mean length of the last turn's context, of every way."""
    seconds: dict[str, list[float]] = {way: [] for way in (*WAYS, "trl", "trl_loop")}
    context: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        with Side(__file__, "ours", folder) as ours, Side(__file__, "trl", folder) as trl:
            for number in range(-1, rounds):  # the first is to warm up
                for way in (*WAYS, "trl"):
                    took = (trl if way == "trl" else ours).ask(f"{way} round-{number}")
                    for name, value in took["seconds"].items():
                        context[name] = took["context"]
                        if number >= 0:
                            seconds[name].append(value)
    return {way: SAMPLED / min(each) for way, each in seconds.items()}, context


def table(speed: dict[str, float], context: dict[str, float]) -> str:
    """For people."""
    lines = [f"{'way':14} {'tok/s':>8} {'ours / it':>10} {'last context':>13}"]
    for way, value in speed.items():
        lines.append(f"{way:14} {value:8.0f} {speed['ours'] / value:10.2f} {context[way]:13.0f}")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, model = arguments.side
        if side == "ours":
            asyncio.run(side_ours(Path(model), Desk()))
        else:
            side_trl(Path(model), Desk())
        os._exit(0)  # TRL's in-process engine has no clean end, and ours has had its own
    speed, context = measure(arguments.rounds)
    print(table(speed, context))
    if arguments.json:
        arguments.json.write_text(json.dumps(speed, indent=1) + "\n")


if __name__ == "__main__":
    main()
