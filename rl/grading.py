"""`rft grade`: graders of the hosted format run, checked and applied to many samples."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from rich.console import Console

from envs.errors import InputError
from rewards.graders import Grade, Grader, JudgeConfig, Settings, parse, rows, spec
from rewards.graders.sample import Sample, of_json, of_text
from rewards.hosted import services_of
from rl.watch import Screen

PASSED, FAILED = 0, 1


def add_to(parser: argparse.ArgumentParser, bench: Callable[[argparse.ArgumentParser], None]) -> None:
    """The sub-commands of `rft grade`; `bench` adds what `rft grade bench` takes."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("grader", type=Path, metavar="GRADER", help="grader JSON")
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    sub = command("run", _run, "grade one sample; exit code 1 if that failed")
    sub.add_argument("--item", type=Path, help="JSON file with the dataset row")
    sub.add_argument(
        "--sample", type=Path, required=True, help="text file (a last line end is cut off), or .json with the sample"
    )
    _services(sub)
    command("validate", _validate, "check a grader, and show it as it is understood; exit code 1 if it is none")
    sub = command("score", _score, "grade many samples; exit code 1 if some could not be graded")
    sub.add_argument("--data", type=Path, required=True, help="JSONL with item and sample")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write each sample's response to FILE, as JSONL")
    _services(sub)
    sub = command("bench", None, "is this grader any good? agreement, noise, headroom, probes; exit code 1 if not")
    bench(sub)
    _services(sub)


def _services(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, metavar="FILE", help="JSON: what the hosted service leaves unsaid")
    parser.add_argument("--judge", metavar="URL|FILE", help="OpenAI-compatible endpoint, or a YAML or JSON file on it")
    parser.add_argument("--unsafe-python", metavar="REASON", help="run python graders without a sandbox, and why")


def open_grader(arguments: argparse.Namespace, errors: Console) -> Grader:
    """The grader that a command line names, with all it asks for; what is unsafe is said on `errors`.

    Raises:
        InputError: something in it can't be used.
    """
    reason, judge = arguments.unsafe_python, arguments.judge
    if reason is not None:
        errors.print(f"python graders run without a sandbox, because: {reason}", style="yellow", highlight=False)
    tree = spec.load(arguments.grader)
    services = services_of(tree, judge=None if judge is None else read_judge(judge), unsafe_python=reason)
    return Grader(tree, settings=Settings.read(arguments.settings), services=services)


def read_judge(value: str) -> JudgeConfig:
    """Where judges are: a URL, or a file with the keys of `JudgeConfig`.

    Raises:
        InputError: the file can't be read or used.
    """
    if value.startswith(("http://", "https://")):
        return JudgeConfig(base_url=value)
    try:
        tree = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--judge {value}: neither a URL nor a file that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{value}: not YAML or JSON ({error})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{value}: expected an object with base_url")
    return JudgeConfig.read(tree, value)


def _run(arguments: argparse.Namespace) -> int:
    grader = open_grader(arguments, Console(stderr=True))
    item = _object(arguments.item) if arguments.item else {}
    sample = _sample(arguments.sample)
    trace = f"trace_{spec.content_hash(item, sample)[:32]}"
    grade = asyncio.run(grader.grade(item, sample, trace_id=trace))
    if arguments.json:
        print(json.dumps(grade.response(), indent=1))
    else:
        _show(grade)
    return FAILED if grade.errors else PASSED


def _show(grade: Grade) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"reward {grade.response()['reward']:g}")
    for name, value in grade.sub_rewards.items():
        console.print(f"  {name} {value:g}")
    for error in grade.errors:
        console.print(f"{error} (of the {error.blame})")
    for model, used in grade.usage.items():
        console.print(f"{model}: {used.get('prompt_tokens', 0)} + {used.get('completion_tokens', 0)} tokens")
    if grade.output:
        console.print(f"it printed: {grade.output.rstrip()}")


def _validate(arguments: argparse.Namespace) -> int:
    tree = spec.read(arguments.grader)
    try:
        grader = parse(tree, str(arguments.grader))
    except InputError as error:
        if arguments.json:
            body = {"message": str(error), "type": "invalid_request_error", "param": "grader", "code": "invalid_grader"}
            print(json.dumps({"error": body}, indent=1))
        else:
            print(error)
        return FAILED
    print(json.dumps({"grader": spec.as_json(grader)} if arguments.json else spec.as_json(grader), indent=1))
    return PASSED


def _score(arguments: argparse.Namespace) -> int:
    errors = Console(stderr=True)
    grader = open_grader(arguments, errors)
    data = rows.read(arguments.data)
    with Screen(errors) as screen:
        screen.phase("grading", len(data))
        grades = asyncio.run(rows.grade_all(grader, data, done=lambda _: screen.advance()))
    if arguments.out:
        lines = ({"where": row.where} | grade.response() for row, grade in zip(data, grades, strict=True))
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = summary(grades)
    if grader.services.judge is not None:
        found["money"] = grader.services.judge.money
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:>12}  {json.dumps(value) if isinstance(value, dict) else value}")
    return FAILED if found["unscored"] else PASSED


def summary(grades: Sequence[Grade]) -> dict[str, Any]:
    """What many grades come to; means are over those that are scores."""
    scored = [grade for grade in grades if grade.error is None]
    names = dict.fromkeys(name for grade in scored for name in grade.sub_rewards)
    tokens = Counter[str]()
    for grade in grades:
        for used in grade.usage.values():
            tokens.update(used)
    return {
        "samples": len(grades),
        "unscored": len(grades) - len(scored),
        "reward_mean": fmean(grade.reward for grade in scored) if scored else None,
        "sub_rewards": {name: fmean(grade.sub_rewards[name] for grade in scored) for name in names},
        "errors": dict(Counter(error.flag for grade in grades for error in grade.errors)),
        "tokens": dict(tokens),
        "seconds": sum(grade.seconds for grade in grades),
        "grader_hash": grades[0].hash,
    }


def _sample(path: Path) -> Sample:
    if path.suffix == ".json":
        tree = _object(path)
        return of_json(
            tree["sample"] if set(tree) == {"sample"} else tree, f"{path} (to grade it as text, name it .txt)"
        )
    try:
        return of_text(path.read_text(encoding="utf-8").removesuffix("\n"))
    except OSError as error:
        raise InputError(f"{path}: can't read the sample: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the sample is not text in UTF-8") from error


def _object(path: Path) -> Mapping[str, Any]:
    tree = spec.read(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected an object, found {type(tree).__name__}")
    return tree
