"""The runs of a plan, one after another, each a child process: a crash is one run's, and what is done stays done.

OUTPUT_DIR/
  plan.json                the ablation as it was last asked for
  attempts.jsonl           a line for each start and end of a run (see `rl.journal`)
  bases/DIGEST/            embedded policies, each made once
  ARM/seedN/               an ordinary run directory
  ARM/seedN.yaml, .log     its config, and what it printed
  ARM/seedN.result.json    what it showed (see `rl.ablate.kept`)
  report.md, report.html   and figures/
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from envs.errors import InputError
from rl import tiny
from rl.ablate.kept import kept
from rl.ablate.plan import Cell, Plan
from rl.config import CONFIG
from rl.journal import Journal
from rl.lock import Lock
from rl.ranks import alone
from rl.records import Run
from rl.trees import differing
from rl.whole import write_whole

State = Literal["done", "half", "crashed", "missing"]
"""Of a run: trained to its end, or ended by an alarm; stopped on the way; ended by an error; never begun."""

ENDED = ("trained", "alarmed")
"""The last words of the ledger of a run that is done."""
ATTEMPTS = "attempts.jsonl"
INTERRUPTED = 130


def conduct(
    plan: Plan, say: Callable[[str], None], *, arms: Collection[str] | None = None, seeds: Collection[int] | None = None
) -> bool:
    """Run what is not done yet; False if it was interrupted.

    Raises:
        InputError: another process conducts it, or a run directory holds a run of another plan.
    """
    cells = plan.chosen(arms, seeds)
    plan.path.mkdir(parents=True, exist_ok=True)
    lock = Lock(plan.path / ".lock")
    attempts = Journal(plan.path / ATTEMPTS, writable=True)
    try:
        states = {(cell.arm, cell.seed): state(cell, attempts) for cell in plan.cells}
        write_whole(plan.path / "plan.json", plan.ablation.model_dump_json(indent=1) + "\n")
        todo = [cell for cell in cells if states[cell.arm, cell.seed] != "done"]
        say(f"{len(cells) - len(todo)} of {len(cells)} runs are done")
        started = time.perf_counter()
        for number, cell in enumerate(todo):
            left = (time.perf_counter() - started) / number * (len(todo) - number) if number else None
            eta = "" if left is None else f", about {left / 60:.0f} min left"
            how = "resumed" if (cell.path / CONFIG).exists() else "begun"
            say(f"[{number + 1}/{len(todo)}] {cell}: {how}{eta}")
            if not _attempt(cell, attempts, say):
                return False
        return True
    finally:
        attempts.close()
        lock.close()


def state(cell: Cell, attempts: Journal) -> State:
    """How far a run has come.

    Raises:
        InputError: its directory holds a run with another config, or what was kept is of such a run.
    """
    if (cell.path / CONFIG).exists():
        run = Run.read(cell.path)
        if keys := differing(run.config, cell.config.model_dump(mode="json")):
            raise InputError(
                f"{cell.path} holds a run with another {', '.join(keys)}: name another output_dir, or move that run "
                "out of the way"
            )
        if last_word(run) in ENDED:
            return "done"
    elif kept(cell):
        return "done"
    return "crashed" if crash(cell, attempts) else "half" if cell.path.exists() else "missing"


def crash(cell: Cell, attempts: Journal) -> str | None:
    """Why the last attempt at a run failed; None if it did not."""
    own = [entry for entry in attempts.read() if (entry["arm"], entry["seed"]) == (cell.arm, cell.seed)]
    ends = [entry for entry in own if entry["kind"] == "ended"]
    return ends[-1]["error"] if ends else None


def last_word(run: Run) -> str:
    """Of its ledger: how the run ended, or what it did last."""
    return ([str(entry["kind"]) for entry in run.ledger.read()] or [""])[-1]


def _attempt(cell: Cell, attempts: Journal, say: Callable[[str], None]) -> bool:
    """Start or resume one run, and wait for its end; False if it was interrupted."""
    note = {"arm": cell.arm, "seed": cell.seed}
    started = time.perf_counter()
    attempts.append({**note, "kind": "begun", "time": datetime.now(UTC).isoformat(timespec="seconds")})
    if cell.recipe is not None and not Path(cell.config.model).is_dir():
        alone(tiny.make, cell.config.model, cell.recipe)
    code = _train(cell)
    interrupted = code in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM)
    whole = (cell.path / CONFIG).exists() and last_word(Run.read(cell.path)) in ENDED
    error = None if interrupted or whole else f"exit code {code}: {_last_line(cell)}"
    seconds = time.perf_counter() - started
    attempts.append({**note, "kind": "ended", "code": code, "error": error, "seconds": round(seconds, 1)})
    attempts.flush()
    how = "interrupted; the same command goes on" if interrupted else "crashed, and is kept out" if error else "done"
    say(f"  {how} after {seconds:.0f} s" + (f" ({error}; see {cell.beside('.log')})" if error else ""))
    return not interrupted


def _train(cell: Cell) -> int:
    """The exit code of `rft train` on the cell's config."""
    cell.path.parent.mkdir(parents=True, exist_ok=True)
    file = cell.beside(".yaml")
    file.write_text(json.dumps(cell.config.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    resume = ["--resume"] if (cell.path / CONFIG).exists() else []
    command = [sys.executable, "-m", "rl.cli", "train", str(file), *resume]
    with (
        cell.beside(".log").open("a", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as child,
        _passed_on(child),
    ):
        return child.wait()


@contextmanager
def _passed_on(child: subprocess.Popen[Any]) -> Iterator[None]:
    """A SIGINT or SIGTERM goes to the child, which saves; what comes after is decided by how it ends."""

    def hear(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_line(cell: Cell) -> str:
    log = cell.beside(".log")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].strip() if lines else "it said nothing"
