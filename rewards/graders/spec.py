"""Grader JSON as people write it and as hosted services accept it, read into models of our own.

The official SDK's types refuse what the service takes (`graders` of a multi grader is a map of names to
graders; the SDK types it as one grader, the published example shows a list), so they are not used here.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from envs.errors import InputError, unknown
from rewards.graders.formula import Formula
from rewards.graders.template import Template

SOURCE_BYTES = 256_000
"""A python grader's source must be smaller: 256 kB, read as the smaller of the two things that may mean."""

METRICS = (
    "cosine", "fuzzy_match", "bleu", "gleu", "meteor",
    "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l",
)  # fmt: skip

Text: TypeAlias = Annotated[str, Field(min_length=1)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Base(Model):
    """What every grader has."""

    name: Text | None = None
    """None only before `parse` has filled it in."""
    pass_threshold: float | None = Field(None, allow_inf_nan=False)
    """Kept and given back; it decides nothing here, since training takes the score itself."""

    @property
    def templates(self) -> dict[str, str]:
        """Every text that may hold variables, by where it stands."""
        return {}


class StringCheck(Base):
    """1 or 0: the two texts are equal, are not, or the first contains the second (`like`, `ilike`)."""

    type: Literal["string_check"]
    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]

    @property
    def templates(self) -> dict[str, str]:
        return {"input": self.input, "reference": self.reference}


class TextSimilarity(Base):
    """How alike two texts are, from 0 to 1."""

    type: Literal["text_similarity"]
    input: str
    reference: str
    evaluation_metric: Literal[METRICS]  # type: ignore[valid-type]  # the tuple is the one list of metrics

    @property
    def templates(self) -> dict[str, str]:
        return {"input": self.input, "reference": self.reference}


class InputText(Model):
    type: Literal["input_text", "output_text"]
    text: str


class InputImage(Model):
    type: Literal["input_image"]
    image_url: str
    detail: Literal["high", "low", "auto"] | None = None


class Audio(Model):
    data: str
    format: Literal["mp3", "wav"]


class InputAudio(Model):
    type: Literal["input_audio"]
    input_audio: Audio


Part: TypeAlias = Annotated[InputText | InputImage | InputAudio, Field(discriminator="type")]


class JudgeMessage(Model):
    """A message to a judge; every text in it may hold variables."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | Part | list[Part]
    type: Literal["message"] | None = None

    @property
    def parts(self) -> list[Part]:
        """The content as parts, whatever way it was written."""
        if isinstance(self.content, str):
            return [InputText(type="input_text", text=self.content)]
        return self.content if isinstance(self.content, list) else [self.content]


class SamplingParams(Model):
    """How the judge is sampled, by the service's names (the extra s included)."""

    seed: int | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    temperature: float | None = Field(None, ge=0)
    max_completions_tokens: int | None = Field(None, ge=1)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class Judged(Base):
    """What graders that ask a model have in common."""

    model: Text
    input: list[JudgeMessage] = Field(min_length=1)
    sampling_params: SamplingParams = SamplingParams()

    @property
    def templates(self) -> dict[str, str]:
        texts = {}
        for i, message in enumerate(self.input):
            for j, part in enumerate(message.parts):
                match part:
                    case InputText():
                        texts[f"input.{i}.{j}"] = part.text
                    case InputImage():
                        texts[f"input.{i}.{j}"] = part.image_url
                    case InputAudio():
                        texts[f"input.{i}.{j}"] = part.input_audio.data
        return texts


class ScoreModel(Judged):
    """A number from a model that judges, cut off at the ends of `range`."""

    type: Literal["score_model"]
    range: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2, max_length=2)] | None = (
        None
    )

    @property
    def limits(self) -> tuple[float, float]:
        low, high = self.range or (0.0, 1.0)
        return low, high

    @model_validator(mode="after")
    def _ordered(self) -> ScoreModel:
        if self.limits[0] >= self.limits[1]:
            raise ValueError(f"range {self.range} is empty: the first number must be the smaller")
        return self


class LabelModel(Judged):
    """1 if the label that a model picks is a passing one. Only inside a multi grader."""

    type: Literal["label_model"]
    labels: list[Text] = Field(min_length=2)
    passing_labels: list[Text] = Field(min_length=1)

    @model_validator(mode="after")
    def _passing_are_labels(self) -> LabelModel:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: one is there twice")
        for label in self.passing_labels:
            if label not in self.labels:
                raise ValueError(f"passing_labels: {unknown('label', label, self.labels)}")
        return self


class Python(Base):
    """A number from `grade(sample, item)`, run apart from everything else."""

    type: Literal["python"]
    source: Text
    image_tag: str | None = None
    """Kept and given back: which image the hosted service runs the source in."""

    @field_validator("source")
    @classmethod
    def _gradeable(cls, source: str) -> str:
        size = len(source.encode("utf-8", "replace"))
        if size >= SOURCE_BYTES:
            raise ValueError(f"source has {size:,} bytes; a grader must stay under {SOURCE_BYTES:,}")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"source is not Python: {error}") from None
        _check_grade(tree)
        return source


def _check_grade(tree: ast.Module) -> None:
    """Refuse a source without a `grade` that takes (sample, item); one that is assigned or imported is believed."""
    if any(isinstance(node, ast.AsyncFunctionDef) and node.name == "grade" for node in tree.body):
        raise ValueError("grade must be a plain function, not async")
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "grade"]
    if functions:
        args = functions[-1].args
        positional = len(args.posonlyargs) + len(args.args)
        needed = positional - len(args.defaults)
        required = [a.arg for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is None]
        if needed > 2 or (positional < 2 and not args.vararg) or required:
            raise ValueError("grade must take exactly two arguments: def grade(sample, item)")
        return
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    if "grade" not in names:
        raise ValueError("source has no function grade at its top level: def grade(sample, item) -> float")


class Endpoint(Base):
    """A number from a server of the user's: POST {sample, item, trace_id}, answered with {score}."""

    type: Literal["endpoint"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+")]
    headers: dict[str, str] = {}
    rate_limit: int | None = Field(None, ge=1)
    """Requests a second."""


Child: TypeAlias = Annotated[
    StringCheck | TextSimilarity | ScoreModel | LabelModel | Python | Endpoint, Field(discriminator="type")
]


class Multi(Base):
    """A formula over named graders."""

    type: Literal["multi"]
    graders: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Child] = Field(min_length=1)
    calculate_output: Text
    invalid_grade: float | None = Field(None, allow_inf_nan=False)
    """What the whole is worth where a grader in it failed on the sample; None goes on with their error scores."""

    @field_validator("graders", mode="before")
    @classmethod
    def _by_name(cls, graders: Any) -> Any:
        """The list that the published example shows, and the one grader of the SDK's type, by their names."""
        if isinstance(graders, Mapping) and isinstance(graders.get("type"), str):
            graders = [graders]
        if not isinstance(graders, list):
            return graders
        names = [grader.get("name") if isinstance(grader, Mapping) else None for grader in graders]
        if None in names:
            raise ValueError("in a list every grader needs a name; the formula calls it by that. Better: a map")
        if len(set(names)) < len(names):
            raise ValueError("two graders of the list have one name; the formula could not tell them apart")
        return dict(zip(names, graders, strict=True))

    @model_validator(mode="after")
    def _formula_fits(self) -> Multi:
        Formula.parse(self.calculate_output, names=self.graders)
        return self


Spec: TypeAlias = StringCheck | TextSimilarity | ScoreModel | LabelModel | Python | Endpoint | Multi

TYPES: dict[str, type[Base]] = {
    "string_check": StringCheck,
    "text_similarity": TextSimilarity,
    "score_model": ScoreModel,
    "label_model": LabelModel,
    "python": Python,
    "endpoint": Endpoint,
    "multi": Multi,
}
_SPEC: TypeAdapter[Spec] = TypeAdapter(Annotated[Spec, Field(discriminator="type")])


def parse(tree: Any, where: str = "grader") -> Spec:
    """A grader of plain data, checked, with every name filled in: a child's by its key, else by its content.

    Raises:
        InputError: what is wrong, and where: a field, a type, a template, a formula, a source.
    """
    if isinstance(tree, Mapping) and tree.get("type") == "label_model":
        raise InputError(f"{where}: label_model is accepted only inside a multi grader")
    try:
        found = _SPEC.validate_python(tree)
    except ValidationError as error:
        raise InputError("\n".join(_explain(where, item) for item in error.errors(include_url=False))) from None
    for place, child in walk(found, where):
        for key, text in child.templates.items():
            Template.parse(text, f"{place}.{key}")
    return _named(found)


def load(path: str | Path) -> Spec:
    """The grader in a JSON file.

    Raises:
        InputError: the file can't be read, is not JSON, or holds no grader.
    """
    return parse(read(path), str(path))


def read(path: str | Path) -> Any:
    """What a file of grader JSON holds, unchecked; `{"grader": {...}}` is taken for what it holds.

    Raises:
        InputError: the file can't be read or is not JSON.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if isinstance(tree, Mapping) and set(tree) == {"grader"}:
        return tree["grader"]
    return tree


def walk(grader: Spec, where: str = "grader") -> Iterator[tuple[str, Spec]]:
    """The grader and those inside it, each with the path it stands at."""
    yield where, grader
    if isinstance(grader, Multi):
        for key, child in grader.graders.items():
            yield f"{where}.graders.{key}", child


def as_json(grader: Spec) -> dict[str, Any]:
    """The grader as the service gives it back: names filled in, nothing that was not said."""
    return grader.model_dump(mode="json", exclude_none=True, exclude_unset=True)


def content_hash(*values: Any) -> str:
    """64 hex digits of SHA-256 over JSON values; equal for equal content, whatever the order of keys."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _named(grader: Spec) -> Spec:
    if isinstance(grader, Multi):
        children = {
            key: child if child.name else child.model_copy(update={"name": key})
            for key, child in grader.graders.items()
        }
        grader = grader.model_copy(update={"graders": children})
    if grader.name:
        return grader
    return grader.model_copy(update={"name": f"grader-{content_hash(as_json(grader))[:12]}"})


def _explain(where: str, item: Any) -> str:
    """One thing pydantic found, with the nearest valid name where one was unknown."""
    path = [str(part) for part in item["loc"]]
    # A union's tag stands in the path where a person sees nothing.
    shown = [part for i, part in enumerate(path) if not (part in TYPES and (i == 0 or path[i - 2] == "graders"))]
    place = ".".join([where, *shown])
    if item["type"] == "extra_forbidden":
        kinds = [part for part in path[:-1] if part in TYPES]
        fields = TYPES[kinds[-1]].model_fields if kinds and not re.search(r"\binput\b|params", place) else {}
        hint = unknown("field", path[-1], fields) if fields else f"unknown field {path[-1]!r}"
        return f"{place.rpartition('.')[0]}: {hint}"
    if item["type"] == "union_tag_invalid":
        tag = str(item["ctx"]["tag"])
        if tag == "multi":
            return f"{place}: a multi grader can't hold another; put its formula into this one's"
        expected = [name.strip(" '") for name in item["ctx"]["expected_tags"].split(",")]
        return f"{place}.type: {unknown('type', tag, expected)}"
    if item["type"] == "missing":
        return f"{place}: the field is missing"
    if item["type"] == "string_pattern_mismatch" and "[key]" in path:
        key = str(item["input"])
        better = re.sub(r"\W", "_", key)
        return f"{where}.graders.{key}: the formula can't call a grader by this name; use {better!r}"
    return f"{place}: {item['msg'].removeprefix('Value error, ')}"
