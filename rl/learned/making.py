"""A reward model from runs: their episodes read, dealt by task, learned from, and the rest asked how good it is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.errors import InputError
from envs.types import Episode
from rl import config as configs
from rl.config import ADAPTER, BASE, Config
from rl.learned import labels
from rl.learned.labels import Rollout, Split
from rl.learned.measure import Measured, Trial, best_of, by_turn, forecasts
from rl.learned.record import Kind, Record, vocabulary
from rl.learned.reroll import Rerolled, reroll, starts
from rl.records import Run
from rl.stats.calibration import platt
from rl.whole import whole_directory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAIRS = 8
"""Of one group of samples, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a reward model is made."""

    kind: Kind
    seed: int = 0
    steps: int = 100
    batch: int = 16
    """Rows a step, or pairs."""
    learning_rate: float = 5e-4
    lora: int | None = None
    """Rank of an adapter to train; None trains all weights."""
    rerolls: int = 0
    """New rollouts from a turn in the middle of each training episode, for a process model."""


@dataclass(slots=True, kw_only=True)
class Source:
    """A run, and what was read of it."""

    path: Path
    config: Config
    base: str
    rollouts: list[Rollout] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    """What the rollouts are of, one each; only where they are to be played on from."""
    versions: set[int] = field(default_factory=set)
    """Of the policy that sampled them."""
    skipped: int = 0
    """Episodes without a score, or without tokens."""


def make(runs: Sequence[Path], out: Path, options: Options, say: Callable[[str], None]) -> Measured:
    """Make a reward model of runs in the directory `out`, which is made whole or not at all.

    Raises:
        InputError: the runs can't be used together, or have too little in them; `out` is there and not empty.
    """
    from rl.session import read_tokenizer

    started = time.perf_counter()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} is there: name another directory, or remove it")
    sources = [read(path, whole=options.rerolls > 0) for path in runs]
    tokenizer = read_tokenizer(sources[0].base)
    _refuse_strangers(sources, tokenizer)
    rollouts = [each for source in sources for each in source.rollouts]
    parts = labels.split((each.task for each in rollouts), seed=options.seed)
    say(_about(sources, parts))
    learned, made_of = _material(sources, parts, options, say)
    model = _fit(sources[0].base, tokenizer, learned, options, say)
    say("measuring on held-out tasks")
    found = _measured(model, rollouts, parts, options)
    made_of |= {
        "runs": [{"path": str(source.path), "episodes": len(source.rollouts)} for source in sources],
        "skipped": sum(source.skipped for source in sources),
        "tasks": {name: len(getattr(parts, name)) for name in ("train", "calibration", "held_out")},
        "held_out_tasks": sorted(parts.held_out),
        "versions": sorted(set[int]().union(*(source.versions for source in sources))),
        "options": asdict(options),
        "seconds": time.perf_counter() - started,
    }
    record = Record(
        kind=options.kind,
        base=sources[0].base,
        lora=options.lora is not None,
        vocabulary=vocabulary(tokenizer),
        pad=tokenizer.pad_token_id,
        scale=found.scale,
        made_of=made_of,
        held_out=found.as_dict(),
    )
    _save(out, model, tokenizer, record)
    return found


def read(path: Path, *, whole: bool = False) -> Source:
    """The training episodes of a run that can be learned from.

    Args:
        whole: keep the episodes themselves too.

    Raises:
        InputError: there is no run.
    """
    run = Run.read(path)
    config = configs.parse(run.config, str(path / configs.CONFIG))
    base = str(path / BASE) if (path / BASE).is_dir() else config.model
    source = Source(path=path, config=config, base=base)
    for recorded in run.episodes():
        found = labels.rollout(recorded.played, f"{path}/{recorded.step}/{recorded.position}")
        if found is None:
            source.skipped += 1
            continue
        source.rollouts.append(found)
        source.versions |= {turn.completion.version for turn in recorded.played.episode.turns}
        if whole:
            source.episodes.append(recorded.played.episode)
    return source


def _refuse_strangers(sources: Sequence[Source], tokenizer: PreTrainedTokenizerBase) -> None:
    from rl.session import read_tokenizer

    own = vocabulary(tokenizer)
    for source in sources[1:]:
        if source.base != sources[0].base and vocabulary(read_tokenizer(source.base)) != own:
            raise InputError(f"{source.path} and {sources[0].path} are of models with different vocabularies; name one")


def _about(sources: Sequence[Source], parts: Split) -> str:
    rollouts = [each for source in sources for each in source.rollouts]
    good = sum(each.good for each in rollouts)
    return (
        f"{len(rollouts)} episodes, {good} succeeded, {sum(source.skipped for source in sources)} left out; tasks: "
        f"{len(parts.train)} to train on, {len(parts.calibration)} to calibrate with, {len(parts.held_out)} held out"
    )


def _material(
    sources: Sequence[Source], parts: Split, options: Options, say: Callable[[str], None]
) -> tuple[list[Any], dict[str, Any]]:
    """What is learned from, and what there is of it."""
    train = [labels.of(source.rollouts, parts.train) for source in sources]
    if options.kind == "outcome":
        if options.rerolls:
            raise InputError("--rerolls would have no effect on an outcome model, which learns from whole episodes")
        pairs = labels.pairs((each for own in train for each in own), most=PAIRS, seed=options.seed)
        if not pairs:
            raise InputError("no group of samples holds both a success and a failure, so there is nothing to compare")
        say(f"{len(pairs)} pairs of {len({good.task for good, _ in pairs})} tasks")
        return [(good.ids, bad.ids) for good, bad in pairs], {"pairs": len(pairs)}
    rollouts = [each for own in train for each in own]
    made_of: dict[str, Any] = {}
    if options.rerolls:
        again = [_rerolled(source, parts, options, say) for source in sources]
        rollouts += [each for own, _ in again for each in own]
        made_of["rerolled"] = {
            "rollouts": sum(len(found.played) for _, found in again),
            "departed": sum(found.departed for _, found in again),
            "lost": sum(found.lost for _, found in again),
        }
    rows = labels.labelled(rollouts)
    counts = [n for row in rows for n in row.rollouts]
    many = sum(n > 1 for n in counts)
    say(f"{len(counts)} states in {len(rows)} rows; {many} stand on several rollouts, the most on {max(counts)}")
    return rows, made_of | {"states": len(counts), "rows": len(rows), "trials": sum(counts), "of_several": many}


def _rerolled(
    source: Source, parts: Split, options: Options, say: Callable[[str], None]
) -> tuple[list[Rollout], Rerolled]:
    """New rollouts of the training episodes of a run, by the policy that it ended with."""
    from rl.session import Session

    kept = [n for n, each in enumerate(source.rollouts) if each.task in parts.train]
    begin = starts([source.rollouts[n] for n in kept], options.seed)
    made = source.path / ADAPTER
    adapter = made if made.is_dir() else source.config.adapter
    update = {"model": source.base, "tiny": {}, "seed": options.seed, "adapter": adapter}
    say(f"{len(begin)} states to play on from, {options.rerolls} times each")
    with Session(source.config.model_copy(update=update), source.base) as session:
        session.serve_adapter()
        found = session.loop.run(
            reroll(
                [source.episodes[n] for n in kept],
                begin,
                session.player,
                session.policy(seed=options.seed),
                rolls=options.rerolls,
            )
        )
    say(
        f"{len(found.played)} played, {found.departed} left out because the tools answered otherwise, {found.lost} lost"
    )
    fresh = (labels.rollout(p, source.rollouts[kept[index]].group, since=turns) for index, turns, p in found.played)
    return [each for each in fresh if each is not None], found


def _fit(
    base: str, tokenizer: PreTrainedTokenizerBase, learned: list[Any], options: Options, say: Callable[[str], None]
) -> Any:
    from rl.trainers import reward_model

    say(f"training: {options.steps} steps of {options.batch}")
    lora = None if options.lora is None else reward_model.adapter(options.kind, options.lora)
    fit = reward_model.fit_pairs if options.kind == "outcome" else reward_model.fit_states
    with tempfile.TemporaryDirectory() as scratch:
        args = reward_model.settings(
            scratch,
            steps=options.steps,
            batch=options.batch,
            learning_rate=options.learning_rate,
            seed=options.seed,
        )
        model = reward_model.begin(base, tokenizer, options.kind, seed=options.seed)
        return fit(model, tokenizer, learned, args, lora=lora)


def _measured(model: Any, rollouts: Sequence[Rollout], parts: Split, options: Options) -> Measured:
    """The scale, fitted to the calibration tasks, and then what the held-out tasks say."""
    from rl.trainers import reward_model

    def scored(tasks: frozenset[str]) -> list[tuple[Rollout, list[float]]]:
        own = labels.of(rollouts, tasks)
        states = [(each.ids, each.ends) for each in own]
        return list(zip(own, reward_model.logits(model, options.kind, states), strict=True))

    scale = platt([(score, each.good) for each, scores in scored(parts.calibration) for score in scores])

    def trials(each: Rollout, scores: list[float]) -> list[Trial]:
        return [
            Trial(task=each.task, group=each.group, score=score, chance=scale(score), good=each.good, turn=turn)
            for turn, score in enumerate(scores)
        ]

    held_out = [trials(each, scores) for each, scores in scored(parts.held_out)]
    ends, seed = [own[-1] for own in held_out], options.seed
    if options.kind == "outcome":
        return Measured(
            scale=scale, forecasts={"episodes": forecasts(ends, seed=seed)}, best_of=best_of(ends, seed=seed)
        )
    way = [trial for own in held_out for trial in own[1:-1]]
    told = {"on the way": forecasts(way, seed=seed)} if way else {}
    return Measured(
        scale=scale, forecasts=told | {"at the end": forecasts(ends, seed=seed)}, by_turn=by_turn(way, seed=seed)
    )


def _save(out: Path, model: Any, tokenizer: PreTrainedTokenizerBase, record: Record) -> None:
    with whole_directory(out) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        record.write(draft)
