"""Samples to be graded, from JSONL, with what experts said about them where they did; and many graded at once.

A line is an object with `item` (the dataset row) and `sample` (a text, or a `sample` object), or `samples`: several of
one prompt. What experts said is `label` (a number, true or false) or `labels` (a list, or an object by expert), beside
`sample`; among `samples` each is then an object with `sample` and `label` or `labels`. `group` names the prompt; rows
with equal items are samples of one prompt unless it says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.errors import InputError, unknown
from envs.tasks import jsonl_rows
from envs.together import together
from rewards.graders.run import Grade, Grader
from rewards.graders.sample import Sample, of_json
from rewards.graders.spec import content_hash

KEYS = ("item", "sample", "samples", "label", "labels", "group")
EXPERT = "expert"
"""What the one expert is called where `label` says nothing about who."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sample of one prompt."""

    where: str
    """File and line, for messages."""
    item: Mapping[str, Any]
    sample: Sample
    labels: Mapping[str, float] = field(default_factory=dict)
    """Expert -> what the sample is worth."""
    group: str = ""
    """Equal for samples of one prompt."""

    @property
    def label(self) -> float | None:
        """The experts' mean; None where none said anything."""
        return math.fsum(self.labels.values()) / len(self.labels) if self.labels else None


def read(path: str | Path) -> list[Row]:
    """The samples of a JSONL file, in its order.

    Raises:
        InputError: the file can't be read or is empty, or a line is no row; named by file and line.
    """
    rows = [row for number, tree in jsonl_rows(Path(path)) for row in of_tree(tree, f"{path}, line {number}")]
    if not rows:
        raise InputError(f"{path} holds no samples")
    return rows


def of_tree(tree: Any, where: str) -> Iterator[Row]:
    """The samples of one line.

    Raises:
        InputError: it is no row; says what is wrong.
    """
    if not isinstance(tree, Mapping):
        raise InputError(f"{where}: expected an object, found {type(tree).__name__}")
    for key in tree:
        if key not in KEYS:
            raise InputError(f"{where}: {unknown('field', str(key), KEYS)}; fields of the dataset row go into 'item'")
    item = tree.get("item", {})
    if not isinstance(item, Mapping):
        raise InputError(f"{where}: item: expected an object, found {type(item).__name__}")
    if ("sample" in tree) == ("samples" in tree):
        raise InputError(f"{where}: expected one of 'sample' and 'samples'")
    group = str(tree["group"]) if "group" in tree else content_hash(item)
    several = tree.get("samples", [tree])
    if not isinstance(several, list) or not several:
        raise InputError(f"{where}: samples: expected a list of samples")
    for i, one in enumerate(several):
        place = where if "sample" in tree else f"{where}, sample {i + 1}"
        said = one["sample"] if isinstance(one, Mapping) and "sample" in one else one
        labels = _labels(one, place) if isinstance(one, Mapping) else {}
        yield Row(where=place, item=item, sample=of_json(said, place), labels=labels, group=group)


async def grade_all(
    grader: Grader, rows: Sequence[Row], *, concurrency: int = 64, done: Callable[[int], None] | None = None
) -> list[Grade]:
    """The grade of each row, in their order.

    Args:
        concurrency: how many at once; a pool and a judge have limits of their own.
        done: called after each with how many are.
    """
    grades: dict[int, Grade] = {}
    waiting = iter(enumerate(rows))

    async def work() -> None:
        for i, row in waiting:
            trace = f"trace_{content_hash(row.where)[:32]}"
            grades[i] = await grader.grade(row.item, row.sample, trace_id=trace)
            if done is not None:
                done(len(grades))

    await together(work() for _ in range(min(concurrency, len(rows))))
    return [grades[i] for i in range(len(rows))]


def _labels(tree: Mapping[str, Any], where: str) -> dict[str, float]:
    if "label" in tree and "labels" in tree:
        raise InputError(f"{where}: expected one of 'label' and 'labels'")
    if "label" in tree:
        return {EXPERT: _number(tree["label"], f"{where}: label")}
    labels = tree.get("labels", {})
    if isinstance(labels, list):
        labels = {f"{EXPERT} {i + 1}": label for i, label in enumerate(labels)}
    if not isinstance(labels, Mapping):
        raise InputError(f"{where}: labels: expected a list, or an object by expert, found {type(labels).__name__}")
    # An expert who skipped a sample said null.
    return {str(who): _number(said, f"{where}: labels.{who}") for who, said in labels.items() if said is not None}


def _number(value: Any, where: str) -> float:
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return float(value)
    raise InputError(f"{where}: expected a number, true or false, found {value!r}")
