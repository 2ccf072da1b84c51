"""Findings in words, tables and figures, made of records alone."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from envs.errors import InputError
from rl.ablate import figures
from rl.ablate.conduct import ATTEMPTS, crash, state
from rl.ablate.credits import Credits, credits
from rl.ablate.findings import Against, Arm, Findings, alarm_story, findings
from rl.ablate.kept import keep, kept
from rl.ablate.page import Block, Figure, Heading, Listing, Table, Text, markdown, whole_html
from rl.ablate.plan import Ablation, Plan
from rl.ablate.results import CONFOUNDS, Result
from rl.journal import Journal
from rl.stats import Estimate
from rl.whole import write_whole

MARKDOWN, HTML = "report.md", "report.html"


def write(plan: Plan) -> Findings:
    """Read the records of all finished runs, and write the report beside them.

    Raises:
        InputError: there is nothing to report yet, or a record is damaged.
    """
    attempts = Journal(plan.path / ATTEMPTS)
    states = {(cell.arm, cell.seed): state(cell, attempts) for cell in plan.cells}
    done = [cell for cell in plan.cells if states[cell.arm, cell.seed] == "done"]
    if not done:
        raise InputError(f"{plan.path}: no run is finished yet, so that there is nothing to report")
    left_out = [
        f"{cell}: {_why(states[cell.arm, cell.seed], crash(cell, attempts))}" for cell in plan.cells if cell not in done
    ]
    results = [kept(cell) or keep(cell) for cell in done]
    found = findings(plan.ablation, results, left_out=left_out, warnings=plan.warnings)
    by_arm = {arm.name: credits([run.credit for run in arm.runs]) for arm in found.arms}
    page = blocks(found, by_arm)
    title = f"Ablation: {plan.path.name}"
    write_whole(plan.path / MARKDOWN, markdown([Heading(title, 1), *page]))
    write_whole(plan.path / HTML, whole_html(title, [Heading(title, 1), *page]))
    _write_figures(plan.path / "figures", [block for block in page if isinstance(block, Figure)])
    return found


def _why(state: str, error: str | None) -> str:
    return {"crashed": f"crashed ({error})", "half": "not finished", "missing": "not begun"}[state]


def _write_figures(directory: Path, drawn: Sequence[Figure]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for figure in drawn:
        write_whole(directory / f"{figure.name}.svg", figure.svg)


def blocks(found: Findings, by_arm: Mapping[str, Credits | None]) -> list[Block]:
    """The whole report."""
    known = {name: own for name, own in by_arm.items() if own is not None}
    page = [*_summary(found), *_loud(found), *_success(found), *_power(found), *_passes(found.arms)]
    page += [*_efficiency(found), *_cost(found.arms), *_confounds(found.arms)]
    if known:
        unknown = [name for name in by_arm if name not in known]
        caption = "Mean advantage by turn in recorded groups with successes and failures, over the arm's RMS."
        if unknown:
            caption += f" Of {', '.join(unknown)} the records hold no values, or no group had both."
        page += [Heading("Where the credit went"), Figure("credit", figures.heat(known), caption)]
    return [*page, *_alarms(found.arms), *_made(found)]


def _summary(found: Findings) -> list[Block]:
    ablation, arms = found.ablation, found.arms
    seeds = sorted({seed for arm in arms for seed in arm.success})
    return [
        Text(
            f"{len(arms)} arms, {sum(len(arm.runs) for arm in arms)} finished runs, seeds {_list(seeds)}; the "
            f"reference is `{ablation.first}`. Success is what the holdout grader says of held-out tasks, sampled, as "
            f"the mean of the last {ablation.last} evaluations of a run. Arms of one seed share the base policy, the "
            "tasks and their order. Intervals hold 95 %."
        ),
        Listing(headlines(found)),
    ]


def headlines(found: Findings) -> list[str]:
    """A line for each comparison."""
    lines = [_said(other, found.ablation.first) for other in found.against]
    return lines or [f"there is no arm to compare with {found.ablation.first} yet"]


def _said(other: Against, reference: str) -> str:
    paired = other.paired
    seen = f"`{other.arm}`: {paired.difference:+.3f} against `{reference}` over {paired.seeds} paired seeds"
    if not other.tested:
        return f"{seen}; not tested, since `compare` does not name it"
    if paired.adjusted is None:
        return f"{seen}; {paired.pilot}"
    if paired.adjusted > 0.05:
        return f"{seen}: no difference detectable (p = {paired.adjusted:.3f})"
    return f"{seen}: {other.verdict} (p = {paired.adjusted:.3f})"


def _loud(found: Findings) -> list[Block]:
    page: list[Block] = []
    if found.warnings:
        page += [Heading("Not the same in all runs"), Listing(found.warnings)]
    if found.left_out:
        page += [Heading("Left out"), Listing(found.left_out)]
    return page


def _success(found: Findings) -> list[Block]:
    rows = [
        [
            arm.name,
            str(len(arm.runs)),
            _interval(arm.iqm, arm.interval),
            f"{fmean(arm.success.values()):.3f}",
            ", ".join(f"{seed}: {value:.3f}" for seed, value in arm.success.items()),
        ]
        for arm in found.arms
    ]
    page: list[Block] = [
        Heading("Success"),
        Table(["arm", "runs", "interquartile mean", "mean", "by seed"], rows),
        Figure(
            "curves",
            figures.curves(found.arms),
            "Held-out success and training reward: means, and from the lowest to the highest run. Dotted lines are "
            "alarms that call for a stop or a way back.",
        ),
    ]
    if not found.against:
        return page
    table = [
        [
            other.arm,
            str(other.paired.seeds),
            f"{other.paired.difference:+.3f}",
            "" if other.paired.interval is None else _pair(other.paired.interval),
            "" if other.paired.p is None else f"{other.paired.p:.3f}",
            "" if other.paired.adjusted is None else f"{other.paired.adjusted:.3f}",
            f"{other.wins:.2f}",
            other.verdict,
        ]
        for other in found.against
    ]
    header = ["arm", "paired seeds", "difference", "interval", "p", "p (Holm)", "chance to win", "finding"]
    caption = f"Success minus that of {found.ablation.first} with the same seed: each seed, the mean, its interval."
    return [
        *page,
        Heading(f"Against {found.ablation.first}"),
        Table(header, table),
        Figure("differences", figures.differences(found.against), caption),
    ]


def _power(found: Findings) -> list[Block]:
    """What these seeds could have shown."""
    lines = []
    for other in found.against:
        if other.detectable is None:
            lines.append(f"`{other.arm}`: with {other.paired.seeds} paired seeds no difference could come to p <= 0.05")
        else:
            lines.append(
                f"`{other.arm}`: with {other.paired.seeds} paired seeds that differ as these do, a true difference "
                f"under {other.detectable:.3f} is found less than four times in five"
            )
    return [Text("What so many seeds can show:"), Listing(lines)] if lines else []


def _passes(arms: Sequence[Arm]) -> list[Block]:
    ks = sorted({k for arm in arms for run in arm.runs for k in run.pass_at})
    if ks in ([], [1]):
        return []
    rows = []
    for arm in arms:
        for label, of in (("pass@k", "pass_at"), ("pass^k", "pass_hat")):
            values = [[getattr(run, of)[k] for run in arm.runs if k in getattr(run, of)] for k in ks]
            rows.append([f"{arm.name}, {label}", *(f"{fmean(own):.3f}" if own else "" for own in values)])
    return [Heading("Several samples of one task"), Table(["k", *map(str, ks)], rows)]


def _efficiency(found: Findings) -> list[Block]:
    threshold, rows = found.ablation.threshold, []
    for arm in found.arms:
        points = [point for run in arm.runs if (point := run.reached(threshold)) is not None]
        there = (
            [f"{median(p.step for p in points):g}", f"{median(p.tokens for p in points):,.0f}"] if points else ["", ""]
        )
        rows.append([arm.name, f"{len(points)} of {len(arm.runs)}", *there])
    return [
        Heading(f"Steps and tokens to a success of {threshold:g}"),
        Text("Of the runs that came there: the median of the first evaluation that did."),
        Table(["arm", "runs that came there", "steps", "sampled tokens"], rows),
    ]


def _cost(arms: Sequence[Arm]) -> list[Block]:
    names = {
        "steps": "steps",
        "episodes": "episodes",
        "sampled_tokens": "sampled tokens",
        "prompt_tokens": "prompt tokens",
        "tool_calls": "tool calls",
        "graded": "scores by grader files",
        "seconds": "seconds of training",
        "money": "US dollars",
    }
    shown = [name for name in names if any(getattr(run.spent, name) for arm in arms for run in arm.runs)]
    rows = [[arm.name, *(f"{fmean(getattr(run.spent, n) for run in arm.runs):,.0f}" for n in shown)] for arm in arms]
    return [
        Heading("What a run cost"),
        Text("Means over runs, of training; evaluations come on top, the same for all."),
        Table(["arm", *(names[name] for name in shown)], rows),
    ]


def _confounds(arms: Sequence[Arm]) -> list[Block]:
    rows = []
    for name in CONFOUNDS:
        values = [[run.confounds[name] for run in arm.runs if name in run.confounds] for arm in arms]
        if any(values):
            rows.append([name, *(f"{fmean(own):.3g}" if own else "" for own in values)])
    return [
        Heading("Confounds"),
        Text(
            "Means over steps and runs. An arm whose advantages are larger, or reach more tokens, takes larger steps; "
            "`credit.rms` gives all arms the same."
        ),
        Table(["", *(arm.name for arm in arms)], rows),
    ]


def _alarms(arms: Sequence[Arm]) -> list[Block]:
    rows = [_alarm_row(run) for arm in arms for run in arm.runs]
    heard = [
        [arm.name, ", ".join(f"{name} ({count})" for name, count in _counted(arm.runs).most_common()) or "none"]
        for arm in arms
    ]
    return [
        Heading("Alarms"),
        Text(
            "The first alarm of a detector that holds pay against success; when one that may stop a run was confirmed, "
            "by another or by being heard twice in a row; the evaluation at which success was under half of its best; "
            "and by how many evaluations the first alarm came before that."
        ),
        Table(["run", "first alarm", "confirmed", "best success", "lost", "evaluations ahead"], rows),
        Text("Everything heard, by detector and evaluations:"),
        Table(["arm", "alarms"], heard),
    ]


def _alarm_row(run: Result) -> list[str]:
    first, ahead = alarm_story(run)
    confirmed = next((alarm for alarm in run.alarms if alarm.action != "warn"), None)
    ended = ", which ended the run" if run.alarmed else ""
    return [
        f"{run.arm}, seed {run.seed}",
        "none" if first is None else f"{first.detector}, step {first.step}",
        "no" if confirmed is None else f"step {confirmed.step}{ended}",
        f"{run.best.success:.3f}, step {run.best.step}",
        "never" if run.lost is None else f"{run.lost.success:.3f}, step {run.lost.step}",
        "" if ahead is None else str(ahead),
    ]


def _counted(runs: Sequence[Result]) -> Counter[str]:
    return Counter(alarm.detector for run in runs for alarm in run.alarms)


def _made(found: Findings) -> list[Block]:
    ablation = found.ablation
    changes = {name: _changes(ablation, name) for name in ablation.arms}
    revisions = {str(run.versions.get("revision")) for arm in found.arms for run in arm.runs}
    packages = {
        name: v for arm in found.arms for run in arm.runs for name, v in run.versions.get("packages", {}).items()
    }
    return [
        Heading("How it was made"),
        Table(["arm", "what it changes"], [[name, text] for name, text in changes.items()]),
        Listing(
            [
                f"base: `{ablation.base}`, with `{json.dumps(ablation.common)}`",
                f"holdout grader: `{json.dumps(ablation.holdout)}`",
                f"evaluated every {ablation.evaluate_every} steps, from step 0",
                f"code revision: {_list(sorted(revisions))}",
                f"packages: {', '.join(f'{name} {version}' for name, version in sorted(packages.items()))}",
            ]
        ),
    ]


def _changes(ablation: Ablation, name: str) -> str:
    changes = ablation.arms[name].set
    return "nothing" if not changes else "; ".join(f"`{key}: {json.dumps(value)}`" for key, value in changes.items())


def _interval(mean: float, interval: Estimate | None) -> str:
    return f"{mean:.3f}" if interval is None else f"{mean:.3f} {_pair(interval)}"


def _pair(interval: Estimate) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _list(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
