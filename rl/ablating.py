"""`rft ablate`: the runs of a plan that are not done yet, then the report on all that are."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from rl.ablate import figures, report
from rl.ablate.conduct import conduct
from rl.ablate.plan import read

DONE, CRASHED, INTERRUPTED = 0, 3, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `rft ablate` can be told."""
    parser.set_defaults(run=run)
    parser.add_argument("config", type=Path, help="a YAML file with base, arms and seeds")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="of the ablation, or else a setting of all its runs"
    )
    parser.add_argument("--arms", type=names, help="run only these in this sitting, as in outcome,process")
    parser.add_argument("--seeds", type=numbers, help="run only these in this sitting, as in 0,1")
    parser.add_argument("--report-only", action="store_true", help="run nothing: write the report anew")


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between, for argparse."""
    if not all(name.isdecimal() for name in names(text)):
        raise argparse.ArgumentTypeError(f"expected seeds with commas between, as in 0,1, found {text!r}")
    return [int(name) for name in names(text)]


def run(arguments: argparse.Namespace) -> int:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    figures.check()
    plan = read(arguments.config, *arguments.overrides)
    for warning in plan.warnings:
        console.print(f"mind: {warning}")
    if not arguments.report_only and not conduct(plan, console.print, arms=arguments.arms, seeds=arguments.seeds):
        return INTERRUPTED
    found = report.write(plan)
    for line in (*report.headlines(found), *(f"left out: {why}" for why in found.left_out)):
        console.print(line)
    console.print(f"report: {plan.path / report.MARKDOWN} and {report.HTML}")
    return CRASHED if any("crashed" in why for why in found.left_out) else DONE
