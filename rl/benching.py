"""`rft grade bench`: is this grader any good, before any training? The answer as text and as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from envs.errors import InputError
from rewards.bench import Job, Options, Report, examine
from rewards.graders import Grader, rows
from rl.drawing import draw
from rl.grading import FAILED, PASSED, open_grader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the bench can be told."""
    usual = Options()
    parser.set_defaults(run=run)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with item, sample and what experts said")
    parser.add_argument(
        "--samples", type=Path, help="JSONL with several samples of each prompt, as the policy draws them"
    )
    parser.add_argument("--policy", metavar="URL", help="draw them from this OpenAI-compatible endpoint instead")
    parser.add_argument("--model", help="and from this model there")
    parser.add_argument("--draw", type=at_least(2), default=8, help="and so many of each prompt")
    parser.add_argument("--group", type=at_least(2), default=usual.group, help="group size of the training to come")
    parser.add_argument("--repeats", type=at_least(1), default=usual.repeats, help="how often a sample is graded")
    parser.add_argument("--probed", type=at_least(1), default=usual.probed, help="how many prompts are probed")
    parser.add_argument("--epochs", type=at_least(1), default=1, help="of the job whose cost is estimated")
    parser.add_argument("--rows", type=at_least(1), help="of that job (default: the prompts in the data)")


def at_least(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` up, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
        return int(text)

    return read


def run(arguments: argparse.Namespace) -> int:
    errors = Console(stderr=True)
    if bool(arguments.policy) != bool(arguments.model) or (arguments.policy and arguments.samples):
        raise InputError("--policy needs --model, and neither goes with --samples")
    grader = open_grader(arguments, errors)
    labelled = rows.read(arguments.data)
    report = asyncio.run(_examined(arguments, grader, labelled, errors))
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=1))
    else:
        Console(soft_wrap=True, highlight=False, markup=False).print("\n".join(lines(report)))
    return PASSED if report.verdict == "go" else FAILED


async def _examined(arguments: argparse.Namespace, grader: Grader, labelled: list[rows.Row], errors: Console) -> Report:
    def phase(name: str) -> None:
        errors.print(f"{name} ...", style="dim")

    drawn = rows.read(arguments.samples) if arguments.samples else None
    if arguments.policy:
        phase(f"drawing {arguments.draw} samples of each prompt")
        drawn = await draw(labelled, url=arguments.policy, model=arguments.model, samples=arguments.draw)
    prompts = arguments.rows or len({row.group for row in labelled})
    options = Options(
        group=arguments.group,
        repeats=arguments.repeats,
        probed=arguments.probed,
        job=Job(rows=prompts, epochs=arguments.epochs, group=arguments.group),
    )
    return await examine(grader, labelled, drawn=drawn, options=options, phase=phase)


def lines(report: Report) -> Iterator[str]:
    """The report for a person: what was measured, what was found, the verdict last."""
    yield f"{report.grader} ({report.hash[:12]}) on {report.samples} samples"
    if report.agreement is not None:
        yield f"  agreement      {report.agreement.method} with the labels {report.agreement.of}"
    for pair, found in report.experts.items():
        yield f"  experts        {found.method} of {pair} {found.of}"
    if (stable := report.stability) is not None:
        differ = f"{stable.differing:.0%} of samples differ over {stable.repeats} grades"
        yield f"  stability      noise {stable.noise:.3f}, {differ}"
        for name, value in (("order", stable.order), ("edits", stable.edits)):
            if value is not None:
                yield f"                 {name} moves the judge by {value:.3f}"
    if (signal := report.signal) is not None:
        span = f"range {signal.low:g} to {signal.high:g}"
        yield f"  headroom       mean {signal.mean:.2f}, best of a prompt {signal.best:.2f}, {span}"
        yield f"                 {signal.at_floor:.0%} of prompts at the floor, {signal.at_ceiling:.0%} at the ceiling"
        shares = ", ".join(f"{share:.0%} of {size}" for size, share in signal.useful.items())
        yield f"  useful groups  {shares}"
    if report.probes:
        honest = "none is labelled" if report.honest_failure is None else f"{report.honest_failure:.2f}"
        yield f"  probes         an honest failure: {honest}"
        yield "                 " + ", ".join(f"{probe.kind} {probe.reward:.2f}" for probe in report.probes)
    cost = report.cost
    here = f"{cost.grading_seconds:,.0f} s one by one, ${cost.grading_money:,.2f}"
    there = f"about {cost.hosted_hours:.1f} h, ${cost.hosted_money:,.0f} and {cost.hosted_judge_tokens:,} judge tokens"
    yield f"  cost           {cost.grades:,} grades: here {here}; hosted {there}"
    for finding in report.findings:
        yield f"{finding.severity:>6}  {finding.kind}: {finding.said}"
    yield f"verdict: {report.verdict}"
