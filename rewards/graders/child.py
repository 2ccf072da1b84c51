"""The process a python grader runs in: a request on stdin, one JSON line to a descriptor of its own.

    python child.py DESCRIPTOR CPU_SECONDS MEMORY_BYTES FILE_BYTES

Run as a file by an isolated interpreter, so it imports nothing of the house.
"""

import json
import math
import numbers
import os
import resource
import sys
import traceback
from typing import Any


def main() -> None:
    descriptor, cpu, memory, disk = map(int, sys.argv[1:])
    limits = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: disk,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
    }
    for what, limit in limits.items():
        resource.setrlimit(what, (limit, limit))
    request = json.loads(sys.stdin.buffer.read())
    answer = json.dumps(graded(request["source"], request["sample"], request["item"])).encode() + b"\n"
    while answer:
        answer = answer[os.write(descriptor, answer) :]
    # Threads and exit handlers that a grader left behind have nothing more to say.
    sys.stdout.flush()
    os._exit(0)


def graded(source: str, sample: Any, item: Any) -> dict[str, Any]:
    """`value`, what `grade(sample, item)` of the source returned if that is a finite number, or else `error`."""
    names: dict[str, Any] = {"__name__": "grader", "__builtins__": __builtins__}
    try:
        exec(compile(source, "grader.py", "exec"), names)
        value = names["grade"](sample, item)
    except BaseException as error:
        return {"error": _traceback(error)}
    return _checked(value)


def _checked(value: Any) -> dict[str, Any]:
    if not isinstance(value, numbers.Real):
        return {"error": f"grade returned {type(value).__name__}, not a number: {value!r}"[:1000]}
    try:
        number = float(value)
    except OverflowError:
        return {"error": "grade returned a number beyond all floats"}
    if not math.isfinite(number):
        return {"error": f"grade returned {number}"}
    return {"value": number}


def _traceback(error: BaseException) -> str:
    """The error with its own lines only: not those of this file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "grader.py"]
    head = "Traceback (most recent call last):\n" + "".join(traceback.format_list(frames)) if frames else ""
    return (head + "".join(traceback.format_exception_only(error)).strip())[-4000:]


if __name__ == "__main__":
    main()
