"""A process that the server starts for long work, and that ends when the server does, however that ends.

It hears of that by its standard input: the server holds the other end, and the kernel closes it. Ending is a kill: what
a run has written is whole at any moment, and is gone on with.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def train(config: str) -> int:
    """`rft train`, from the start or from where the run stands; its exit code."""
    from rl import cli
    from rl.config import CONFIG, load

    run = load(config).output_dir
    return cli.main(["train", config, *(["--resume"] if (run / CONFIG).exists() else [])])


def make_base(directory: str, section: str) -> int:
    """Make the embedded policy, or find it there.

    Args:
        section: `tiny` of a config, as JSON.
    """
    from rl import cli, tiny
    from rl.config import parse

    told = {"tiny": json.loads(section), "env": {"use": "hosted"}, "reward": {}, "output_dir": directory}
    tiny.make(Path(directory), tiny.recipe_of(parse({"model": "tiny", **told})))
    return cli.OK


def _end_with_the_server() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


COMMANDS: dict[str, Callable[..., int]] = {"train": train, "base": make_base}

if __name__ == "__main__":
    threading.Thread(target=_end_with_the_server, daemon=True, name="end-with-the-server").start()
    sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
