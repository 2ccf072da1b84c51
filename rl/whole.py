"""Files and directories that are there whole, or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envs.errors import InputError


@contextmanager
def needs_space(path: Path) -> Iterator[None]:
    """Turn a full disk into one clear message.

    Raises:
        InputError: no space, or a quota or a file-size limit was reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise InputError(
            f"{path}: {os.strerror(error.errno)}; what was written before is whole. Make room, then go on with --resume"
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that it is either there, whole and on disk, or not there.

    Raises:
        InputError: there is no space left; nothing is left behind.
    """
    draft = path.with_name(path.name + ".draft")
    try:
        with needs_space(path), draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file to disk, or of a directory which files it has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_directory(place: Path) -> Iterator[Path]:
    """A directory to fill, which is then put where `place` is. An error on the way leaves that as it was.

    Raises:
        InputError: there is no space left.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        with needs_space(place):
            yield draft
        draft.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sweep(place: Path) -> None:
    """Remove the drafts of a directory that killed processes have left. Not while another may be writing one."""
    for draft in place.parent.glob(f".{place.name}.*"):
        shutil.rmtree(draft, ignore_errors=True)
