"""Where a server keeps what: one directory, which is all there is to back up or to move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envs.errors import InputError
from rl import checkpoint


@dataclass(frozen=True, slots=True)
class Places:
    """The home of a server.

    server.sqlite             files, jobs, events, checkpoints
    files/ID                  the bytes of files
    base/                     the embedded policy, if that is what is trained
    jobs/ID/job.yaml          the config that the job trains by
    jobs/ID/run/              its run directory
    jobs/ID/log.txt           what the training process printed
    """

    home: Path

    @classmethod
    def make(cls, home: Path) -> Places:
        """Make the directories that are not there.

        Raises:
            InputError: they can't be made.
        """
        try:
            for directory in (home, home / "files", home / "jobs"):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--home {home} can't be made: {error.strerror}") from error
        return cls(home.resolve())

    @property
    def store(self) -> Path:
        return self.home / "server.sqlite"

    @property
    def files(self) -> Path:
        return self.home / "files"

    @property
    def base(self) -> Path:
        return self.home / "base"

    def job(self, id: str) -> Path:
        return self.home / "jobs" / id

    def config(self, id: str) -> Path:
        return self.job(id) / "job.yaml"

    def log(self, id: str) -> Path:
        return self.job(id) / "log.txt"

    def run(self, id: str) -> Path:
        return self.job(id) / "run"

    def checkpoint(self, id: str, step: int) -> Path:
        return checkpoint.path(self.run(id), step)
