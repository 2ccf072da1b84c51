"""Tables a person looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from rl.doctor import Check, Verdict
from rl.evaluate import Report
from rl.stats import Estimate


def comparison(policies: Mapping[str, Mapping[str, Report]]) -> Table:
    """Success side by side: a row a policy, a column a way to decode.

    Args:
        policies: policy -> decoding -> its report, as in {"base": {"greedy": ..., "sampled": ...}, "trained": ...}.
    """
    decodings = list(dict.fromkeys(name for reports in policies.values() for name in reports))
    measured = [report for reports in policies.values() for report in reports.values()]
    tasks = sorted({report.tasks for report in measured})
    table = Table(title=f"Success on {' or '.join(map(str, tasks))} held-out tasks (95 % interval)")
    table.add_column("policy")
    for name in decodings:
        table.add_column(name, justify="right")
    for policy, reports in policies.items():
        table.add_row(policy, *(percent(reports[name].success) if name in reports else "" for name in decodings))
    return table


def details(reports: Mapping[str, Report]) -> Table:
    """Everything an evaluation measured: a column each."""
    table = Table()
    table.add_column("")
    for name in reports:
        table.add_column(name, justify="right")
    rows = {name: _lines(report) for name, report in reports.items()}
    for label in dict.fromkeys(label for lines in rows.values() for label in lines):
        table.add_row(label, *(lines.get(label, "") for lines in rows.values()))
    return table


def checks(found: Sequence[Check]) -> Table:
    """What `rft doctor` found."""
    table = Table(show_header=False, box=None, pad_edge=False)
    colours: dict[Verdict, str] = {"ok": "green", "warn": "yellow", "missing": "red"}
    for check in found:
        remedy = f"\n[dim]-> {escape(check.remedy)}[/dim]" if check.remedy else ""
        verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
        table.add_row(verdict, check.name, escape(check.detail) + remedy)
    return table


def _lines(report: Report) -> dict[str, str]:
    lines = {"success": percent(report.success), "score": number(report.score)}
    lines |= {f"pass@{k}": number(value) for k, value in report.pass_at.items() if k > 1}
    lines |= {f"pass^{k}": number(value) for k, value in report.pass_hat.items() if k > 1}
    lines |= {
        "turns": number(report.turns),
        "sampled tokens": number(report.sampled_tokens),
        "tool calls": number(report.tool_calls),
        "seconds an episode": number(report.seconds),
        "tasks": str(report.tasks),
        "episodes": str(report.episodes),
    }
    lines |= {f"ended: {stop}": str(count) for stop, count in report.stops.items()}
    lines |= {f"calls: {fault}": str(count) for fault, count in report.tool_faults.items()}
    left_out = {"left out: broken": report.broken, "left out: unscored": report.unscored}
    return lines | {label: str(count) for label, count in left_out.items() if count}


def percent(estimate: Estimate | None) -> str:
    """As in `96.5 % (93.0 to 98.3)`."""
    if estimate is None:
        return "not measured"
    return f"{estimate.mean:.1%} ({estimate.low * 100:.1f} to {estimate.high * 100:.1f})".replace("%", " %")


def number(value: float | None) -> str:
    """Three digits, or the word that there is none."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
