"""Measuring a policy outside a training run: a model, or a model and an adapter."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from envs.errors import InputError
from rl import session
from rl.config import Config, load
from rl.evaluate import Report, summarise
from rl.session import Session
from rl.train import ADAPTER, BASE, model_path
from rl.watch import Watcher


def measure(config: Config, watcher: Watcher) -> dict[str, Report]:
    """Play the held-out tasks, sampled and, where the config says so, greedy.

    The embedded policy is made under `output_dir` if it is not there.
    """
    model, _ = model_path(config, PartialState(cpu=True), watcher)
    tasks = session.tasks(config, config.env.evaluate)[: config.evaluate.tasks]
    reports = {}
    with Session(config, model) as playing:
        playing.serve_adapter()
        for name, temperature, samples in (("greedy", 0.0, 1), ("sampled", None, config.evaluate.samples)):
            if name == "greedy" and not config.evaluate.greedy:
                continue
            watcher.phase(name, len(tasks) * samples)
            played = playing.play(
                tasks, temperature=temperature, samples=samples, on_played=lambda index, played: watcher.advance()
            )
            reports[name] = summarise(played)
    return reports


def load_run(path: Path, *overrides: str) -> Config:
    """A config file as it is; of a run directory its resolved config, with the adapter it made.

    Raises:
        InputError: the directory holds no run, or a run that has made no adapter yet.
    """
    if not path.is_dir():
        return load(path, *overrides)
    if not (path / "config.json").exists():
        raise InputError(f"{path} holds no run (there is no config.json); name a config file or a run directory")
    if not (path / ADAPTER).is_dir():
        raise InputError(f"{path} has no {ADAPTER}/ yet: train it to the end, or name a checkpoint as adapter=PATH")
    model = [f"model={path / BASE}", "tiny={}"] if (path / BASE).is_dir() else []
    return load(path / "config.json", f"adapter={path / ADAPTER}", *model, *overrides)
