"""The report's figures as SVG: curves with bands, paired differences, and where the credit went."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from envs.errors import InputError
from rl.ablate.credits import Credits
from rl.ablate.findings import Against, Arm, mean_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#999933")
"""Told apart by people who see few colours: Okabe and Ito (2008), and one more."""


def check() -> None:
    """Find out before hours of training whether figures can be drawn.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("the report's figures need matplotlib: pip install 'localrft[report]'") from error


def curves(arms: Sequence[Arm]) -> str:
    """Held-out success and training reward over steps: mean, and lowest to highest run."""
    figure = _figure(9, 3.6)
    success, reward = figure.subplots(1, 2)
    for colour, arm in zip(_colours(len(arms)), arms, strict=True):
        label = f"{arm.name} ({len(arm.runs)})"
        steps, mean, low, high = zip(*mean_curve(arm.runs), strict=True)
        success.plot(steps, mean, color=colour, label=label)
        success.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        common = sorted(set.intersection(*(set(run.reward) for run in arm.runs)))
        paid = [[run.reward[step] for run in arm.runs] for step in common]
        reward.plot(common, [sum(own) / len(own) for own in paid], color=colour)
        reward.fill_between(common, list(map(min, paid)), list(map(max, paid)), color=colour, alpha=0.15, linewidth=0)
        for run in arm.runs:
            for alarm in run.alarms:
                if alarm.action != "warn":
                    success.axvline(alarm.step, color=colour, linewidth=0.8, linestyle=":")
    success.set(xlabel="step", ylabel="held-out success", ylim=(-0.02, 1.02))
    reward.set(xlabel="step", ylabel="training reward")
    success.legend(frameon=False, fontsize=8)
    return _svg(figure)


def differences(against: Sequence[Against]) -> str:
    """Each arm minus the reference: a dot a seed, the mean, and its interval where there is one."""
    figure = _figure(7, 0.9 + 0.5 * len(against))
    axes = figure.subplots()
    for row, other in enumerate(against):
        values = list(other.differences.values())
        axes.plot(values, [row] * len(values), "o", color="#888888", markersize=4)
        paired = other.paired
        if paired.interval is not None:
            axes.plot([paired.interval.low, paired.interval.high], [row, row], color="#000000", linewidth=1.5)
        axes.plot([paired.difference], [row], "|", color="#000000", markersize=14, markeredgewidth=2)
    axes.axvline(0, color="#bbbbbb", linewidth=1)
    axes.set_yticks(range(len(against)), [other.arm for other in against])
    axes.set(xlabel="difference in held-out success", ylim=(len(against) - 0.5, -0.5))
    return _svg(figure)


def heat(credits: Mapping[str, Credits]) -> str:
    """Arms and outcomes against turns: red where turns are made likelier, blue where they are made rarer."""
    rows = [
        (f"{arm}, {kind}", getattr(own, kind)) for arm, own in credits.items() for kind in ("successes", "failures")
    ]
    width = max(len(values) for _, values in rows)
    figure = _figure(2.2 + 0.35 * width, 1.0 + 0.32 * len(rows))
    axes = figure.subplots()
    nan = float("nan")
    grid = [[nan if v is None else v for v in values] + [nan] * (width - len(values)) for _, values in rows]
    largest = max((abs(v) for row in grid for v in row if v == v), default=1.0) or 1.0
    mesh = axes.pcolormesh(grid, cmap="RdBu_r", vmin=-largest, vmax=largest, edgecolors="#ffffff", linewidth=0.5)
    axes.set_yticks([i + 0.5 for i in range(len(rows))], [label for label, _ in rows])
    axes.set_xticks([i + 0.5 for i in range(width)], [str(i + 1) for i in range(width)])
    axes.invert_yaxis()
    axes.set(xlabel="turn")
    figure.colorbar(mesh, ax=axes, label="mean advantage / RMS")
    return _svg(figure)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _figure(width: float, height: float) -> Figure:
    """A figure of its own, without pyplot's global state; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    """The same bytes for the same figure: no date, no random ids."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "localrft", "svg.fonttype": "none"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
