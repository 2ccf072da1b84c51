"""What a reward model says of itself: `reward_model.json`, beside its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from envs.errors import InputError, reasons
from rl.stats.calibration import Scale

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["outcome", "process"]

RECORD = "reward_model.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What has to be known to use a reward model, and what it was made of."""

    kind: Kind
    base: str
    """The model it began as; needed to load it only if `lora`."""
    lora: bool
    """Whether the weights are an adapter and a head, and not the whole model."""
    vocabulary: str
    """Of `vocabulary`: the tokens it reads."""
    pad: int
    """The id that rows are filled up with."""
    scale: Scale
    """From its scores to chances of success."""
    made_of: Mapping[str, Any] = field(default_factory=dict)
    """Runs, policies, tasks, and how many pairs or states."""
    held_out: Mapping[str, Any] = field(default_factory=dict)
    """How good it was on tasks that it had not seen."""

    def write(self, directory: Path) -> None:
        (directory / RECORD).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read(directory: Path) -> Record:
    """The record of a reward model.

    Raises:
        InputError: there is none, or it is not as `write` wrote it.
    """
    try:
        text = (directory / RECORD).read_text(encoding="utf-8")
    except OSError:
        raise InputError(
            f"{directory} holds no reward model (there is no {RECORD}); make one: rft reward-model"
        ) from None
    try:
        return TypeAdapter(Record).validate_json(text)
    except ValidationError as error:
        raise InputError(f"{directory / RECORD}: {reasons(error)}") from error


def digest(directory: Path) -> str:
    """A hash of everything in the directory that scores depend on: weights, configs and the record."""
    found = hashlib.sha256()
    for path in sorted(directory.glob("*")):
        if path.suffix in (".json", ".safetensors"):
            with path.open("rb") as file:
                found.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of which id means which token."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


def reads(directory: Path, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Make sure that a reward model reads what a model writes.

    Raises:
        InputError: there is no reward model, or its tokens mean something else.
    """
    if read(directory).vocabulary != vocabulary(tokenizer):
        raise InputError(
            f"reward model {directory} reads another vocabulary than model {model!r} writes; "
            "make one of runs of this model, or of one with the same tokenizer"
        )
