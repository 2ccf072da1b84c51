"""`rft reward-model`: a reward model from the episodes of runs, and how good it is on tasks it did not see."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from envs.errors import InputError
from rl.benching import at_least
from rl.learned import measure
from rl.learned.making import Options, make
from rl.learned.record import RECORD

DONE = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `rft reward-model` can be told."""
    usual = Options(kind="outcome")
    parser.set_defaults(run=run)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories with recorded episodes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the model is to be")
    parser.add_argument("--kind", choices=["outcome", "process"], required=True, help="what it scores: ends, or turns")
    parser.add_argument(
        "--rerolls", type=int, default=0, metavar="N", help="process: play on N times from the middle of each episode"
    )
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--steps", type=at_least(1), default=usual.steps, help="of training")
    parser.add_argument("--batch", type=at_least(1), default=usual.batch, help="pairs or episodes a step")
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate)
    parser.add_argument("--lora", type=at_least(1), metavar="RANK", help="train an adapter (default: all weights)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.rerolls < 0 or arguments.learning_rate <= 0:
        raise InputError("--rerolls is 0 or more, and --learning-rate is above 0")
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    given = {name: getattr(arguments, name) for name in Options.__slots__}
    found = make(arguments.runs, arguments.out, Options(**given), errors.print)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in measure.lines(found):
        console.print(line)
    console.print(f"reward model: {arguments.out} ({RECORD} says what it was made of)")
    return DONE
