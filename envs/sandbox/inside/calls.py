"""What a confined child does: run a command, read or write a file of the workspace, call a grader.

A child is a fork of its keeper with stdin, stdout and stderr in place (and, for a grader, the result on descriptor 3)
and its layers put on. It ends in `os._exit`, and says with its exit status how it went.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
import sys
import traceback
from typing import Any

from envs.sandbox.inside import kernel
from envs.sandbox.inside.plan import ENVIRONMENT, Plan

NOT_FOUND, NO_FILE, TOO_LARGE, BAD_PATH, FULL, REFUSED = 10, 11, 12, 13, 14, 15
"""Exit statuses of `read` and `write`."""

_STATUS = {
    errno.ENOENT: NOT_FOUND,
    errno.ENOTDIR: NOT_FOUND,
    errno.EISDIR: NO_FILE,
    errno.ENXIO: NO_FILE,
    errno.ELOOP: BAD_PATH,
    errno.EXDEV: BAD_PATH,
    errno.ENAMETOOLONG: BAD_PATH,
    errno.EINVAL: BAD_PATH,
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: FULL,
}
_CHUNK = 1 << 16
_RESULT = 3


def command(plan: Plan, request: dict[str, Any]) -> None:
    """Become the command. 127 where there is no such program, 126 where it can't be run, as in a shell."""
    argv: list[str] = request["argv"]
    environment = {**ENVIRONMENT, "HOME": plan.workspace, "TMPDIR": plan.tmp, **request["env"]}
    try:
        os.chdir(os.path.join(plan.workspace, request["cwd"]))
        program = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=environment["PATH"]) or argv[0]
        os.execve(program, argv, environment)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        os.write(2, f"{argv[0]}: {error}\n".encode(errors="replace")[:4096])
        os._exit(127 if missing else 126)


def read(plan: Plan, request: dict[str, Any]) -> None:
    """Copy a file to stdout, if it is a regular one and no larger than asked for."""
    with _guarded(), _Workspace(plan) as workspace:
        file = workspace.open(request["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            os._exit(NO_FILE)
        if status.st_size > request["max_bytes"]:
            os.write(2, str(status.st_size).encode())
            os._exit(TOO_LARGE)
        left = request["max_bytes"]
        while left > 0 and (chunk := os.read(file, min(_CHUNK, left))):
            _write_all(1, chunk)
            left -= len(chunk)


def write(plan: Plan, request: dict[str, Any]) -> None:
    """Copy stdin into a file, whose parents are made where they are missing."""
    with _guarded(), _Workspace(plan) as workspace:
        parts = request["path"].split("/")
        for depth in range(1, len(parts)):
            workspace.make_directory("/".join(parts[:depth]))
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
        file = workspace.open(request["path"], flags, 0o644)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os._exit(NO_FILE)
        os.ftruncate(file, 0)
        while chunk := os.read(0, _CHUNK):
            _write_all(file, chunk)


class _Workspace:
    """The workspace as a directory that paths can't lead out of, links or not."""

    def __init__(self, plan: Plan) -> None:
        self.path = plan.workspace
        self.beneath = "beneath" in plan.layers

    def __enter__(self) -> _Workspace:
        self.directory = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.directory)

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        if self.beneath:
            return kernel.open_beneath(self.directory, path, flags, mode)
        return os.open(path, flags, mode, dir_fd=self.directory)

    def make_directory(self, path: str) -> None:
        """One level. mkdirat follows links on the way, so the way is opened first."""
        parent, _, name = path.rpartition("/")
        place = self.open(parent or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(name, 0o755, dir_fd=place)
        except FileExistsError:
            pass
        finally:
            os.close(place)


class _guarded:
    """Turns what the file system says into an exit status, with the reason on stderr."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        os.write(2, os.fsencode(error.strerror or "failed"))
        os._exit(_STATUS.get(error.errno or 0, REFUSED))


def grade(plan: Plan, request: dict[str, Any]) -> None:
    """Run `grade(sample, item)` of a grader's source and write one JSON object to the result descriptor.

    The payload comes on stdin: the code of the grader and the data it judges. Whatever the code does here, it does to
    a process of its own; what leaves it is checked by who reads it.
    """
    with open(0, "rb", closefd=False) as file:
        payload = json.load(file)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.chdir(plan.workspace)
    answer = json.dumps(_score(payload), ensure_ascii=True).encode()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    _write_all(_RESULT, answer)


def _score(payload: dict[str, Any]) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "grader"}
    try:
        exec(compile(payload["source"], "<grader>", "exec"), namespace)
        function = namespace.get("grade")
        if not callable(function):
            return {"error": "no_function", "detail": "the source defines no function grade(sample, item)"}
        return _plain(function(payload["sample"], payload["item"]))
    except MemoryError:
        return {"error": "memory", "detail": "MemoryError"}
    except SyntaxError as error:
        return {"error": "syntax", "detail": str(error)[:1000]}
    except BaseException as error:  # the boundary to the grader's code
        return {"error": "raised", "detail": _account(error)}


def _account(error: BaseException) -> str:
    """The traceback from the grader's own first line on."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    text = "".join(line for line in lines if "inside/calls.py" not in line)
    return text.encode("utf-8", "replace").decode()[-4000:]


def _plain(value: Any) -> dict[str, Any]:
    """A float of exactly what is a number, numpy's scalars included: a subclass may say anything of itself."""
    kind = type(value)
    if kind.__module__ == "numpy" and hasattr(kind, "item"):
        value = kind.item(value)
    if type(value) not in (int, float):
        return {"error": "no_number", "detail": f"grade returned {kind.__name__}, not a number"}
    try:
        number = float(value)
    except OverflowError:
        return {"error": "not_finite", "detail": "grade returned an integer too large for a float"}
    if not math.isfinite(number):
        return {"error": "not_finite", "detail": f"grade returned {number}"}
    return {"score": number}


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


CALLS = {"exec": command, "read": read, "write": write, "grade": grade}
