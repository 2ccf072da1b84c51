"""A grader, ready to grade: made once of its JSON, called for every sample, and itself a `Reward`.

grader = Grader(spec.load("grader.json"), services=Services(pool=...))
grade = await grader.grade(item, sample.of_text("42"))     # as graders/run answers: grade.response()
score = await grader(episode)                              # as a reward
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from envs.errors import InputError
from envs.threads import in_thread
from envs.together import together
from envs.types import Episode
from rewards.graders import model, spec
from rewards.graders.endpoint import Server
from rewards.graders.errors import Blame, GradingError, as_errors
from rewards.graders.formula import Formula, FormulaFault
from rewards.graders.judge import Judge
from rewards.graders.python import GraderPool, PoolError
from rewards.graders.sample import Sample, check_format, format_of, of_episode, of_row
from rewards.graders.settings import Settings
from rewards.graders.similarity import Embed, Metric, cosine, metric
from rewards.graders.template import MissingVariable, Template
from rewards.score import Score

LONG = 1_000_000
"""Above this product of two texts' lengths a comparison runs in a thread, so that nothing else waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What graders need beside their JSON. What no grader uses may be left out."""

    pool: GraderPool | None = None
    """Where python graders run."""
    judge: Judge | None = None
    """Who answers for score_model and label_model."""
    embed: Embed | None = None
    """What makes vectors for cosine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What a sample came to, by the grader as a whole or by one in it."""

    reward: float
    """`error_score` where it could not be graded."""
    name: str
    type: str
    hash: str
    """Of the grader's content and its settings: which grader it was that said so."""
    errors: tuple[GradingError, ...] = ()
    """Everything that went wrong, in this grader and those in it."""
    sub_rewards: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    usage: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Model -> tokens used."""
    output: str = ""
    """What a python grader printed."""

    @property
    def error(self) -> str | None:
        """Why this is nobody's score; None where it is one, be it the error score."""
        said = [str(error) for error in self.errors if error.blame != "sample"]
        return "; ".join(said) if said else None

    def response(self) -> dict[str, Any]:
        """The answer of the hosted `graders/run`; beyond it `metadata.grader_hash`."""
        tokens = sum(used.get("total_tokens", 0) for used in self.usage.values())
        models = list(self.usage)
        return {
            "reward": self.reward if self.error is None else 0.0,
            "metadata": {
                "name": self.name,
                "type": self.type,
                "errors": as_errors(self.errors),
                "execution_time": self.seconds,
                "scores": {},
                "token_usage": tokens if models else None,
                "sampled_model_name": models[0] if len(models) == 1 else None,
                "grader_hash": self.hash,
            },
            "sub_rewards": dict(self.sub_rewards),
            "model_grader_token_usage_per_model": {name: dict(used) for name, used in self.usage.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """What one grader computed."""

    reward: float
    usage: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    output: str = ""


@dataclass(frozen=True, slots=True)
class _Call:
    """One sample being graded: the texts that a grader's templates became, and what they were made of."""

    texts: Mapping[str, str]
    item: Mapping[str, Any]
    sample: Sample
    trace_id: str


_AT_ONCE = (spec.StringCheck, spec.TextSimilarity)
_Run: TypeAlias = Callable[[_Call], Awaitable[_Value]]


class Grader:
    """A grader of the hosted format; calling it with an episode scores the episode.

    What the sample is to blame for scores `settings.error_score`. A row that lacks a field and a judge or a
    sandbox that can't be had leave the episode unscored.

    Args:
        tree: what `spec.parse` or `spec.load` made.
        settings: what the hosted service leaves unsaid.
        services: a pool for python graders, a judge for those that ask a model, embeddings for cosine.

    Raises:
        InputError: the grader needs something that is not there; says what and how to get it.
    """

    def __init__(self, tree: spec.Spec, *, settings: Settings | None = None, services: Services | None = None) -> None:
        self.spec, self.settings, self.services = tree, settings or Settings(), services or Services()
        self.hash = spec.content_hash(spec.as_json(tree), self.settings.model_dump(mode="json"))
        self.__name__ = tree.name or tree.type
        self._format = format_of(self.settings)
        self._children: dict[str, Grader] = {}
        self._formula: Formula | None = None
        self._run: _Run | None = None
        if isinstance(tree, spec.Multi):
            self._formula = Formula.parse(tree.calculate_output, names=tree.graders)
            # The whole is clamped and checked for its format, once.
            inner = self.settings.model_copy(update={"clamp": None, "response_format": None})
            self._children = {
                key: Grader(child, settings=inner, services=self.services) for key, child in tree.graders.items()
            }
        else:
            self._run = _prepared(tree, self.settings, self.services)
        # Tasks cost more than comparing texts does: children run at once only where two of them wait for somebody.
        self._waits = sum(not isinstance(child.spec, _AT_ONCE) for child in self._children.values()) > 1
        self._reads_trajectory = any(_reads_trajectory(part) for _, part in spec.walk(tree))
        self._templates = {key: Template.parse(text, key) for key, text in tree.templates.items()}

    async def grade(self, item: Mapping[str, Any], sample: Sample, *, trace_id: str = "") -> Grade:
        """What one sample of one row is worth, and all that went wrong on the way.

        Args:
            item: the dataset row.
            sample: as `sample.of_text` or `sample.of_episode` makes it.
            trace_id: what an endpoint grader knows the rollout by.
        """
        started = time.perf_counter()
        try:
            check_format(sample, self._format)
        except GradingError as error:
            return self._failed(error, started)
        if self._formula is not None:
            return await self._combined(self._formula, item, sample, trace_id, started)
        try:
            value = await self._one(item, sample, trace_id)
        except GradingError as error:
            return self._failed(error, started)
        return self._grade(started, reward=self._clamped(value.reward), usage=value.usage, output=value.output)

    async def __call__(self, episode: Episode, /) -> Score:
        """The score of an episode; its parts are the grader and, by their keys, those in it."""
        if episode.broken:
            return Score.unscored(f"the episode broke: {episode.fault or episode.stop}")
        # A rollout with tool servers is known to them by a name that it has already.
        trace = episode.context.get("trace_id") or f"trace_{hashlib.sha256(episode.id.encode()).hexdigest()[:32]}"
        sample = of_episode(episode, self.settings.output_tools, trajectory=self._reads_trajectory)
        grade = await self.grade(of_row(episode), sample, trace_id=str(trace))
        if grade.error is not None:
            return Score.unscored(f"{grade.name}: {grade.error}")
        parts = dict(grade.sub_rewards) or {grade.name: grade.reward}
        if grade.errors:
            parts |= {"grader_error": 1.0} | {f"grader_error.{error.flag}": 1.0 for error in grade.errors}
        return Score(value=grade.reward, parts=parts, graders={grade.name: grade.hash})

    async def _one(self, item: Mapping[str, Any], sample: Sample, trace_id: str) -> _Value:
        assert self._run is not None
        try:
            names = {"item": item, "sample": sample}
            texts = {key: template.render(names, self.settings.render) for key, template in self._templates.items()}
        except MissingVariable as error:
            blame: Blame = "row" if error.variable.namespace == "item" else "sample"
            raise GradingError("invalid_variable_error", str(error), blame=blame) from error
        return await self._run(_Call(texts, item, sample, trace_id))

    async def _combined(
        self, formula: Formula, item: Mapping[str, Any], sample: Sample, trace_id: str, started: float
    ) -> Grade:
        children = self._children.values()
        if self._waits:
            grades = await together(child.grade(item, sample, trace_id=trace_id) for child in children)
        else:
            grades = [await child.grade(item, sample, trace_id=trace_id) for child in children]
        values = {key: grade.reward for key, grade in zip(self._children, grades, strict=True)}
        errors = [error for grade in grades for error in grade.errors]
        usage: dict[str, Counter[str]] = {}
        for grade in grades:
            for name, used in grade.usage.items():
                usage.setdefault(name, Counter()).update(used)
        try:
            reward = self._clamped(formula(values))
        except FormulaFault as error:
            scores = self.settings.formula_fault == "error_score"
            errors.append(GradingError("other_error", str(error), blame="sample" if scores else "row"))
            reward = self.settings.error_score
        invalid = cast(spec.Multi, self.spec).invalid_grade
        if errors and invalid is not None:
            reward = invalid
        output = "".join(grade.output for grade in grades)
        return self._grade(started, reward=reward, errors=tuple(errors), sub_rewards=values, usage=usage, output=output)

    def _failed(self, error: GradingError, started: float) -> Grade:
        return self._grade(started, reward=self.settings.error_score, errors=(error,), usage=error.usage)

    def _grade(self, started: float, **values: Any) -> Grade:
        seconds = time.perf_counter() - started
        return Grade(name=self.__name__, type=self.spec.type, hash=self.hash, seconds=seconds, **values)

    def _clamped(self, reward: float) -> float:
        if self.settings.clamp is None:
            return reward
        low, high = self.settings.clamp
        return min(max(reward, low), high)


def _reads_trajectory(grader: spec.Spec) -> bool:
    """Whether it may look at more than the last message: code may, templates say so."""
    coded = isinstance(grader, (spec.Python, spec.Endpoint))
    return coded or any("trajectory" in text for text in grader.templates.values())


def _prepared(grader: spec.Spec, settings: Settings, services: Services) -> _Run:
    """The function that runs one grader that is no multi, with all it needs at hand."""
    match grader:
        case spec.StringCheck():
            return _string_check(grader)
        case spec.TextSimilarity(evaluation_metric="cosine"):
            return _cosine(services)
        case spec.TextSimilarity():
            return _similarity(metric(grader.evaluation_metric, settings))
        case spec.Python():
            return _python(grader, services)
        case spec.Endpoint():
            return _endpoint(grader)
        case spec.ScoreModel() | spec.LabelModel():
            return _judged(grader, services)
    raise AssertionError(grader.type)


def _string_check(grader: spec.StringCheck) -> _Run:
    compare: Callable[[str, str], bool] = {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "like": lambda a, b: b in a,
        "ilike": lambda a, b: b.casefold() in a.casefold(),
    }[grader.operation]

    async def run(call: _Call) -> _Value:
        return _Value(reward=float(compare(call.texts["input"], call.texts["reference"])))

    return run


def _similarity(measure: Metric) -> _Run:
    async def run(call: _Call) -> _Value:
        a, b = call.texts["input"], call.texts["reference"]
        if len(a) * len(b) < LONG:
            return _Value(reward=measure(a, b))
        return _Value(reward=await in_thread(lambda: measure(a, b)))

    return run


def _cosine(services: Services) -> _Run:
    embed = services.embed
    if embed is None:
        raise InputError(
            "cosine needs an embedding function (Services(embed=...)), and hosted RFT does not take it; use another "
            "evaluation_metric"
        )

    async def run(call: _Call) -> _Value:
        a, b = await embed([call.texts["input"], call.texts["reference"]])
        return _Value(reward=cosine(a, b))

    return run


def _python(grader: spec.Python, services: Services) -> _Run:
    pool = services.pool
    if pool is None:
        raise InputError(
            f"the python grader {grader.name!r} needs somewhere to run: a sandboxed pool, or unsafe_python with the "
            "reason why its code may run on this machine without a sandbox"
        )

    async def run(call: _Call) -> _Value:
        try:
            ran = await pool.grade(grader.source, sample=call.sample, item=call.item)
        except PoolError as error:
            raise GradingError("python_grader_server_error", str(error), blame="machinery") from error
        if ran.value is None:
            raise GradingError("python_grader_runtime_error", ran.error or "no value", blame="sample")
        return _Value(reward=ran.value, output=ran.output)

    return run


def _endpoint(grader: spec.Endpoint) -> _Run:
    server = Server(grader)

    async def run(call: _Call) -> _Value:
        return _Value(reward=await server.score(sample=call.sample, item=call.item, trace_id=call.trace_id))

    return run


def _judged(grader: spec.ScoreModel | spec.LabelModel, services: Services) -> _Run:
    judge = services.judge
    if judge is None:
        raise InputError(
            f"the grader {grader.name!r} asks the model {grader.model!r}; say where it is: a judge with base_url"
        )

    async def run(call: _Call) -> _Value:
        answer = await model.ask(judge, grader, call.texts)
        usage = {grader.model: answer.usage}
        try:
            return _Value(reward=model.read(grader, answer), usage=usage)
        except GradingError as error:
            error.usage = usage
            raise

    return run
