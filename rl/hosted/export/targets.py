"""Which targets there are, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from envs.errors import InputError, unknown
from rl.hosted.export.evalprotocol import eval_protocol
from rl.hosted.export.files import Project
from rl.hosted.export.gemini import gemini
from rl.hosted.export.nova import nova
from rl.hosted.export.openai import azure, openai
from rl.hosted.export.trl import trl
from rl.hosted.export.verifiers import verifiers


def export(project: Project, target: str, folder: Path) -> list[str]:
    """Write a project out for a target.

    Returns:
        What is lost, one line each.

    Raises:
        InputError: there is no such target, or the folder holds something.
    """
    if target not in TARGETS:
        raise InputError(f"--to: {unknown('target', target, TARGETS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; name another")
    lost = TARGETS[target](project, folder)
    ours = {"openai", "azure"}
    if target not in ours and project.kinds() & {"score_model", "label_model"}:
        lost.append("scoring.py asks the judge at JUDGE_URL, by the names of models in grader.json")
    if target not in ours and project.job.tools:
        lost.append("a rollout is one turn: the servers of tools are not called")
    return lost


TARGETS: dict[str, Callable[[Project, Path], list[str]]] = {
    "openai": openai,
    "azure": azure,
    "nova": nova,
    "eval-protocol": eval_protocol,
    "verifiers": verifiers,
    "trl": trl,
    "gemini": gemini,
}
"""Targets by the name of `rft export --to`."""
