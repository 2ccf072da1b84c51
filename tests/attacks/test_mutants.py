"""Every layer matters: with one left out, some attack that came to nothing before gets somewhere.

Where two layers stand behind one another, both are left out; the first alone is then no mutant, and that the second holds
by itself is what `HOLDS` shows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from attacks import files, kernel, network, persistence, prompts, resources, rewards  # noqa: F401  (they enter attacks)
from attacks.catalogue import ATTACKS
from attacks.ground import Ground, alive, missing, tiers
from envs.sandbox import InfraError, Limits, strict
from envs.sandbox.inside import totals
from envs.sandbox.inside.layers import ALL
from runs import settled

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    tier: str
    without: tuple[str, ...]
    """Layers, by name."""
    attack: int
    """The one that gets somewhere."""

    @property
    def name(self) -> str:
        return f"{self.tier}-{'-'.join(self.without)}"


MUTANTS = [
    Mutant(tier="bwrap", without=("seccomp",), attack=46),
    Mutant(tier="bwrap", without=("uid",), attack=54),
    Mutant(tier="bwrap", without=("pid_ns",), attack=62),
    Mutant(tier="bwrap", without=("net_ns",), attack=42),
    Mutant(tier="bwrap", without=("ipc_ns",), attack=47),
    Mutant(tier="bwrap", without=("uts_ns",), attack=62),
    Mutant(tier="bwrap", without=("no_userns", "seccomp"), attack=52),
    Mutant(tier="bwrap", without=("capabilities",), attack=53),
    Mutant(tier="bwrap", without=("readonly",), attack=28),
    Mutant(tier="bwrap", without=("environment",), attack=21),
    Mutant(tier="bwrap", without=("disk",), attack=7),
    Mutant(tier="bwrap", without=("rlimits",), attack=10),
    Mutant(tier="bwrap", without=("totals",), attack=4),
    Mutant(tier="bwrap", without=("fresh",), attack=79),
    Mutant(tier="bwrap", without=("hidden",), attack=22),
    Mutant(tier="bwrap", without=("oom",), attack=20),
    Mutant(tier="bwrap", without=("deadline",), attack=13),
    Mutant(tier="bwrap", without=("beneath",), attack=31),
    Mutant(tier="bwrap", without=("descriptors",), attack=48),
    Mutant(tier="bwrap", without=("cgroup_ns",), attack=62),
    Mutant(tier="bwrap", without=("session",), attack=62),
    Mutant(tier="bwrap", without=("proc",), attack=62),
    Mutant(tier="bwrap", without=("tmpfs",), attack=79),
    Mutant(tier="bwrap", without=("umask",), attack=84),
    Mutant(tier="bwrap", without=("kill",), attack=13),
    Mutant(tier="container", without=("umask",), attack=84),
    Mutant(tier="container", without=("oom",), attack=20),
    Mutant(tier="container", without=("seccomp",), attack=45),
    Mutant(tier="container", without=("uid",), attack=54),
    Mutant(tier="container", without=("landlock",), attack=24),
    Mutant(tier="container", without=("capabilities", "uid"), attack=53),
    Mutant(tier="container", without=("rlimits",), attack=10),
    Mutant(tier="container", without=("totals",), attack=7),
    Mutant(tier="container", without=("kill",), attack=82),
    Mutant(tier="container", without=("fresh",), attack=79),
    Mutant(tier="container", without=("environment",), attack=21),
    Mutant(tier="container", without=("beneath",), attack=31),
    Mutant(tier="container", without=("descriptors",), attack=48),
    Mutant(tier="container", without=("deadline",), attack=13),
]

HOLDS = [Mutant(tier="bwrap", without=("seccomp",), attack=52), Mutant(tier="bwrap", without=("no_userns",), attack=52)]
"""One of two layers gone, and the other does it."""


@contextmanager
def grown(tier: str, without: tuple[str, ...]) -> Iterator[Ground]:
    ground = Ground(tier, layers=ALL - set(without))
    try:
        yield ground
    finally:
        ground.close()


def usable() -> str:
    """A tier that can run here."""
    tier = next((name for name in ("bwrap", "landlock") if not missing(name)), None)
    return tier or pytest.skip("no tier can run here")


def played(ground: Ground, number: int) -> None:
    play = ATTACKS[number].play
    assert play is not None
    ground.run(play(ground))
    ground.check()


def available(mutants: list[Mutant]) -> list[object]:
    marks = {param.values[0]: param.marks for param in tiers()}
    return [pytest.param(mutant, id=mutant.name, marks=marks[mutant.tier]) for mutant in mutants]


ELSEWHERE = {"with_parent", "lease"}
"""Layers whose tests stand below: it takes a broker that is killed, or a client."""


def test_every_layer_has_a_mutant() -> None:
    assert {name for mutant in MUTANTS for name in mutant.without} | ELSEWHERE == ALL


@pytest.mark.parametrize("mutant", available(MUTANTS))
def test_without_a_layer_an_attack_gets_somewhere(mutant: Mutant) -> None:
    """The sandbox starts; it is the attack that shows what is missing, or the machinery giving the sandbox up."""
    with grown(mutant.tier, mutant.without) as ground, pytest.raises((AssertionError, InfraError)) as caught:
        played(ground, mutant.attack)
    print(f"{mutant.name}: {str(caught.value)[:200]}")


@pytest.mark.parametrize("mutant", available(HOLDS))
def test_one_layer_of_two_is_enough(mutant: Mutant) -> None:
    with grown(mutant.tier, mutant.without) as ground:
        played(ground, mutant.attack)


def trusting(data: bytes, low: float, high: float) -> float:
    """What a reader makes of a result who believes it."""
    import json

    return float(json.JSONDecoder().raw_decode(data.decode())[0]["score"])


@pytest.mark.parametrize("number", [65, 73])
def test_without_the_strict_parser_a_forged_result_is_a_score(
    number: int, ground: Callable[[str], Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(usable())
    monkeypatch.setattr(strict, "score", trusting)
    with pytest.raises(AssertionError):
        play = ATTACKS[number].play
        assert play is not None
        here.run(play(here))


def test_without_the_cap_on_output_a_flood_is_kept(
    ground: Callable[[str], Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(usable())
    monkeypatch.setattr(Limits, "flood", property(lambda limits: 1 << 60))
    with pytest.raises(AssertionError):
        play = ATTACKS[15].play
        assert play is not None
        here.run(play(here))


@pytest.mark.parametrize(
    ("without", "holds"), [((), True), (("with_parent",), False)], ids=["all layers", "without with_parent"]
)
def test_a_sandbox_dies_with_its_broker(without: tuple[str, ...], holds: bool) -> None:
    """Killed outright, while the client still holds every socket."""
    if reason := missing("bwrap"):
        pytest.skip(reason)
    with grown("bwrap", without) as ground:

        async def scene() -> bool:
            box = await ground.open()
            await box.sh("(sleep 77 >/dev/null 2>&1 &)")
            pids = totals.below(ground.broker.pid, totals.processes())
            assert len(pids) >= 3, "bubblewrap, keeper and command"
            os.kill(ground.broker.pid, signal.SIGKILL)
            dead = settled(lambda: not any(alive(pid) for pid in pids), seconds=10.0 if holds else 0.5)
            box.sandbox._keeper._link.close()
            return dead

        assert ground.run(scene()) is holds


LEASE = """
import asyncio, dataclasses, os, signal, sys, time
from envs.sandbox import SandboxSettings
from envs.sandbox.box import Keeper
from envs.sandbox.client import Broker
from envs.sandbox.doctor import prepare
from envs.sandbox.inside import totals
from envs.sandbox.inside.layers import ALL
from envs.sandbox.records import TOOL
async def main():
    machine = prepare(sys.argv[1], SandboxSettings())
    broker = Broker(dataclasses.replace(machine, layers=ALL - set(sys.argv[2:])))
    await broker.start()
    await Keeper.open(broker, "episode", TOOL)
    if os.fork() == 0:
        time.sleep(60)
    print(broker.pid, broker.runtime, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize(("without", "holds"), [((), True), (("lease",), False)], ids=["all layers", "without lease"])
def test_a_broker_ends_with_its_client(without: tuple[str, ...], holds: bool) -> None:
    """Even where a fork of the client still holds the sockets."""
    tier = usable()
    command = [sys.executable, "-c", LEASE, tier, *without]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as client:
        assert client.stdout is not None
        broker, runtime = client.stdout.readline().split()
        client.wait()

        def gone() -> bool:
            return not alive(int(broker)) and not Path(runtime).exists()

        try:
            assert settled(gone, seconds=10.0 if holds else 1.0) is holds
        finally:
            os.killpg(client.pid, signal.SIGKILL)  # the fork; with it the last socket closes
    assert settled(gone), "the broker did not end when the last socket was closed"
