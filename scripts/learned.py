"""Reward models learned from episodes of the embedded policy, shown on tasks they did not see.

The policy at the desk plays each task eight times, untrained, and what it played is recorded as a run does it. An
outcome model and two process models, one of them with re-rolls, learn from that; `rft reward-model` measures them on
held-out tasks. On CPU alone, and nothing is downloaded:

    python scripts/learned.py --out runs/learned
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
MODELS = {
    "outcome": ("--kind", "outcome", "--steps", "60"),
    "process": ("--kind", "process", "--steps", "100"),
    "rerolled": ("--kind", "process", "--steps", "200", "--rerolls", "4"),
}
DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"


def sample(config: Config, tasks: int) -> None:
    """A run that plays and does not learn: so many tasks, eight episodes each."""
    from rl.opening import resolved
    from rl.session import Session

    with Run.create(config.output_dir, resolved(config)) as run, Session(config, config.model) as session:
        feed = Feed(scene.tasks(config, config.env.train), config.seed)
        collector = Collector(player=session.player, feed=feed, log=run, group_size=SAMPLES)
        session.loop.run(collector.collect(session.policy(seed=config.seed), step=0, groups=tasks))


def experiment(out: Path, tasks: int, seed: int) -> int:
    """Make what is not there yet, then the models. The exit code of the first that failed."""
    made = tiny.make(out / "base")
    config = load(DEMO, f"model={made.directory}", f"output_dir={out / 'episodes'}", f"seed={seed}")
    if not config.output_dir.exists():
        sample(config, tasks)
    for name, options in MODELS.items():
        given = [str(config.output_dir), "--seed", str(seed), "--out", str(out / name), *options]
        if code := main(["reward-model", *given]):
            return code
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    raise SystemExit(experiment(given.out, given.tasks, given.seed))
