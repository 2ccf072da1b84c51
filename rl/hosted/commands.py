"""`rft import` and `rft export`: hosted jobs made into projects, and projects into what other trainers take."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from rl.hosted import bundle
from rl.hosted.bring import CONFIG, bring
from rl.hosted.export import TARGETS, export, of_bundle


def add_import(parser: argparse.ArgumentParser) -> None:
    """What `rft import` takes."""
    parser.add_argument("--train", type=Path, required=True, metavar="FILE", help="JSONL rows")
    parser.add_argument("--valid", type=Path, required=True, metavar="FILE", help="JSONL rows")
    parser.add_argument("--grader", type=Path, metavar="FILE", help="grader JSON, if the job does not hold it")
    parser.add_argument("--job", type=Path, metavar="FILE", help="the body of the job, or the job object")
    parser.add_argument("--model", help="what to train here: a directory, a name on the Hub, or tiny")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the project to make")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change in the config")
    parser.set_defaults(run=_import)


def add_export(parser: argparse.ArgumentParser) -> None:
    """What `rft export` takes."""
    parser.add_argument("project", type=Path, help="the folder of a bundle, or its job.json")
    parser.add_argument("--to", required=True, choices=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_export)


def _import(arguments: argparse.Namespace) -> int:
    plan = bring(
        arguments.out,
        train=arguments.train,
        valid=arguments.valid,
        grader=arguments.grader,
        job=arguments.job,
        model=arguments.model,
        overrides=arguments.overrides,
    )
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in plan.said:
        console.print(line)
    console.print(f"{plan.steps} steps; train it with: rft train {arguments.out / CONFIG}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    lost = export(of_bundle(bundle.load(arguments.project)), arguments.to, arguments.out)
    if arguments.json:
        print(json.dumps({"target": arguments.to, "folder": str(arguments.out), "lost": lost}, indent=1))
        return 0
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"written to {arguments.out}; what {arguments.to} can't express:")
    for line in lost:
        console.print(f"- {line}")
    return 0
