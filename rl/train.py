"""A training run from its config to its adapter: what is built, in which order, and what is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import Qwen3Config, set_seed

from envs.errors import InputError
from rl import checkpoint, exports, lookout, scene, session, tiny
from rl.collect import Collected, Collector, succeeded
from rl.config import ADAPTER, Config
from rl.credit.batch import Spread
from rl.evaluate import Report, numbers, summarise
from rl.feed import Feed
from rl.hacking import Alarm, positive_on_failures, signs
from rl.opening import entries, model_path, opened, take_back
from rl.records import Run
from rl.rollout import Played
from rl.samples import Sample, advantages, finished, samples, spread
from rl.session import Session, read_network
from rl.trainers.callbacks import Interrupt, Metrics, OnEvaluate, OnStep, Seal
from rl.trainers.grpo import EpisodeGRPOTrainer
from rl.trainers.ppo import EpisodePPOTrainer
from rl.trainers.settings import check_targets, grpo_config, lora_config, window
from rl.trainers.start import continued
from rl.trainers.table import EpisodeTable
from rl.valued import judged
from rl.watch import Watcher
from rl.whole import whole_directory

WEIGHTS = "adapter_model.safetensors"
"""What PEFT calls the weights of an adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How a run ended."""

    run: Path
    steps: int
    interrupted: bool
    alarm: str | None = None
    """What ended it before its time, where an alarm did."""
    seconds: float


class Training:
    """One process's part of a run: its engine, its trainer, its records."""

    def __init__(self, config: Config, *, resume: bool, watcher: Watcher) -> None:
        self.config, self.watcher = config, watcher
        self.args = grpo_config(config, config.output_dir)
        self.process = PartialState()  # as the arguments have set it up
        self.rank = self.process.process_index
        self.lora = lora_config(config.lora)
        self.resumed = resume
        self.tasks = scene.tasks(config, config.env.train)
        self._check()
        before = entries(config.output_dir)
        self.run = self._open_run(resume)
        try:
            self.start = checkpoint.newest(config.output_dir) if resume else None
            self.limit, self.args.save_total_limit = self.args.save_total_limit, None
            self.model, self.warm_start_seconds = model_path(config, self.process, watcher)
            self.session = Session(config, self.model)
            for sandboxes in self.session.sandboxes if not self.rank else ():
                self.run.note("sandboxes", **sandboxes.record())
            self.trainer = self._trainer()
        except BaseException as error:
            self.close()
            if isinstance(error, InputError) and not resume and not self.rank:
                take_back(config.output_dir, before)
            raise

    def _check(self) -> None:
        """Everything that can be wrong with the config and be seen before the run directory is made."""
        session.check(self.config)
        scene.check_splits(self.config)
        evaluated = self.args.eval_strategy != "no"
        scene.check_groups(self.config, trained=self.args.num_generations, evaluated=evaluated)
        lookout.check(self.config.watch, evaluates=evaluated, saves=self.args.save_strategy != "no")
        recipe = tiny.recipe_of(self.config)
        made = Qwen3Config(num_hidden_layers=recipe.shape.layers)
        check_targets(made if self.config.model == "tiny" else read_network(self.config.model), self.lora)

    def _open_run(self, resume: bool) -> Run:
        """By rank 0, and then by the others."""
        if self.rank:
            self.process.wait_for_everyone()
            return Run.resume(self.config.output_dir, rank=self.rank)
        run = opened(self.config, resume=resume, processes=self.process.num_processes)
        self.process.wait_for_everyone()
        return run

    def _trainer(self) -> EpisodeGRPOTrainer:
        state = checkpoint.read_state(self.start, self.rank) if self.start else {}
        self.feed = Feed(
            self.tasks,
            self.config.seed,
            rank=self.rank,
            world=self.process.num_processes,
            dealt=state.get("dealt", 0),
        )
        self.collector = Collector(
            player=self.session.player,
            feed=self.feed,
            log=self.run,
            group_size=self.args.num_generations,
            refill=self.config.feed.refill,
            max_unscored=self.config.rollout.max_unscored,
            on_played=lambda played: self.watcher.advance(),
        )
        self.interrupt = Interrupt(self.watcher.say, window=window(self.args))
        self.first = 0 if self.config.adapter is None else 1
        self.version = int(state.get("version", self.first))
        self.latest: list[Played] = []
        self.lookout = lookout.Lookout(self.config.watch, self.run)
        self.alarm: Alarm | None = None
        callbacks = [
            OnStep(self._stepped),
            OnEvaluate(self._look),
            Metrics(self._log),
            Seal(
                self.config.output_dir,
                lambda: {"dealt": self.feed.dealt, "version": self.version},
                self.limit,
                self.config.evaluate.keep,
            ),
            self.interrupt,
        ]
        if "wandb" in self.args.report_to:
            os.environ.setdefault("WANDB_PROJECT", "localrft")
            os.environ.setdefault("WANDB_DIR", str(self.config.output_dir))
            callbacks.append(EpisodeTable(lambda: self.latest))
        set_seed(self.config.seed)
        adapter, ppo = self.config.adapter, self.config.ppo
        trainer = EpisodeGRPOTrainer if ppo is None else partial(EpisodePPOTrainer, ppo=ppo)
        return trainer(
            model=self.model if adapter is None else continued(self.model, adapter, self.args, self.config.lora),
            args=self.args,
            tokenizer=self.session.tokenizer,
            lora=self.lora if adapter is None else None,
            rollout=self._rollout,
            evaluation=self._evaluate,
            tasks=len(self.tasks),
            callbacks=callbacks,
        )

    def train(self) -> Trained:
        """Train to the end, or to the first SIGINT; write the adapter."""
        started = time.perf_counter()
        if self.resumed and not self.rank:
            self.run.rewind(checkpoint.step_of(self.start) if self.start else -1)
            self.run.note("resumed", checkpoint=self.start.name if self.start else None)
        self.trainer.train(resume_from_checkpoint=str(self.start) if self.start else None)
        went_back = self._go_back()
        if self.args.load_best_model_at_end or went_back is not None:
            self.version += 1  # the weights may be those of an earlier step now
        steps = self.trainer.state.global_step
        made = self._save()
        if not self.rank:
            why = {} if self.alarm is None else {**lookout.noted(self.alarm), "back_to": went_back}
            how = "interrupted" if self.interrupt.stopped else "trained" if self.alarm is None else "alarmed"
            self.run.note(how, step=steps, version=self.version, adapter=made, **why)
        self.run.flush()
        return Trained(
            run=self.config.output_dir,
            steps=steps,
            interrupted=self.interrupt.stopped,
            alarm=None if self.alarm is None else lookout.said(self.alarm),
            seconds=time.perf_counter() - started,
        )

    def measure(self, label: str, *, greedy: bool) -> Report:
        """Play the held-out tasks with the weights as they are now, shared out among the ranks, and record them.

        A collective: every rank calls it, and every rank gets the whole report.
        """
        return self._measure(label, greedy=greedy)[0]

    def _measure(self, label: str, *, greedy: bool) -> tuple[Report, Report | None]:
        """By the reward, and by the holdout grader where there is one."""
        self._hand_over()
        config, world = self.config.evaluate, self.process.num_processes
        tasks = scene.tasks(self.config, self.config.env.evaluate)[: config.tasks]
        repeats = 1 if greedy else config.samples
        how = f"{label}/{'greedy' if greedy else 'sampled'}"
        mine = tasks[self.rank :: world]
        self.watcher.phase(how.replace("/", ", "), len(mine) * repeats)
        played = self.session.play(
            mine,
            temperature=0.0 if greedy else None,
            samples=repeats,
            on_played=lambda index, played: self.watcher.advance(),
        )

        def whole(own: list[Played]) -> list[Played]:
            parts: list[list[Played]] = gather_object([own])
            return [p for i in range(len(tasks)) for p in parts[i % world][i // world * repeats :][:repeats]]

        everything, judged = whole(played), self.session.judge(played)
        report, step = summarise(everything), self.trainer.state.global_step
        if not self.rank:
            self.run.evaluated(how, step, report, everything)
        if judged is None:
            return report, None
        everything = whole(judged)
        by_holdout = summarise(everything)
        if not self.rank:
            self.run.judged(f"{how}/holdout", step, by_holdout, everything)
        return report, by_holdout

    def _evaluate(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for greedy in (False, True)[: 1 + self.config.evaluate.greedy]:
            report, by_holdout = self._measure("eval", greedy=greedy)
            measured = numbers(report)
            if by_holdout is not None and by_holdout.success is not None:
                measured["holdout"] = by_holdout.success.mean
            found |= {f"{'greedy_' * greedy}{name}": value for name, value in measured.items()}
        return found

    def _look(self, step: int, metrics: Mapping[str, float]) -> bool:
        """After an evaluation: whether an alarm ends the run. The same on every rank."""
        if not self.rank:
            for alarm in self.lookout.look(step, metrics.get("eval_holdout", metrics.get("eval_success"))):
                self.watcher.say(lookout.said(alarm))
        self.alarm = gather_object([self.lookout.verdict])[0]
        return self.alarm is not None

    def _go_back(self) -> int | None:
        """The step whose adapter was taken because the alarm calls for it; None where there is no way or no need."""
        if self.alarm is None or self.alarm.back_to is None:
            return None
        good = checkpoint.newest(self.config.output_dir, upto=self.alarm.back_to)
        if good is None:
            self.watcher.say(
                f"there is no checkpoint of step {self.alarm.back_to} or before: the adapter stays as it is"
            )
            return None
        self.trainer.go_back(good)
        return checkpoint.step_of(good)

    def close(self) -> None:
        """Stop the engine, let go of the run directory. Idempotent."""
        if hasattr(self, "session"):
            self.session.close()
        self.run.close()

    def _rollout(self, step: int, rows: int) -> list[Sample]:
        self._hand_over()
        self.watcher.phase(f"step {step + 1}", rows)
        policy = self.session.policy(seed=self.config.seed if self.config.deterministic else None)
        collected = self.session.loop.run(self.collector.collect(policy, step, rows // self.args.num_generations))
        self.run.flush()
        self._observe(collected)
        groups, filler = collected.groups, self.session.tokenizer.pad_token_id
        credit = self.config.credit.at(step / self.trainer.state.max_steps)
        if isinstance(self.trainer, EpisodePPOTrainer):
            by_group = judged(groups, self.trainer.values, credit.name, credit.options, filler)
        else:
            by_group = [samples(group, credit.name, credit.options, filler, gate=credit.soft_gate) for group in groups]
        made = [sample for rows_of_group in by_group for sample in rows_of_group]
        over = sum(gather_object([spread(made)]), Spread())
        self._metric("credit/rms", over.rms)
        self._metric("credit/share", over.share)
        gamed = positive_on_failures(zip(map(succeeded, groups), map(advantages, by_group), strict=True))
        if gamed is not None:
            self._metric("signs/positive_on_failures", gamed)
        return finished(made, over, credit.name, credit.options, rms=credit.rms)

    def _hand_over(self) -> None:
        """Give the engine the adapter in training, unless it has it."""
        if self.session.engine.version == self.version:
            return
        started = time.perf_counter()
        with self._exported() as directory:
            self.session.loop.run(self.session.engine.load(directory, self.version))
        self._metric("time/hand_over", time.perf_counter() - started)

    @contextmanager
    def _exported(self) -> Iterator[Path]:
        """The adapter in training as files, for a moment. A collective where the weights are sharded."""
        directory = exports.place(self.config.output_dir, self.rank)
        try:
            self.trainer.export(directory)
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _save(self) -> str:
        """Put the trained adapter into the run directory, whole or not at all; the SHA-256 of its weights."""
        place = self.config.output_dir / ADAPTER
        with self._exported() as directory:
            weights = hashlib.sha256((directory / WEIGHTS).read_bytes()).hexdigest()
            if len(set(gather_object([weights]))) > 1:
                raise RuntimeError("the ranks ended with different adapters: their updates were not the same")
            if not self.rank:
                with whole_directory(place) as draft:
                    shutil.copytree(directory, draft, dirs_exist_ok=True)
        return weights

    def _stepped(self, step: int) -> None:
        self.version = self.first + step

    def _observe(self, collected: Collected) -> None:
        played = [p for group in collected.groups for p in group.played]
        self.latest = played
        report = summarise(played)
        sampled = sum(p.episode.cost.sampled_tokens for p in played)
        self._metric("time/rollout", collected.seconds)
        self._metric("rollout/tokens_per_second", sampled / collected.seconds)
        self._metric("rollout/replaced_groups", collected.replaced)
        self._metric("rollout/reused_groups", collected.reused)
        self._metric("rollout/flat_groups", sum(not group.informative for group in collected.groups))
        self._metric("rollout/broken", report.broken)
        self._metric("rollout/unscored", report.unscored)
        if report.success is not None:
            self._metric("success", report.success.mean)
        if report.turns is not None:
            self._metric("turns", report.turns)
        for name, value in signs([group.played for group in collected.groups]).items():
            self._metric(f"signs/{name}", value)

    def _metric(self, name: str, value: float) -> None:
        self.trainer._metrics["train"][name].append(float(value))

    def _log(self, entry: Mapping[str, Any]) -> None:
        self.run.metrics.append(dict(entry))
        if "loss" in entry:
            self.watcher.step(entry["step"], self.trainer.state.max_steps, entry)
