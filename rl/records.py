"""The run directory: what was asked, what ran it, and everything that happened.

    config.json               the resolved config
    versions.json             packages, revision, machine
    episodes.jsonl            every training episode, a group at a time; rank r > 0 writes episodes.r.jsonl
    metrics.jsonl             a line a step
    evaluations.jsonl         a line an evaluation; its episodes in evaluated.jsonl
    watched.jsonl             a line an evaluation during training: what was seen, and the alarms
    ledger.jsonl              what was done, in order
    checkpoint-N/             see `rl.checkpoint`

All `.jsonl` files are journals (see `rl.journal`): append-only and hash-chained.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from envs.errors import InputError
from rl.collect import Group
from rl.evaluate import Report
from rl.journal import Journal, Line
from rl.lock import Lock, held
from rl.machine import versions
from rl.rollout import Played
from rl.transcript import decode, encode
from rl.whole import write_whole

CONFIG, VERSIONS = "config.json", "versions.json"
_PLACE = re.compile(rb'\{"step":(\d+),"position":(\d+),"sample":(\d+),"of":(\d+),')


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A training episode as it was recorded."""

    step: int
    position: int
    """Of its group in the order of the run."""
    sample: int
    """Its place in the group."""
    played: Played


class Run:
    """A run directory, made by `create`, gone on with by `resume`, looked at by `read`.

    Every rank that plays has a `Run` of its own on the same directory and writes its own episodes;
    metrics, evaluations and the ledger are for rank 0 to write.
    """

    def __init__(self, path: Path, *, rank: int = 0, lock: Lock | None = None) -> None:
        """Use `create`, `resume` or `read`."""
        self.path, self._lock = path, lock
        self.metrics = Journal(path / "metrics.jsonl", writable=lock is not None)
        self.ledger = Journal(path / "ledger.jsonl", writable=lock is not None)
        self.watched = Journal(path / "watched.jsonl", writable=lock is not None)
        self._evaluations = Journal(path / "evaluations.jsonl", writable=lock is not None)
        self._evaluated = Journal(path / "evaluated.jsonl", writable=lock is not None)
        self._episodes = Journal(path / f"episodes{f'.{rank}' if rank else ''}.jsonl", writable=lock is not None)
        self._groups: dict[int, dict[int, tuple[int, int]]] | None = None

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> Run:
        """Begin a run in a directory of its own. For rank 0, before the others `resume`.

        Args:
            config: the resolved config, as JSON values.

        Raises:
            InputError: the directory holds a run already, can't be made, or has no space.
        """
        if path.exists() and not path.is_dir():
            raise InputError(f"output_dir {path} is a file; name a directory")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output_dir {path} can't be made: {error.strerror}") from error
        lock = Lock(path / ".lock")
        try:
            if (path / CONFIG).exists() or any(path.glob("*.jsonl")):
                raise InputError(f"output_dir {path} holds another run; go on with that by --resume, or name another")
            write_whole(path / VERSIONS, json.dumps(versions(), indent=1) + "\n")
            write_whole(path / CONFIG, json.dumps(config, indent=1) + "\n")
            run = cls(path, lock=lock)
            run.note("created", config=run._config_hash())
        except BaseException:
            lock.close()
            raise
        return run

    @classmethod
    def resume(cls, path: Path, *, rank: int = 0) -> Run:
        """Go on writing a run; what a killed process left half-written is cut off.

        Raises:
            InputError: there is no run, another process writes it, or a record is damaged.
        """
        _must_be_run(path)
        run = cls(path, rank=rank, lock=Lock(path / (f".lock.{rank}" if rank else ".lock")))
        try:
            run._index()
            for journal in run._journals():
                journal.mend()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def read(cls, path: Path) -> Run:
        """Look at a run, finished or going on. Nothing can be written.

        Raises:
            InputError: there is no run.
        """
        _must_be_run(path)
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config it was made with."""
        config: dict[str, Any] = json.loads((self.path / CONFIG).read_text(encoding="utf-8"))
        return config

    @property
    def versions(self) -> dict[str, Any]:
        """What it was begun with: see `rl.machine.versions`."""
        found: dict[str, Any] = json.loads((self.path / VERSIONS).read_text(encoding="utf-8"))
        return found

    @property
    def running(self) -> bool:
        """True if a process is writing it now."""
        return held(self.path / ".lock")

    def record(self, step: int, group: Group) -> None:
        """Keep a whole group; after this returns it survives a kill.

        Raises:
            InputError: no space, or an environment whose item, context or state is not plain JSON.
        """
        position, index = group.ticket.position, self._index()
        if position in index[step]:
            raise ValueError(f"the group at position {position} of step {step} was recorded before")
        place = {"step": step, "position": position}
        lines = [
            {**place, "sample": k, "of": len(group.played), **encode(played)} for k, played in enumerate(group.played)
        ]
        start = self._episodes.size
        self._write(self._episodes, lines)
        index[step][position] = (start, self._episodes.size)

    def recorded(self, step: int) -> Mapping[int, Sequence[Played]]:
        """The whole groups of a step that this rank has written so far, by position."""
        groups = {}
        for position, (start, end) in self._index()[step].items():
            with self._episodes.path.open("rb") as file:
                file.seek(start)
                groups[position] = [decode(json.loads(line)) for line in file.read(end - start).splitlines()]
        return groups

    def episodes(self) -> Iterator[Recorded]:
        """Every training episode of every rank, rank by rank, each in the order of writing."""
        for path in sorted(self.path.glob("episodes*.jsonl")):
            for record in Journal(path).read():
                place = {name: record[name] for name in ("step", "position", "sample")}
                yield Recorded(**place, played=decode(record))

    def transcripts(self) -> Iterator[dict[str, Any]]:
        """The same as plain JSON values, see `rl.transcript`: for counting, which is faster without episodes."""
        for path in sorted(self.path.glob("episodes*.jsonl")):
            yield from Journal(path).read()

    def evaluated(self, label: str, step: int, report: Report, played: Sequence[Played]) -> None:
        """Keep an evaluation and its episodes."""
        self._write(self._evaluated, [{"label": label, "step": step, **encode(p)} for p in played])
        self._evaluations.append({"label": label, "step": step, **report.as_dict()})

    def judged(self, label: str, step: int, report: Report, played: Sequence[Played]) -> None:
        """Keep what a further grader says of an evaluation's episodes: its report, and its score of each by id."""
        scores = {p.episode.id: None if p.score.error is not None else p.score.value for p in played}
        self._evaluations.append({"label": label, "step": step, **report.as_dict(), "scores": scores})

    def evaluations(self) -> list[dict[str, Any]]:
        """What `evaluated` was given: label, step and the report's numbers."""
        return list(self._evaluations.read())

    def measured(self) -> Iterator[tuple[str, int, Played]]:
        """Label, step and episode of everything that was evaluated, in the order of writing."""
        for record in self._evaluated.read():
            yield record["label"], record["step"], decode(record)

    def note(self, kind: str, **payload: Any) -> None:
        """Add to the ledger, and bring it to disk."""
        self.ledger.append({"time": datetime.now(UTC).isoformat(), "kind": kind, **payload})
        self.ledger.flush()

    def rewind(self, step: int) -> None:
        """Take back metrics and evaluations of later steps than `step`: a resumed run will write them again."""
        for journal in (self.metrics, self.watched, self._evaluations, self._evaluated):
            later = (line.start for line in journal.lines() if line.record.get("step", 0) > step)
            start = next(later, None)
            if start is not None:
                journal.cut(start)

    def verify(self) -> None:
        """Read everything that was written and compare it to its hashes.

        Raises:
            InputError: names the first line, or the file, that is not what was written.
        """
        for path in sorted(self.path.glob("*.jsonl")):
            for _ in Journal(path).lines():
                pass
        noted = [entry["config"] for entry in self.ledger.read() if entry["kind"] == "created"]
        if noted != [self._config_hash()]:
            raise InputError(f"{self.path / CONFIG}: this is not the config that the ledger says the run began with")

    def flush(self) -> None:
        """Bring everything to the disk itself. To be called once a step."""
        for journal in self._journals():
            journal.flush()

    def close(self) -> None:
        """Flush, and let another process write. Idempotent."""
        for journal in self._journals():
            journal.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _journals(self) -> tuple[Journal, ...]:
        return (self._episodes, self.metrics, self.watched, self._evaluated, self._evaluations, self.ledger)

    def _config_hash(self) -> str:
        return hashlib.sha256((self.path / CONFIG).read_bytes()).hexdigest()

    def _write(self, journal: Journal, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            journal.append(*records)
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            env = records[0]["env"]
            raise InputError(
                f"environment {env!r}: a task's item, or what context() or state() returned, is not plain JSON: {error}"
            ) from error

    def _index(self) -> dict[int, dict[int, tuple[int, int]]]:
        """Step -> position -> where the group stands in this rank's file. Cuts a group off that is not whole."""
        if self._groups is not None:
            return self._groups
        groups: dict[int, dict[int, tuple[int, int]]] = defaultdict(dict)
        start, left = 0, 0
        for line in self._episodes.lines():
            step, position, sample, of = _place(line)
            start = line.start if sample == 0 else start
            left = of - sample - 1
            if left == 0:
                groups[step][position] = (start, line.end)
        if left and self._lock is not None:
            self._episodes.cut(start)
        self._groups = groups
        return groups


def find_runs(root: Path) -> list[Path]:
    """Every run directory at or below `root`, newest first."""
    found = [path.parent for path in root.rglob(CONFIG) if (path.parent / VERSIONS).exists()]
    return sorted(found, key=lambda run: (run / CONFIG).stat().st_mtime, reverse=True)


def _must_be_run(path: Path) -> None:
    if not (path / CONFIG).exists():
        raise InputError(f"{path} holds no run (there is no {CONFIG}); name the output_dir of one")


def _place(line: Line) -> tuple[int, int, int, int]:
    match = _PLACE.match(line.body)
    assert match, "only `record` writes this file"
    step, position, sample, of = map(int, match.groups())
    return step, position, sample, of
