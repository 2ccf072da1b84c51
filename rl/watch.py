"""What is told of long work as it goes, and how a terminal shows it: a bar, an ETA, the numbers that matter."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Watcher:
    """Hears of a run, and ignores it. `Screen` is the one that shows it."""

    def say(self, text: str) -> None:
        """Something a person should know."""

    def phase(self, name: str, total: int) -> None:
        """Work begins that has `total` parts."""

    def advance(self, parts: int = 1, **numbers: Any) -> None:
        """Parts of it are done; `numbers` are shown beside the bar."""

    def step(self, step: int, total: int, numbers: Mapping[str, Any]) -> None:
        """A training step is done."""


SHOWN = {"success": "success {:.2f}", "reward": "reward {:.2f}", "rollout/tokens_per_second": "{:,.0f} tok/s"}
"""Metrics beside the bar of a training run."""


class Screen(Watcher):
    """Bars on a terminal; plain lines where it is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._phase = self._bars.add_task("", visible=False, numbers="")
        self._steps = self._bars.add_task("training", visible=False, numbers="")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def phase(self, name: str, total: int) -> None:
        self._bars.reset(self._phase, total=total, description=name, visible=True, numbers="")
        if not self._console.is_terminal and not name.startswith("step "):
            self._console.print(f"{name} ...", highlight=False)

    def advance(self, parts: int = 1, **numbers: Any) -> None:
        shown = " ".join(f"{name} {value}" for name, value in numbers.items())
        self._bars.update(self._phase, advance=parts, numbers=shown)

    def step(self, step: int, total: int, numbers: Mapping[str, Any]) -> None:
        shown = "  ".join(form.format(numbers[name]) for name, form in SHOWN.items() if name in numbers)
        self._bars.update(self._steps, completed=step, total=total, visible=True, numbers=shown)
        if not self._console.is_terminal:
            self._console.print(f"step {step}/{total}  {shown}", highlight=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
