"""A training run from its config to its adapter: what is built, in which order, and what is kept."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from accelerate import PartialState
from pydantic import TypeAdapter, ValidationError
from transformers import Qwen3Config, set_seed

from envs.errors import InputError
from rl import checkpoint, scene, session, tiny
from rl.collect import Collected, Collector
from rl.config import ADAPTER, BASE, Config, nearest
from rl.evaluate import Report, summarise
from rl.feed import Feed
from rl.records import Run
from rl.samples import Sample, samples
from rl.session import Session, read_network
from rl.trainers.callbacks import Interrupt, Metrics, OnStep, Seal
from rl.trainers.grpo import EpisodeGRPOTrainer
from rl.trainers.settings import check_targets, grpo_config, lora_config
from rl.watch import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How a run ended."""

    run: Path
    steps: int
    interrupted: bool
    seconds: float


class Training:
    """One process's part of a run: its engine, its trainer, its records."""

    def __init__(self, config: Config, *, resume: bool, watcher: Watcher) -> None:
        self.config, self.watcher = config, watcher
        self.process = PartialState(cpu=not _on_gpu())
        self.rank = self.process.process_index
        self.args = grpo_config(config, config.output_dir)
        self.lora = lora_config(config.lora)
        self.tasks = scene.tasks(config, config.env.train)
        self._check()
        before = _entries(config.output_dir)
        self.run = self._open_run(resume)
        try:
            self.start = checkpoint.newest(config.output_dir) if resume else None
            self.limit, self.args.save_total_limit = self.args.save_total_limit, None
            self.model, self.warm_start_seconds = model_path(config, self.process, watcher)
            self.session = Session(config, self.model)
            self.trainer = self._trainer()
        except BaseException as error:
            self.close()
            if isinstance(error, InputError) and not resume and not self.rank:
                _take_back(config.output_dir, before)
            raise

    def _check(self) -> None:
        """Everything that can be wrong with the config and be seen before the run directory is made."""
        if self.config.adapter is not None:
            raise InputError(
                "adapter: training starts from the model alone; remove the key, or merge the adapter first"
            )
        session.check(self.config)
        recipe = tiny_recipe(self.config)
        made = Qwen3Config(num_hidden_layers=recipe.shape.layers)
        check_targets(made if self.config.model == "tiny" else read_network(self.config.model), self.lora)

    def _open_run(self, resume: bool) -> Run:
        path = self.config.output_dir
        if resume or self.rank:
            self.process.wait_for_everyone()
            run = Run.resume(path, rank=self.rank)
            if run.config != resolved(self.config):
                raise InputError(
                    f"{path} was made with another config; resume with {path}/config.json, or name another"
                )
        else:
            run = Run.create(path, resolved(self.config))
        if not self.rank:
            checkpoint.sweep(path)
        if not resume and not self.rank:
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
        self.interrupt = Interrupt(self.watcher.say)
        set_seed(self.config.seed)
        trainer = EpisodeGRPOTrainer(
            model=self.model,
            args=self.args,
            tokenizer=self.session.tokenizer,
            lora=self.lora,
            rollout=self._rollout,
            tasks=len(self.tasks),
            callbacks=[
                OnStep(self._stepped),
                Metrics(self._log),
                Seal(self.config.output_dir, lambda: {"dealt": self.feed.dealt, "version": self.version}, self.limit),
                self.interrupt,
            ],
        )
        self.version = int(state.get("version", 0))
        return trainer

    def train(self) -> Trained:
        """Train to the end, or to the first SIGINT; write the adapter."""
        started = time.perf_counter()
        if self.start and not self.rank:
            self.run.rewind(checkpoint.step_of(self.start))
            self.run.note("resumed", checkpoint=self.start.name)
        self.trainer.train(resume_from_checkpoint=str(self.start) if self.start else None)
        steps = self.trainer.state.global_step
        self._export(self.config.output_dir / ADAPTER)
        if not self.rank:
            self.run.note("interrupted" if self.interrupt.asked else "trained", step=steps, version=self.version)
        self.run.flush()
        return Trained(
            run=self.config.output_dir,
            steps=steps,
            interrupted=self.interrupt.asked,
            seconds=time.perf_counter() - started,
        )

    def measure(self, label: str, *, greedy: bool) -> Report:
        """Play the held-out tasks with the weights as they are now, and record how it went."""
        self._hand_over()
        config = self.config.evaluate
        tasks = scene.tasks(self.config, self.config.env.evaluate)[: config.tasks]
        repeats = 1 if greedy else config.samples
        self.watcher.phase(f"{label}, {'greedy' if greedy else 'sampled'}", len(tasks) * repeats)
        played = self.session.play(
            tasks,
            temperature=0.0 if greedy else None,
            samples=repeats,
            on_played=lambda index, played: self.watcher.advance(),
        )
        report = summarise(played)
        if not self.rank:
            self.run.evaluated(
                f"{label}/{'greedy' if greedy else 'sampled'}", self.trainer.state.global_step, report, played
            )
        return report

    def close(self) -> None:
        """Stop the engine, let go of the run directory. Idempotent."""
        if hasattr(self, "session"):
            self.session.close()
        self.run.close()

    def _rollout(self, step: int, rows: int) -> list[Sample]:
        self._hand_over()
        size = self.args.num_generations
        self.watcher.phase(f"step {step + 1}", rows)
        seed = self.config.seed if self.config.deterministic else None
        collected = self.session.loop.run(self.collector.collect(self.session.policy(seed=seed), step, rows // size))
        self.run.flush()
        self._observe(collected)
        filler = self.session.tokenizer.pad_token_id
        credit = self.config.credit
        return [sample for group in collected.groups for sample in samples(group, credit.name, credit.options, filler)]

    def _hand_over(self) -> None:
        """Give the engine the adapter in training, unless it has it."""
        if self.session.engine.version == self.version:
            return
        started = time.perf_counter()
        directory = Path("/dev/shm" if Path("/dev/shm").is_dir() else self.config.output_dir)
        directory = directory / f"localrft-{os.getpid()}-v{self.version}"
        self._export(directory)
        try:
            self.session.loop.run(self.session.engine.load(directory, self.version))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        self._metric("time/hand_over", time.perf_counter() - started)

    def _export(self, directory: Path) -> None:
        self.trainer.export(directory)

    def _stepped(self, step: int) -> None:
        self.version = step

    def _observe(self, collected: Collected) -> None:
        played = [p for group in collected.groups for p in group.played]
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

    def _metric(self, name: str, value: float) -> None:
        self.trainer._metrics["train"][name].append(float(value))

    def _log(self, entry: Mapping[str, Any]) -> None:
        self.run.metrics.append(dict(entry))
        if "loss" in entry:
            self.watcher.step(entry["step"], self.trainer.state.max_steps, entry)


def _entries(directory: Path) -> set[Path] | None:
    return set(directory.iterdir()) if directory.is_dir() else None


def _take_back(directory: Path, before: set[Path] | None) -> None:
    """Remove what has come into a directory since `before`; all of it if it was not there."""
    for path in (_entries(directory) or set()) - (before or set()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if before is None:
        directory.rmdir()


def resolved(config: Config) -> dict[str, Any]:
    """The config as it is kept beside the results."""
    return config.model_dump(mode="json")


def model_path(config: Config, process: PartialState, watcher: Watcher) -> tuple[str, float]:
    """Where the base model is, and the seconds it took to make the embedded one, if it is that."""
    if config.model != "tiny":
        return config.model, 0.0
    recipe = tiny_recipe(config)
    directory = config.output_dir / BASE
    seconds = 0.0
    if process.is_main_process:
        watcher.phase("warm start", recipe.steps)
        seconds = tiny.make(directory, recipe, progress=lambda step, *_: watcher.advance()).seconds
    process.wait_for_everyone()
    return str(directory), seconds


def tiny_recipe(config: Config) -> tiny.Recipe:
    """How the embedded policy is made, as the section `tiny` says.

    Raises:
        InputError: a key that a recipe does not have, or a wrong type.
    """
    _refuse_unknown(tiny.Recipe, config.tiny, "tiny")
    try:
        return TypeAdapter(tiny.Recipe).validate_python({"seed": config.seed} | config.tiny)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(map(str, item["loc"]))
        raise InputError(f"tiny.{key}: {item['msg']}, not {item['input']!r}") from error


def _refuse_unknown(kind: Any, given: Mapping[str, Any], where: str) -> None:
    """Pydantic passes over keys that a dataclass does not have, at any depth."""
    hints = get_type_hints(kind)
    for name, value in given.items():
        if name not in hints:
            raise InputError(f"{where}: unknown key {name!r}{nearest(name, hints)}")
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            _refuse_unknown(hints[name], value, f"{where}.{name}")


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
