from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rl import machine


def test_versions_are_plain_json_and_name_what_results_depend_on() -> None:
    found = json.loads(json.dumps(machine.versions()))
    assert set(found["packages"]) == set(machine.PACKAGES)
    assert found["machine"]["memory_bytes"] > 2**28


def test_gpus_are_what_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\necho 'NVIDIA H200, 143771 MiB'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.gpus() == ["NVIDIA H200, 143771 MiB"] * 2
    smi.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert machine.gpus() == []


def test_a_command_that_is_not_there_prints_nothing() -> None:
    assert machine.output("no-such-command-anywhere") is None
    assert machine.installed("no-such-package-anywhere") is None
