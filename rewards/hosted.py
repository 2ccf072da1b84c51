"""A grader of the hosted format, named in a config."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from envs.errors import InputError, reasons
from envs.sandbox.settings import SandboxSettings
from rewards.score import Reward

if TYPE_CHECKING:
    from rewards.graders.judge import JudgeConfig
    from rewards.graders.run import Services
    from rewards.graders.spec import Spec

log = logging.getLogger(__name__)


def grader(
    *,
    file: str | None = None,
    grader: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    judge: dict[str, Any] | None = None,
    sandbox: dict[str, Any] | None = None,
    unsafe_python: str | None = None,
) -> Reward:
    """A reward of grader JSON; `rewards.graders.Grader` without its files and classes.

    Example: `{use: grader, file: grader.json, judge: {base_url: "http://127.0.0.1:8000/v1"}}`.

    Args:
        file: the JSON; like the data files of a config it is found from the working directory.
        grader: the JSON itself, in place of the file.
        settings: what the hosted service leaves unsaid; see `rewards.graders.Settings`.
        judge: where models that judge are; see `rewards.graders.JudgeConfig`.
        sandbox: of python graders, if not the run's: `python`, an interpreter with packages of its own, and `readable`,
            where they are; see `envs.sandbox.SandboxSettings`.
        unsafe_python: why the code of python graders may run here without a sandbox; they run in one unless given.

    Raises:
        InputError: neither or both of file and grader, or something in them that can't be used.
    """
    from rewards.graders import Grader, JudgeConfig, Settings, load, parse

    if file is not None and grader is None:
        tree = load(file)
    elif grader is not None and file is None:
        tree = parse(grader)
    else:
        raise InputError("a grader is a file or the JSON itself: give one of the options 'file' and 'grader'")
    config = None if judge is None else JudgeConfig.read(judge)
    services = services_of(tree, judge=config, sandbox=sandbox, unsafe_python=unsafe_python)
    if unsafe_python is not None:
        log.warning("python graders run without a sandbox, because: %s", unsafe_python)
    return Grader(tree, settings=Settings.read(settings), services=services)


def services_of(
    tree: Spec, *, judge: JudgeConfig | None, unsafe_python: str | None, sandbox: Mapping[str, Any] | None = None
) -> Services:
    """What a grader needs beside its JSON, of what was said about it.

    Raises:
        InputError: something was said that would have no effect on this grader.
    """
    from rewards.graders import Judge, SandboxPool, Services, UnsafeSubprocess, spec

    parts = [part for _, part in spec.walk(tree)]
    runs_python = any(isinstance(part, spec.Python) for part in parts)
    if judge is not None and not any(isinstance(part, spec.Judged) for part in parts):
        raise InputError("judge would have no effect: the grader asks no model; remove it")
    if unsafe_python is not None and not runs_python:
        raise InputError("unsafe_python would have no effect: there is no python grader; remove it")
    if sandbox is not None and (not runs_python or unsafe_python is not None):
        raise InputError("sandbox would have no effect: no python grader runs in one; remove it")
    sandboxed = SandboxPool(sandbox_settings(sandbox)) if runs_python and unsafe_python is None else None
    return Services(
        pool=sandboxed if unsafe_python is None else UnsafeSubprocess(unsafe_python),
        judge=None if judge is None else Judge(judge),
    )


def sandbox_settings(tree: Mapping[str, Any] | None) -> SandboxSettings | None:
    """What a grader's option `sandbox` asks for; None where it runs in the sandboxes that all share.

    Raises:
        InputError: a key there is not, or one that would have no effect.
    """
    if tree is None:
        return None
    if "limits" in tree:
        raise InputError("sandbox.limits would have no effect: python graders have the hosted ones; remove it")
    try:
        return SandboxSettings.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"sandbox: {reasons(error)}") from error


def runs_python(*, file: str | None = None, grader: Mapping[str, Any] | None = None, **_: Any) -> bool:
    """Whether the grader that these options make runs code, unless `unsafe_python` has it run elsewhere."""
    from rewards.graders import load, parse, spec

    tree = load(file) if file is not None else parse(grader or {})
    return any(isinstance(part, spec.Python) for _, part in spec.walk(tree))
