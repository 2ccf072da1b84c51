"""The command line of bubblewrap for a keeper, as data: a layer's name, and the arguments that put it on.

bubblewrap isolates what its arguments say and no more, and only if it is not started by root: as the machine's uid 0,
files under /proc/sys stay writable, whatever the namespaces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from envs.sandbox.inside.plan import ENVIRONMENT, Plan

INSIDE = "/run/keeper"
"""Where this package lies in the sandbox, to be read."""

AGENT = 1000
"""The user that the slot's is mapped to, as seen from inside."""

START = """
import sys
sys.path[0] = {place!r}
from envs.sandbox.inside.keeper import main
del sys.path[0]
main({descriptor})
"""

_ROOT = (
    *("--ro-bind", "/usr", "/usr"),
    *("--symlink", "usr/bin", "/bin"),
    *("--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64"),
    *("--ro-bind-try", "/etc/alternatives", "/etc/alternatives"),
    *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
)

ARGUMENTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("pid_ns", ("--unshare-pid", "--as-pid-1")),
    ("net_ns", ("--unshare-net",)),
    ("ipc_ns", ("--unshare-ipc",)),
    ("uts_ns", ("--unshare-uts", "--hostname", "sandbox")),
    ("cgroup_ns", ("--unshare-cgroup",)),
    ("no_userns", ("--disable-userns",)),
    ("with_parent", ("--die-with-parent",)),
    ("session", ("--new-session",)),
    ("environment", ("--clearenv",)),
)


def argv(plan: Plan, programs: tuple[str, str], runtime: str, control: int) -> list[str]:
    """The whole command, for a keeper whose control socket is descriptor `control`."""
    program, python = programs
    on = [option for layer, options in ARGUMENTS if layer in plan.layers for option in options]
    variables = [word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)]
    trees = [word for path in _outermost(plan.readable) for word in ("--ro-bind", path, path)]
    writable = ("--size", str(plan.limits.disk), "--tmpfs", plan.tmp, "--size", str(plan.limits.disk), "--tmpfs")
    places = [*writable, plan.workspace, "--ro-bind", runtime, INSIDE, "--ro-bind", f"{runtime}/passwd", "/etc/passwd"]
    sealed = ("--remount-ro", "/dev", "--remount-ro", "/") if "readonly" in plan.layers else ()
    keeps = ("--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP")
    start = START.format(place=INSIDE, descriptor=control)
    mounts = [*_ROOT, "--proc", "/proc", "--dev", "/dev", *trees, *places, *sealed]
    user = ("--unshare-user", "--uid", str(AGENT), "--gid", str(AGENT))
    return [program, *user, *on, *variables, *mounts, *keeps, "--chdir", "/", python, "-s", "-c", start]


def _outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie below /usr or below another one."""
    kept: list[str] = []
    for path in sorted({os.path.realpath(p) for p in paths}):
        if not any(path == tree or path.startswith(f"{tree}/") for tree in ("/usr", *kept)):
            kept.append(path)
    return kept
