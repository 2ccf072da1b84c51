"""`rft`: the command line. Exit codes: 0 done, 1 the check said no, 2 bad input, 3 the machinery failed."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from envs.errors import InputError
from rl import ablating, benching, grading, preferring, rewarding
from rl.collect import StepLost
from rl.config import Config, load, load_run
from rl.engines import EngineError
from rl.hosted import bundle
from rl.hosted import commands as commands_of_jobs
from rl.policy import PolicyError

if TYPE_CHECKING:
    from rl.train import Trained

OK, NO, BAD_INPUT, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
CONFIGS = Path(__file__).parent.parent / "configs"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _arguments(argv)
    _quiet()
    try:
        code: int = arguments.run(arguments)
        return code
    except InputError as error:
        print(f"rft: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"rft: no space left on the device of {error.filename or 'the run'}: make room, then --resume",
            file=sys.stderr,
        )
        return BAD_INPUT
    except (EngineError, PolicyError, StepLost) as error:
        print(f"rft: {error}", file=sys.stderr)
        return BROKEN
    except KeyboardInterrupt:
        return INTERRUPTED


def _quiet() -> None:
    """Keep the libraries' progress bars and notices to developers off the screen."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for name in ("TRL_EXPERIMENTAL_SILENCE", "HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_NO_ADVISORY_WARNINGS"):
        os.environ.setdefault(name, "1")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse takes positionals in one stretch only, and people write overrides behind options too.
    if rest and (not hasattr(arguments, "overrides") or any(r.startswith("-") or "=" not in r for r in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rft", description="Agentic reinforcement fine-tuning on your own GPUs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        return sub

    sub = command("demo", _demo, "make a small model, train it to use tools, and show what it learned")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    _config(sub, CONFIGS / "demo.yaml")

    sub = command("train", _train, "train a policy")
    sub.add_argument("--resume", action="store_true", help="go on with the run in output_dir")
    _config(sub, what="a YAML file, or a hosted job: job.json or the folder it lies in")

    sub = command("eval", _eval, "measure a policy on held-out tasks")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    _config(sub)

    sub = command("play", _play, "watch one episode")
    sub.add_argument("--policy", choices=["engine", "expert", "random", "human", "chat"], default="engine")
    sub.add_argument("--task", type=int, default=0, help="which of the held-out tasks (default: the first)")
    sub.add_argument("--url", help="of an OpenAI-compatible server, for --policy chat; its key in OPENAI_API_KEY")
    sub.add_argument("--model", help="what that server calls the model (default: the config's)")
    sub.add_argument("--greedy", action="store_true", help="always the likeliest token")
    _config(sub)

    grading.add_to(command("grade", None, "run, check and test graders of the hosted format"), benching.add_arguments)

    sub = command("serve", _serve, "answer the hosted service's API on this machine")
    sub.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's need a token"
    )
    sub.add_argument("--port", type=int, default=8000)
    sub.add_argument("--home", type=Path, default=Path("rft_home"), metavar="DIR", help="where everything is kept")
    served = CONFIGS / "serve" / "tiny.yaml"
    sub.add_argument(
        "--config", type=Path, default=served, metavar="FILE", help="local settings (default: the embedded policy)"
    )

    commands_of_jobs.add_import(command("import", None, "make a project of the files of a hosted job"))
    commands_of_jobs.add_export(
        command("export", None, "write a project out for another trainer, and say what is lost")
    )

    ablating.add_arguments(command("ablate", None, "compare ways to train, over seeds, and report what that shows"))

    preferring.add_arguments(command("prefer", None, "learn from the episodes of a run which turns were better"))
    rewarding.add_arguments(command("reward-model", None, "learn a reward from the episodes of runs, and measure it"))

    sub = command("doctor", _doctor, "what this machine can run, and what is missing")
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _config(
    parser: argparse.ArgumentParser, default: Path | None = None, what: str = "a YAML file, or a run directory"
) -> None:
    if default is None:
        parser.add_argument("config", type=Path, help=what)
    else:
        parser.add_argument("--config", type=Path, default=default)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings to change, as in trainer.max_steps=3"
    )


def _demo(arguments: argparse.Namespace) -> int:
    from rl.demo import demo
    from rl.report import comparison
    from rl.watch import Screen

    console = Console()
    config = load(arguments.config, f"seed={arguments.seed}", *arguments.overrides)
    config = config.model_copy(update={"output_dir": _unused(config.output_dir / f"seed{config.seed}")})
    with Screen(console) as screen:
        result = demo(config, screen)
    console.print(comparison({"warm start": result.base, "trained": result.trained}))
    console.print(
        "seconds: warm start {warm_start:.0f}, training {train:.0f}, all {total:.0f}".format(**result.seconds),
        highlight=False,
    )
    console.print(f"run: {result.run}", highlight=False, soft_wrap=True)
    _write_json(arguments.json, result.as_dict())
    return OK


def _train(arguments: argparse.Namespace) -> int:
    config = _read(arguments.config, arguments.overrides)  # before the imports below, which take seconds
    from rl.train import Training
    from rl.watch import Screen, Watcher

    console = Console()
    leader = int(os.environ.get("RANK", "0")) == 0
    screen = Screen(console)
    if config.method == "supervised":
        from rl import supervised

        with screen:
            trained = supervised.train(config, resume=arguments.resume, watcher=screen)
        return _ended(console, trained)
    with screen:
        training = Training(config, resume=arguments.resume, watcher=screen if leader else Watcher())
        try:
            trained = training.train()
        finally:
            training.close()
    return _ended(console if leader else None, trained)


def _ended(console: Console | None, trained: Trained) -> int:
    """Say how a run ended, where somebody is to be told; its exit code."""
    if console is not None:
        how = "interrupted; go on with --resume" if trained.interrupted else trained.alarm or "done"
        console.print(f"{how}: {trained.steps} steps in {trained.seconds:.0f} s, run {trained.run}", highlight=False)
    if trained.interrupted:
        return INTERRUPTED
    return OK if trained.alarm is None else NO


def _read(path: Path, overrides: Sequence[str]) -> Config:
    """The config in a file, or what the job in one comes to here."""
    if not bundle.is_one(path):
        return load(path, *overrides)
    found = bundle.planned(bundle.load(path), *overrides, processes=int(os.environ.get("WORLD_SIZE", "1")))
    if int(os.environ.get("RANK", "0")) == 0:
        for line in found.said:
            print(f"rft: {line}", file=sys.stderr)
    return found.config


def _eval(arguments: argparse.Namespace) -> int:
    config = load_run(arguments.config, *arguments.overrides)
    from rl.measure import measure
    from rl.report import details
    from rl.watch import Screen

    console = Console()
    with Screen(console) as screen:
        reports = measure(config, screen)
    console.print(details(reports))
    _write_json(arguments.json, {name: report.as_dict() for name, report in reports.items()})
    return OK


def _play(arguments: argparse.Namespace) -> int:
    from rl.stage import play

    config = load_run(arguments.config, *arguments.overrides)
    played = play(
        config,
        Console(),
        policy=arguments.policy,
        index=arguments.task,
        url=arguments.url,
        model=arguments.model,
        greedy=arguments.greedy,
    )
    return BROKEN if played.episode.broken else OK


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from rl.hosted.serve import serve
    except ImportError as error:
        raise InputError(f"rft serve needs {error.name}: pip install 'localrft[serve,graders]'") from error
    return serve(host=arguments.host, port=arguments.port, home=arguments.home, config=arguments.config)


def _doctor(arguments: argparse.Namespace) -> int:
    from rl.doctor import examine
    from rl.report import checks

    found = examine()
    if arguments.json:
        print(json.dumps([check.as_dict() for check in found], indent=1))
    else:
        Console().print(checks(found))
    return NO if any(check.verdict == "missing" for check in found) else OK


def _unused(directory: Path) -> Path:
    """The directory, or the first of directory-2, directory-3 ... that is not there yet."""
    candidate, number = directory, 2
    while candidate.exists():
        candidate, number = directory.with_name(f"{directory.name}-{number}"), number + 1
    return candidate


def _write_json(file: Path | None, value: Any) -> None:
    if file is not None:
        file.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
