"""Reward models learned from episodes of the embedded policy, shown on tasks they did not see.

The policy at the desk plays each task eight times, untrained, and what it played is recorded as a run does it. An
outcome model and a process model learn from that; `rft reward-model` measures both on held-out tasks. About 25
minutes on two CPU cores, and nothing is downloaded:

    python scripts/learned.py --out runs/learned
    python scripts/learned.py --out runs/learned --tasks 60 --steps 60      # a look at it, in five minutes
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rl import scene, tiny
from rl.cli import main
from rl.collect import Collector
from rl.config import Config, load
from rl.feed import Feed
from rl.records import Run

SAMPLES = 8
DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"


def sample(config: Config, tasks: int) -> None:
    """A run that plays and does not learn: so many tasks, eight episodes each."""
    from rl.session import Session
    from rl.train import resolved

    with Run.create(config.output_dir, resolved(config)) as run, Session(config, config.model) as session:
        feed = Feed(scene.tasks(config, config.env.train), config.seed)
        collector = Collector(player=session.player, feed=feed, log=run, group_size=SAMPLES)
        session.loop.run(collector.collect(session.policy(seed=config.seed), step=0, groups=tasks))


def experiment(arguments: argparse.Namespace) -> int:
    """Make what is not there yet, then both models. The exit code of the last that failed."""
    out = arguments.out
    made = tiny.make(out / "base")
    config = load(DEMO, f"model={made.directory}", f"output_dir={out / 'episodes'}", f"seed={arguments.seed}")
    if not config.output_dir.exists():
        sample(config, arguments.tasks)
    given = [str(config.output_dir), "--seed", str(arguments.seed), "--steps", str(arguments.steps)]
    codes = [
        main(["reward-model", *given, "--kind", "outcome", "--out", str(out / "outcome")]),
        main(["reward-model", *given, "--kind", "process", "--out", str(out / "process")]),
        main(["reward-model", *given, "--kind", "process", "--rerolls", "4", "--out", str(out / "rerolled")]),
    ]
    return max(codes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    raise SystemExit(experiment(parser.parse_args()))
