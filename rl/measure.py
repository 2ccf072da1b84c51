"""Measuring a policy outside a training run: a model, or a model and an adapter."""

from __future__ import annotations

from accelerate import PartialState

from rl import scene
from rl.config import Config
from rl.evaluate import Report, summarise
from rl.opening import model_path
from rl.session import Session, check
from rl.watch import Watcher


def measure(config: Config, watcher: Watcher) -> dict[str, Report]:
    """Play the held-out tasks, sampled and, where the config says so, greedy.

    The embedded policy is made under `output_dir` if it is not there.
    """
    check(config)
    scene.check_groups(config)
    model, _ = model_path(config, PartialState(cpu=True), watcher)
    tasks = scene.tasks(config, config.env.evaluate)[: config.evaluate.tasks]
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
            if (judged := playing.judge(played)) is not None:
                reports[f"{name}, holdout"] = summarise(judged)
    return reports
