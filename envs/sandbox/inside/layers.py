"""What stands between foreign code and the machine, as data: each layer by its name, in the order it is put on.

`ALL` is what is used. A sandbox with one layer fewer can be asked for in Python, to see that the layer matters; no
configuration can.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

from envs.sandbox.inside import bwrap, kernel, landlock, seccomp
from envs.sandbox.inside.plan import Plan

Step = Callable[[Plan], None]


def _sized_tmpfs(plan: Plan) -> None:
    """Workspace, /tmp and /dev/shm of a bwrap sandbox: fresh, bounded in bytes and in files."""
    if plan.kind == "episode":
        kernel.unshare(kernel.CLONE_NEWNS)
    elif "fresh" not in plan.layers:
        return  # mounts belong into a namespace of their own
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    for target, mode in ((plan.workspace, "0700"), (plan.tmp, "1777"), ("/dev/shm", "1777")):
        size = f"size={plan.limits.disk},nr_inodes={plan.limits.inodes}" if "disk" in plan.layers else "size=75%"
        kernel.mount("tmpfs", target, flags, f"{size},mode={mode}")


def _own_proc(plan: Plan) -> None:
    if "fresh" not in plan.layers:
        return
    kernel.mount("proc", "/proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)


def _limits(plan: Plan) -> None:
    limits = plan.limits
    if not plan.counted:
        os.nice(5)  # in place of the cgroup's share of the CPU
    cpu = max(1, round(limits.cpu or limits.wall))
    values = {
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_DATA: limits.memory,
        resource.RLIMIT_NPROC: limits.pids,
        resource.RLIMIT_FSIZE: limits.disk,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_STACK: (8 << 20, 64 << 20),
        resource.RLIMIT_MEMLOCK: 1 << 16,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    if plan.tier == "unsafe":
        del values[resource.RLIMIT_NPROC]  # there it would count everything else that this user runs
    if plan.kind == "grader":
        values[resource.RLIMIT_AS] = limits.memory + (1 << 30)
    for name, value in values.items():
        soft, hard = value if isinstance(value, tuple) else (value, value)
        most = resource.getrlimit(name)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(name, (soft, hard))


def _first_to_die(plan: Plan) -> None:
    """When memory runs out, the kernel takes this process, not its keeper and not the trainer."""
    kernel.hide_from_peers(False)  # a hidden process may not write to its own settings either
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _slot_uid(plan: Plan) -> None:
    os.setgroups([])
    os.setresgid(plan.uid, plan.uid, plan.uid)
    os.setresuid(plan.uid, plan.uid, plan.uid)


def _files(plan: Plan) -> None:
    readable = (*SYSTEM, *plan.readable)
    landlock.restrict(readable, (plan.workspace, plan.tmp), devices=DEVICES)


def _calls(plan: Plan) -> None:
    """Sockets only where a network namespace makes them harmless, and a grader has no use for them."""
    inside = plan.tier == "bwrap"
    families = (seccomp.AF_UNIX, seccomp.AF_INET, seccomp.AF_INET6) if inside and plan.kind == "episode" else ()
    kernel.filter_calls(seccomp.program(families, namespaces=inside, uncounted_memory=plan.counted))


def _capabilities(plan: Plan) -> None:
    kernel.drop_capabilities()


def _hide(plan: Plan) -> None:
    kernel.hide_from_peers()


def _mask(plan: Plan) -> None:
    os.umask(0o077)


SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
"""Readable in every sandbox."""

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

PREPARE: dict[tuple[str, str], tuple[tuple[str, Step], ...]] = {
    ("bwrap", "episode"): (
        ("tmpfs", _sized_tmpfs),
        ("hidden", _hide),
        ("capabilities", _capabilities),
        ("seccomp", _calls),
    ),
    ("bwrap", "grader"): (("hidden", _hide),),
    ("landlock", "episode"): (),
    ("landlock", "grader"): (),
    ("unsafe", "episode"): (),
    ("unsafe", "grader"): (),
}
"""What a keeper puts on itself, before it takes the first call."""

_LANDLOCK: tuple[tuple[str, Step], ...] = (
    ("umask", _mask),
    ("oom", _first_to_die),
    ("rlimits", _limits),
    ("uid", _slot_uid),
    ("landlock", _files),
    ("capabilities", _capabilities),
    ("seccomp", _calls),
)

CONFINE: dict[tuple[str, str], tuple[tuple[str, Step], ...]] = {
    ("bwrap", "episode"): (("umask", _mask), ("oom", _first_to_die), ("rlimits", _limits)),
    ("bwrap", "grader"): (
        ("umask", _mask),
        ("oom", _first_to_die),
        ("tmpfs", _sized_tmpfs),
        ("proc", _own_proc),
        ("capabilities", _capabilities),
        ("rlimits", _limits),
        ("seccomp", _calls),
    ),
    ("landlock", "episode"): _LANDLOCK,
    ("landlock", "grader"): _LANDLOCK,
    ("unsafe", "episode"): (("umask", _mask), ("rlimits", _limits)),
    ("unsafe", "grader"): (("umask", _mask), ("rlimits", _limits)),
}
"""What every child puts on itself, before it does anything for the caller."""


def put_on(table: dict[tuple[str, str], tuple[tuple[str, Step], ...]], plan: Plan) -> None:
    """Apply a table's steps. Whatever a kernel refuses stops the child: nothing runs with half its protection.

    Raises:
        OSError: a step could not be taken; its message names the layer.
    """
    for name, step in table[plan.tier, plan.kind]:
        if name in plan.layers:
            try:
                step(plan)
            except (OSError, ValueError) as error:
                number = error.errno if isinstance(error, OSError) else errno.EINVAL
                raise OSError(number, f"the layer {name} could not be put on: {error}") from error


ALL = frozenset(
    {
        *(name for table in (PREPARE, CONFINE) for steps in table.values() for name, _ in steps),
        *(name for name, _ in bwrap.ARGUMENTS),
        *("readonly", "disk", "fresh"),  # what a bwrap sandbox is made of
        *("descriptors", "deadline", "kill", "beneath"),  # what a keeper does
        *("totals", "lease"),  # what the broker does
    }
)
"""Every layer there is."""
