"""One YAML -> the runs of every arm and seed, or why they could not be compared.

    base: demo.yaml                  # a config, beside this file
    common: {trainer.max_steps: 30}  # settings of all runs, by dotted key
    arms:
      outcome: {}
      process:
        set: {reward.steps: {use: progress, weight: 0.1}, credit.name: return_to_go_loo}
    seeds: [0, 1, 2, 3, 4, 5]
    holdout: {solved: {use: state_equal, require: [done, no_violations]}}
    evaluate_every: 5
    output_dir: runs/process

Arms are paired by seed: runs of one seed have the same base policy, tasks, order of tasks and budgets.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from envs.errors import InputError, unknown
from rl import scene, trees
from rl.config import Config, Section, parse, validated
from rl.tiny import Recipe, recipe_of
from rl.trees import differing

OURS = ("seed", "output_dir", "holdout", "trainer.eval_strategy", "trainer.eval_steps", "trainer.eval_on_start")
"""Settings of a run that the ablation makes of its own."""

ESSENCE = ("reward", "credit")
"""What arms may differ in unless told otherwise."""


class Arm(Section):
    """One way to train."""

    set: dict[str, Any] = {}
    """Dotted key -> value: what this arm changes. A section is replaced as a whole."""
    seeds: tuple[int, ...] | None = None
    """Where it has fewer than the others."""


class Ablation(Section):
    """What is compared, and how it is measured."""

    base: str
    """A config file; a relative path is beside this one."""
    common: dict[str, Any] = {}
    """Dotted key -> value, for every run."""
    arms: dict[str, Arm] = Field(min_length=2)
    reference: str | None = None
    """The arm that others are compared with; the first unless named."""
    compare: tuple[str, ...] | None = None
    """The arms whose difference is tested, named before training; all unless given. The others get no p."""
    may_differ: tuple[str, ...] = ESSENCE
    """Keys, or sections, in which arms may differ. What else an arm changes is refused."""
    seeds: tuple[int, ...] = Field(min_length=1)
    holdout: dict[str, Any] = Field(min_length=1)
    """A reward that no arm is paid by: success is what it says, on the evaluation split."""
    evaluate_every: int = Field(ge=1)
    """Steps."""
    last: int = Field(3, ge=1)
    """A run's success is the mean of its last so many evaluations: a fixed rule, never the best one."""
    threshold: float = Field(0.8, gt=0, le=1)
    """The success that sample efficiency counts the steps and tokens to."""
    output_dir: Path

    @model_validator(mode="after")
    def _whole(self) -> Ablation:
        for name in (*([self.reference] if self.reference else []), *(self.compare or ())):
            if name not in self.arms:
                raise ValueError(f"reference, compare: {unknown('arm', name, self.arms)}")
        if self.compare is not None and self.first in self.compare:
            raise ValueError(f"compare: {self.first} is what the others are compared with; leave it out")
        for where, seeds in [("seeds", self.seeds), *((f"arms.{n}.seeds", a.seeds) for n, a in self.arms.items())]:
            if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
                raise ValueError(f"{where}: seeds are different numbers, one at least, not {list(seeds)}")
        for name in self.arms:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"arms: {name!r} is to be a directory: use letters, digits, - and _")
        return self

    @property
    def first(self) -> str:
        """The reference."""
        return self.reference or next(iter(self.arms))

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        own = self.arms[arm].seeds
        return self.seeds if own is None else own


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run: an arm with a seed."""

    arm: str
    seed: int
    config: Config
    recipe: Recipe | None
    """How the embedded policy at `config.model` is made, where it is that."""

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.config.output_dir

    def beside(self, suffix: str) -> Path:
        """A file beside the run directory."""
        return self.path.with_name(self.path.name + suffix)

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every run of an ablation, seed by seed, so that what is there after a while is pairs."""

    ablation: Ablation
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...]
    """What arms differ in beside reward and credit, because the ablation says that they may."""

    @property
    def path(self) -> Path:
        return self.ablation.output_dir

    def chosen(self, arms: Collection[str] | None, seeds: Collection[int] | None) -> list[Cell]:
        """The runs of these arms and seeds; None takes all.

        Raises:
            InputError: there is no such arm or seed.
        """
        for arm in arms or ():
            if arm not in self.ablation.arms:
                raise InputError(f"--arms: {unknown('arm', arm, self.ablation.arms)}")
        there = {cell.seed for cell in self.cells}
        for seed in seeds or ():
            if seed not in there:
                raise InputError(f"--seeds: {seed} is not among the seeds {', '.join(map(str, sorted(there)))}")
        return [c for c in self.cells if (not arms or c.arm in arms) and (not seeds or c.seed in seeds)]


def read(file: Path, *overrides: str) -> Plan:
    """The plan in a file, with `key=value` changes: of the ablation, or of the settings of all runs.

    Raises:
        InputError: a mistake in the file or in a run's config; arms that differ in more than they may.
    """
    tree = trees.read(file)
    for override in overrides:
        key, value = trees.assignment(override)
        if key.split(".")[0] in Ablation.model_fields:
            trees.put(tree, key, value)
        else:
            tree["common"] = {**(tree.get("common") or {}), key: value}
    ablation = validated(Ablation, tree, str(file))
    base = trees.read(file.parent / ablation.base)
    order = sorted({seed for arm in ablation.arms for seed in ablation.seeds_of(arm)}, key=_rank(ablation.seeds))
    cells = [
        _cell(ablation, arm, seed, _config(ablation, arm, seed, base, str(file)))
        for seed in order
        for arm in ablation.arms
        if seed in ablation.seeds_of(arm)
    ]
    for cell in {cell.arm: cell for cell in cells}.values():
        scene.player(cell.config)
        scene.holdout(cell.config)
    return Plan(ablation=ablation, cells=tuple(cells), warnings=tuple(_refuse_unlike(ablation, cells)))


def _rank(seeds: tuple[int, ...]) -> Any:
    return lambda seed: (seeds.index(seed) if seed in seeds else len(seeds), seed)


def _config(ablation: Ablation, arm: str, seed: int, base: Mapping[str, Any], where: str) -> Config:
    tree = copy.deepcopy(dict(base))
    for source, changes in (("common", ablation.common), (f"arms.{arm}.set", ablation.arms[arm].set)):
        for key, value in changes.items():
            if any(_within(key, own) or _within(own, key) for own in OURS):
                raise InputError(f"{where}: {source}: {key} is the ablation's to set, for all runs alike")
            trees.put(tree, key, copy.deepcopy(value))
    trees.put(tree, "seed", seed)
    trees.put(tree, "output_dir", str(ablation.output_dir / arm / f"seed{seed}"))
    trees.put(tree, "holdout", ablation.holdout)
    for name, value in (("strategy", "steps"), ("steps", ablation.evaluate_every), ("on_start", True)):
        trees.put(tree, f"trainer.eval_{name}", value)
    config = parse(tree, f"{where}, arm {arm}")
    steps = config.trainer.get("max_steps", 0)
    if steps <= 0 or steps % ablation.evaluate_every:
        raise InputError(
            f"{where}, arm {arm}: trainer.max_steps is {steps}; it has to be a multiple of evaluate_every "
            f"({ablation.evaluate_every}), so that the policy is measured at its end"
        )
    return config


def _cell(ablation: Ablation, arm: str, seed: int, config: Config) -> Cell:
    """The run, its embedded policy in a place that runs share: what has the same recipe is made once."""
    if config.model != "tiny":
        return Cell(arm=arm, seed=seed, config=config, recipe=None)
    recipe = recipe_of(config)
    made = ablation.output_dir / "bases" / recipe.digest
    return Cell(arm=arm, seed=seed, config=config.model_copy(update={"model": str(made), "tiny": {}}), recipe=recipe)


def _refuse_unlike(ablation: Ablation, cells: list[Cell]) -> Iterator[str]:
    """Refuse arms that differ from the reference where they may not; yield what makes the others hard to compare."""
    by_seed = {(cell.arm, cell.seed): cell.config.model_dump(mode="json") for cell in cells}
    first = {seed: tree for (arm, seed), tree in by_seed.items() if arm == ablation.first}
    unlike: dict[str, dict[str, None]] = {}
    for (arm, seed), tree in by_seed.items():
        if seed not in first:
            raise InputError(f"arm {arm}: seed {seed} has no run of {ablation.first} to be compared with")
        for key in differing(first[seed], tree):
            if key != "output_dir":
                unlike.setdefault(arm, {})[key] = None
    for arm, keys in unlike.items():
        if beyond := [key for key in keys if not any(_within(key, may) for may in ablation.may_differ)]:
            raise InputError(
                f"arm {arm} differs from {ablation.first} in {', '.join(beyond)}, so that a difference could come from "
                f"that as well: take it out, or name it under may_differ if it is what is asked"
            )
        if more := [key for key in keys if not any(_within(key, may) for may in ESSENCE)]:
            yield f"{arm} differs from {ablation.first} in {', '.join(more)} as well"


def _within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")
