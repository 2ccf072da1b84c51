"""`rft prefer`: an adapter trained on what the episodes of a run say is better, and asked about tasks it never saw.

What it leaves is a run directory: the run's config on the same base, `adapter/`, the metrics, and `preference.json`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import Field
from rich.console import Console

from envs.errors import InputError
from rl import tiny, trees
from rl.config import ADAPTER, BASE, Config, Section, parse, validated
from rl.pairs import SEGMENT, WORTHS, Mined, Pair, Worth, mine, split
from rl.records import Run
from rl.rollout import Played
from rl.stats import Estimate, proportion
from rl.watch import Screen, Watcher
from rl.whole import write_whole

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from rl.chat import Chat
    from rl.trainers.preference import Likelihoods, SegmentTrainer

DONE = 0
REPORT = "preference.json"
"""In the run directory: what was asked, what was mined, what was learned."""
TRIED = 16
"""Groups whose first turn is read again, to see that the tokenizer is theirs."""

Group = list[Played]


class Asked(Section):
    """What `rft prefer` was told."""

    segment: int | None = Field(SEGMENT, ge=1)
    margin: float = Field(0.5, gt=0)
    worth: Worth = "outcome"
    held_out: float = Field(0.2, ge=0, lt=1)
    """The share of tasks whose pairs are not learned from."""
    seed: int = 0
    """Of the split, the choice among pairs, the adapter's start and the order of pairs."""
    model: str | None = None
    adapter: Path | None = None
    lora: dict[str, Any] = {}
    """Fields of PEFT's `LoraConfig`, beside those of the run."""
    trainer: dict[str, Any] = {}
    """Fields of TRL's `DPOConfig`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What played, and what training starts from."""

    model: str
    """A directory or a name on the Hub."""
    adapter: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the policy makes of the pairs of held-out tasks, each task counting the same."""

    tasks: int
    pairs: int
    preferred: Estimate
    """Pairs whose chosen segment has gained more log-probability than the rejected one: DPO's own accuracy. Before
    anything is learned neither has gained, and it says nothing."""
    likelier: tuple[Estimate, Estimate]
    """Pairs whose chosen segment is the more probable one, before and after. Shorter segments have it easier."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `rft prefer` can be told."""
    usual = Asked()
    parser.set_defaults(run=run, overrides=[])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directories of runs of one policy")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run directory to make")
    segment = f"turns of a pair from where it parts, or all (default: {usual.segment})"
    parser.add_argument("--segment", default=usual.segment, metavar="N", help=segment)
    margin = f"least difference in worth (default: {usual.margin})"
    parser.add_argument("--margin", type=float, default=usual.margin, help=margin)
    worth = "compare episodes by the outcome, or with turn rewards (default: outcome)"
    parser.add_argument("--worth", choices=list(WORTHS), default=usual.worth, help=worth)
    parser.add_argument("--model", help="the base, if it is no longer where the run had it")
    adapter = "start from this adapter, as RUN/adapter (default: what the run itself started from)"
    parser.add_argument("--adapter", type=Path, metavar="DIR", help=adapter)


def run(arguments: argparse.Namespace) -> int:
    runs = [path for path in arguments.runs if "=" not in str(path) or path.exists()]
    overrides = [str(path) for path in arguments.runs if path not in runs]  # argparse can't tell them apart
    names = ("segment", "margin", "worth", "model", "adapter")
    tree: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    tree["segment"] = None if tree["segment"] == "all" else tree["segment"]
    for override in [*overrides, *arguments.overrides]:
        trees.apply(tree, override)
    asked = validated(Asked, tree, "rft prefer")
    with Screen(Console(soft_wrap=True, markup=False)) as screen:
        prefer(runs, arguments.out, asked, screen)
    return DONE


def prefer(runs: Sequence[Path], out: Path, asked: Asked, watcher: Watcher) -> Held | None:
    """Mine, train, measure and write, and say on the way what came of it. None where nothing is held out.

    Raises:
        InputError: no pairs, runs that don't go together, a tokenizer that is not theirs, or settings that can't be.
    """
    if not runs:
        raise InputError("name at least one run directory")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} is there and not empty; name another directory")
    from rl.trainers.preference import settings

    args = settings(str(out), asked.seed, asked.trainer)
    config, policy = source(runs, asked)
    recorded = [groups(path) for path in runs]
    everything = [group for of_run in recorded for group in of_run]
    mined = mine(everything, segment=asked.segment, margin=asked.margin, worth=asked.worth, seed=asked.seed)
    if not mined.pairs:
        raise InputError(f"no pairs: {mined.why_none()}. A smaller --margin, --worth total or more episodes may help")
    learned, held = split(mined.pairs, asked.held_out, asked.seed)
    _say(watcher, said(mined, learned, held))
    trainer = _trainer(config, policy, asked, args, recorded, learned, held)
    made = config.model_copy(
        update={
            "output_dir": out,
            "model": policy.model,
            "tiny": {},
            "adapter": None,
            "lora": (config.lora if policy.adapter is None else {}) | asked.lora,
        }
    )
    with Run.create(out, made.model_dump(mode="json")) as log:
        trainer.add_callback(_metrics(log, watcher, trainer))
        before = trainer.likelihoods(held)
        trainer.train()
        after = trainer.likelihoods(held)
        trainer.export(out / ADAPTER)
        found = judged(held, before, after) if held else None
        report = {
            "runs": [str(path.resolve()) for path in runs],
            "started_from": {"model": policy.model, "adapter": policy.adapter and str(policy.adapter)},
            "asked": asked.model_dump(mode="json"),
            "mined": {each.name: getattr(mined, each.name) for each in fields(mined)} | {"pairs": len(mined.pairs)},
            "learned": len(learned),
            "held_out": found and asdict(found),
        }
        write_whole(out / REPORT, json.dumps(report, indent=1) + "\n")
        log.note("preferred", step=trainer.state.global_step, pairs=len(learned))
    _say(watcher, told(found) if found is not None else ())
    watcher.say(f"run: {out}; measure it with: rft eval {out}")
    return found


def source(runs: Sequence[Path], asked: Asked) -> tuple[Config, Policy]:
    """The config of the first run, and the policy that all of them began with, unless another is asked for.

    Raises:
        InputError: the runs began with different policies, or the embedded one of a run is gone.
    """
    configs = [parse(Run.read(path).config, where=str(path)) for path in runs]
    first = configs[0]
    for path, config in zip(runs, configs, strict=True):
        if asked.model is None and _origin(config) != _origin(first):
            raise InputError(f"{path} and {runs[0]} are runs of different models; take the runs of one")
        if asked.adapter is None and config.adapter != first.adapter:
            raise InputError(f"{path} and {runs[0]} began with different adapters; name one as --adapter")
    model = asked.model or (str((runs[0] / BASE).resolve()) if first.model == "tiny" else first.model)
    if asked.model is None and first.model == "tiny" and not Path(model).is_dir():
        raise InputError(f"{runs[0]} has no {BASE}/ any more, which was its policy; say where it is as --model")
    return first, Policy(model=model, adapter=asked.adapter or first.adapter)


def groups(path: Path) -> list[Group]:
    """The groups that a run recorded, in order.

    Raises:
        InputError: there is no run, or its records are damaged.
    """
    found: dict[tuple[int, int], Group] = defaultdict(list)
    for each in Run.read(path).episodes():
        found[each.step, each.position].append(each.played)
    return [found[place] for place in sorted(found)]


def judged(pairs: Sequence[Pair], before: Sequence[Likelihoods], after: Sequence[Likelihoods]) -> Held:
    """What was measured on held-out pairs."""
    return Held(
        tasks=len({pair.task for pair in pairs}),
        pairs=len(pairs),
        preferred=_share(pairs, [each.advantage > 0 for each in after]),
        likelier=(
            _share(pairs, [each.chosen > each.rejected for each in before]),
            _share(pairs, [each.chosen > each.rejected for each in after]),
        ),
    )


def said(mined: Mined, learned: Sequence[Pair], held: Sequence[Pair]) -> Iterator[str]:
    """What was mined, for a person."""
    pairs = mined.pairs
    tasks, other = (len({pair.task for pair in part}) for part in (learned, held))
    turns = fmean(number for pair in pairs for number in pair.turns)
    tokens = fmean(pair.learned / 2 for pair in pairs)
    share = sum(pair.learned for pair in pairs) / sum(pair.sampled for pair in pairs)
    yield f"{mined.groups} groups of {mined.episodes} episodes ({mined.left_out} left out); {mined.mixed} are mixed"
    yield f"{len(pairs)} pairs: {len(learned)} of {tasks} tasks to learn from, {len(held)} of {other} tasks held out"
    yield (
        f"a segment has {turns:.1f} turns and {tokens:.1f} sampled tokens on average; {share:.1%} of the sampled "
        "tokens of the paired episodes carry loss"
    )


def told(held: Held) -> Iterator[str]:
    """What was learned, for a person."""
    before, after = map(_percent, held.likelier)
    yield f"held out, {held.pairs} pairs of {held.tasks} tasks (95 % interval over tasks):"
    yield f"  the better segment gained more   {_percent(held.preferred)}; before, none has gained"
    yield f"  the better segment is likelier   {after}; before {before}"


def _say(watcher: Watcher, lines: Iterable[str]) -> None:
    for line in lines:
        watcher.say(line)


def _percent(share: Estimate) -> str:
    return f"{share.mean:.1%} ({share.low:.1%} to {share.high:.1%})"


def _share(pairs: Sequence[Pair], right: Sequence[bool]) -> Estimate:
    by_task: dict[str, list[bool]] = defaultdict(list)
    for pair, each in zip(pairs, right, strict=True):
        by_task[pair.task].append(each)
    return proportion(list(by_task.values()))


def _origin(config: Config) -> str:
    return f"tiny {tiny.recipe_of(config).digest}" if config.model == "tiny" else config.model


def _trainer(
    config: Config,
    policy: Policy,
    asked: Asked,
    args: Any,
    recorded: Sequence[Sequence[Group]],
    learned: Sequence[Pair],
    held: Sequence[Pair],
) -> SegmentTrainer:
    """The policy, loaded and ready to learn."""
    from transformers import AutoModelForCausalLM

    from rl.session import open_chat, read_network, read_tokenizer
    from rl.trainers.preference import SegmentTrainer
    from rl.trainers.settings import check_targets, lora_config
    from rl.trainers.start import continued

    tokenizer = read_tokenizer(policy.model)
    chat = open_chat(config.chat, tokenizer)
    for of_run in recorded:
        check_words(of_run, chat)
    dtype = "bfloat16" if args.bf16 else "float32"
    model: PreTrainedModel | PeftModel
    if policy.adapter is not None:
        args.model_init_kwargs = {"dtype": dtype}
        model, lora = continued(policy.model, policy.adapter, args, asked.lora), None
    else:
        lora = lora_config(config.lora | asked.lora)
        check_targets(read_network(policy.model), lora)
        model = AutoModelForCausalLM.from_pretrained(policy.model, dtype=dtype)
    return SegmentTrainer(model, tokenizer, learned, args, lora=lora, held_out=held)


def check_words(of_run: Sequence[Group], chat: Chat) -> None:
    """See that recorded ids still say what they said.

    Raises:
        InputError: they don't, so the run was sampled with another tokenizer.
    """
    for episode in (group[0].episode for group in of_run[:TRIED] if group[0].episode.turns):
        was = episode.turns[0].completion
        now = chat.parse(was.token_ids)
        names = [[call.name for call in message.tool_calls] for message in (was.message, now)]
        if names[0] != names[1] or was.message.content != now.content:
            raise InputError(
                f"episode {episode.id} was sampled with another tokenizer or chat template than that of {chat.name}: "
                f"its first turn reads {chat.text(was.token_ids)!r} there. Name the model that played it"
            )


def _metrics(log: Run, watcher: Watcher, trainer: SegmentTrainer) -> Any:
    from rl.trainers.callbacks import Metrics

    def write(entry: Mapping[str, Any]) -> None:
        log.metrics.append(dict(entry))
        if "loss" in entry:
            watcher.step(entry["step"], trainer.state.max_steps, entry)

    return Metrics(write)
