"""What can be told of a grader by reading it and the rows it is meant for."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import isfinite
from typing import Any

from rewards.bench.findings import Finding
from rewards.bench.statistics import spearman
from rewards.graders import spec
from rewards.graders.formula import Formula, FormulaFault
from rewards.graders.rows import Row
from rewards.graders.run import Grade, Grader
from rewards.graders.template import MissingVariable, Template, Variable

SLACK = 1e-9
POINTS = 2000
"""Random points at which a formula is tried, beside the corners."""
TRAIN_ROWS = 50_000
HOSTED_JUDGES = (
    "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "gpt-4.1-2025-04-14", "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano-2025-04-14", "o1-2024-12-17", "o3-mini-2025-01-31", "o3-2025-04-16", "o4-mini-2025-04-16",
)  # fmt: skip
DICE = ("random.", "secrets.", "uuid.uuid", "numpy.random.", "np.random.")
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "date.today", "datetime.date.today"}
RUNS = {"exec", "eval", "compile", "__import__"}
RUNNERS = {"subprocess", "os.system", "os.popen", "runpy", "importlib"}

Range = tuple[float, float]


def lint(grader: Grader, rows: Sequence[Row], grades: Sequence[Grade]) -> list[Finding]:
    """Everything that reading finds, and what the grades of the rows add to it."""
    return [
        *_fields(grader.spec, rows),
        *_samples(grader.spec),
        *_multi(grader, rows, grades),
        *_leaf_range(grader, grades),
        *_json(grader),
        *_sources(grader.spec),
        *_hosted(grader.spec, rows),
    ]


def range_of(tree: spec.Spec) -> Range:
    """The least and the most a grader can score; infinite where its JSON does not say."""
    match tree:
        case spec.StringCheck() | spec.TextSimilarity() | spec.LabelModel():
            return 0.0, 1.0
        case spec.ScoreModel():
            return min(tree.limits[0], 0.0), max(tree.limits[1], 0.0)  # what is no number scores 0
        case spec.Multi():
            values = [value for _, value in explored(tree) if isinstance(value, float)]
            return (min(values), max(values)) if values and _bounded(tree) else (float("-inf"), float("inf"))
    return float("-inf"), float("inf")


def explored(tree: spec.Multi) -> Iterator[tuple[Mapping[str, float], float | FormulaFault]]:
    """The formula at the corners of its graders' ranges and at points between, each with its value or fault.

    A grader whose range is not known counts as one from 0 to 1.
    """
    formula, dice = Formula.parse(tree.calculate_output), random.Random(0)
    ends = {name: _known(tree.graders[name]) for name in formula.names}
    corners = list(product(*ends.values())) if len(ends) <= 10 else []
    points = corners + [tuple(dice.uniform(*end) for end in ends.values()) for _ in range(POINTS if ends else 1)]
    for point in points:
        values = dict(zip(ends, point, strict=True))
        try:
            yield values, formula(values)
        except FormulaFault as fault:
            yield values, fault


def _known(tree: spec.Spec) -> Range:
    low, high = range_of(tree)
    return (low, high) if isfinite(low) else (0.0, 1.0)


def _bounded(tree: spec.Multi) -> bool:
    return all(isfinite(range_of(child)[0]) for child in tree.graders.values())


def _variables(tree: spec.Spec) -> Iterator[tuple[str, Variable]]:
    """Every variable in a grader's own templates, with the field it stands in."""
    for key, text in tree.templates.items():
        for variable in Template.parse(text).variables:
            yield key, variable


def _fields(tree: spec.Spec, rows: Sequence[Row]) -> Iterator[Finding]:
    """Fields of the item that no row has, or only some; an empty text is no reference, since every text contains it."""
    for place, child in spec.walk(tree):
        compares = isinstance(child, (spec.StringCheck, spec.TextSimilarity))
        for key, variable in _variables(child):
            if variable.namespace != "item" or not rows:
                continue
            missing = [row for row in rows if not _has(variable, row.item, empty=not compares)]
            where = f"{place}.{key} reads {variable.text}"
            if len(missing) == len(rows):
                yield Finding(kind="missing_field", said=f"{where}, and no row has it")
            elif missing:
                said = f"{where}, and {len(missing)} of {len(rows)} rows have nothing there, as {missing[0].where}"
                yield Finding(kind="sparse_field", said=said)


def _has(variable: Variable, item: Mapping[str, Any], *, empty: bool) -> bool:
    """Whether the item has such a field, and where it may not be `empty`, something in it."""
    try:
        return variable.value({"item": item}) not in ("", None) or empty
    except MissingVariable:
        return False


def _samples(tree: spec.Spec) -> Iterator[Finding]:
    """Graders that never look at the sample, and contains-checks that look for the sample in the row."""
    for place, child in spec.walk(tree):
        if isinstance(child, (spec.Multi, spec.Endpoint)):
            continue
        if isinstance(child, spec.Python):
            seen = _uses_argument(child.source, 0)
        else:
            seen = any(variable.namespace == "sample" for _, variable in _variables(child))
        if not seen:
            yield Finding(kind="ignores_sample", said=f"{place} never reads the sample")
        if isinstance(child, spec.StringCheck) and child.operation in ("like", "ilike"):
            inside = {v.namespace for v in Template.parse(child.input).variables}
            wanted = {v.namespace for v in Template.parse(child.reference).variables}
            if inside == {"item"} and wanted == {"sample"}:
                said = (
                    f"{place} looks for the sample in the row: an answer of one letter passes; swap input and reference"
                )
                yield Finding(kind="reversed_contains", said=said)


def _uses_argument(source: str, place: int) -> bool:
    """Whether `grade` reads its first or second argument; believed where it can't be seen."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == "grade":
            args = [*node.args.posonlyargs, *node.args.args]
            if len(args) <= place:
                return True
            return any(isinstance(n, ast.Name) and n.id == args[place].arg for n in ast.walk(node))
    return True


def _multi(grader: Grader, rows: Sequence[Row], grades: Sequence[Grade]) -> Iterator[Finding]:
    tree = grader.spec
    if not isinstance(tree, spec.Multi):
        return
    formula = Formula.parse(tree.calculate_output)
    for name in tree.graders:
        if name not in formula.names:
            yield Finding(kind="unused_grader", said=f"{name} is graded and not in the formula {formula.text!r}")
    seen: dict[str, str] = {}
    for name, child in tree.graders.items():
        body = str({k: v for k, v in spec.as_json(child).items() if k != "name"})
        if body in seen:
            yield Finding(kind="same_grader_twice", said=f"{name} is the same as {seen[body]}")
        seen.setdefault(body, name)
    yield from _extremes(grader, tree)
    yield from _failing(grader, tree, formula)
    yield from _outvoted(tree, formula, rows, grades)


def _extremes(grader: Grader, tree: spec.Multi) -> Iterator[Finding]:
    """The formula outside [0, 1], and where it has no value, each with a witness."""
    clamp = grader.settings.clamp
    faults, outside = [], []
    for values, value in explored(tree):
        if isinstance(value, FormulaFault):
            faults.append((values, value))
        elif clamp is None and not -SLACK <= value <= 1 + SLACK:
            outside.append((abs(value - 0.5), value, values))
    if faults:
        yield Finding(kind="formula_fault", said=f"{faults[0][1]}, at {_shown(faults[0][0])}")
    if outside:
        _, value, values = max(outside, key=lambda found: found[0])
        yield Finding(kind="leaves_range", said=f"{tree.calculate_output!r} is {value:.4g} at {_shown(values)}")


def _leaf_range(grader: Grader, grades: Sequence[Grade]) -> Iterator[Finding]:
    """A range that is declared, or scores that were seen, outside [0, 1]."""
    low, high = range_of(grader.spec)
    if isinstance(grader.spec, spec.ScoreModel) and grader.settings.clamp is None and not -SLACK <= low <= high <= 1:
        yield Finding(kind="leaves_range", said=f"its range is {low:g} to {high:g}")
    if isinstance(grader.spec, (spec.Python, spec.Endpoint)):
        outside = [g.reward for g in grades if g.error is None and not -SLACK <= g.reward <= 1 + SLACK]
        if outside:
            said = f"it scored {min(outside):.4g} to {max(outside):.4g} on {len(outside)} samples"
            yield Finding(kind="leaves_range", said=said)


def _failing(grader: Grader, tree: spec.Multi, formula: Formula) -> Iterator[Finding]:
    """Graders whose failure scores more than any honest value of theirs would."""
    if tree.invalid_grade is not None:
        return
    error = grader.settings.error_score
    for name in formula.names:
        if not _can_fail(tree.graders[name]):
            continue
        others = {other: _known(tree.graders[other])[1] for other in formula.names if other != name}
        try:
            failed, *honest = (formula(others | {name: value}) for value in (error, *_known(tree.graders[name])))
        except FormulaFault:
            continue
        if failed > min(honest) + SLACK:
            said = (
                f"where {name} fails on the sample the whole is worth {failed:.4g}, and as little as {min(honest):.4g} "
            )
            yield Finding(kind="failing_pays", said=f"{said}where it does not; set invalid_grade")


def _can_fail(tree: spec.Spec) -> bool:
    """Whether a sample can bring it to an error."""
    if isinstance(tree, (spec.Python, spec.Judged, spec.Endpoint)):
        return True
    deep = (v for _, v in _variables(tree) if v.namespace == "sample")
    return any(variable.steps != ("output_text",) for variable in deep)


def _outvoted(tree: spec.Multi, formula: Formula, rows: Sequence[Row], grades: Sequence[Grade]) -> Iterator[Finding]:
    """A sample that is wrong and perfect in all else, worth more than one that is right and nothing else.

    What is right is taken to be the grader that agrees best with the labels.
    """
    agreement = {}
    for name in formula.names:
        pairs = [
            (grade.sub_rewards[name], row.label)
            for row, grade in zip(rows, grades, strict=True)
            if row.label is not None and name in grade.sub_rewards
        ]
        agreement[name] = spearman(pairs) or 0.0
    if len(agreement) < 2 or max(agreement.values()) <= 0:
        return
    right = max(agreement, key=agreement.__getitem__)
    ends = {name: _known(tree.graders[name]) for name in formula.names}
    wrong = {name: end[0] if name == right else end[1] for name, end in ends.items()}
    plain = {name: end[1] if name == right else end[0] for name, end in ends.items()}
    try:
        paid, due = formula(wrong), formula(plain)
    except FormulaFault:
        return
    if paid > due + SLACK:
        said = (
            f"without {right}, which agrees best with the labels, a sample can have {paid:.4g}; with it alone {due:.4g}"
        )
        yield Finding(kind="outvotes_correctness", said=said)


def _json(grader: Grader) -> Iterator[Finding]:
    parts = [part for _, part in spec.walk(grader.spec)]
    reads = any(v.namespace == "sample" and v.steps[0] == "output_json" for p in parts for _, v in _variables(p))
    reads = reads or any("output_json" in part.source for part in parts if isinstance(part, spec.Python))
    if reads and grader.settings.response_format is None:
        said = "it reads sample.output_json, which the service fills in only where the job has a response_format"
        yield Finding(kind="unformatted_json", said=said)


def _sources(tree: spec.Spec) -> Iterator[Finding]:
    """Python that runs what the model wrote, or that rolls dice."""
    for place, child in spec.walk(tree):
        if not isinstance(child, spec.Python):
            continue
        nodes = list(ast.walk(ast.parse(child.source)))
        called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        imported = {name for node in nodes for name in _imported(node)}
        if runs := sorted((called & (RUNS | RUNNERS)) | (imported & RUNNERS)):
            said = f"{place} uses {', '.join(runs)}: what a model wrote must never run beside the code that scores it"
            yield Finding(kind="runs_the_sample", said=said)
        rolled = {name for name in called if name.startswith(DICE)} | (called & CLOCKS)
        rolled |= {f"from {name} import" for name in ("random", "secrets") if f"from {name} import" in child.source}
        seeded = any(name.endswith((".seed", ".Random", ".default_rng")) for name in called)
        if rolled and not seeded:
            said = f"{place} uses {', '.join(sorted(rolled))}: the same sample may score differently tomorrow"
            yield Finding(kind="random_source", said=said)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [(node.module or "").split(".")[0]] if isinstance(node, ast.ImportFrom) else []


def _hosted(tree: spec.Spec, rows: Sequence[Row]) -> Iterator[Finding]:
    """What runs here and not there."""
    for place, child in spec.walk(tree):
        if isinstance(child, spec.TextSimilarity) and child.evaluation_metric == "cosine":
            yield Finding(kind="hosted_limit", said=f"{place}: hosted RFT does not take cosine")
        if isinstance(child, spec.Endpoint):
            yield Finding(kind="hosted_limit", said=f"{place}: endpoint graders are in a private beta")
        if isinstance(child, spec.Judged) and child.model not in HOSTED_JUDGES:
            yield Finding(kind="hosted_limit", said=f"{place}: {child.model} is none of the judges that RFT takes")
        source = child.source if isinstance(child, spec.Python) else " ".join(child.templates.values())
        if "trajectory" in source:
            yield Finding(kind="hosted_limit", said=f"{place} reads sample.trajectory, which is there only here")
    if len({row.group for row in rows}) > TRAIN_ROWS:
        yield Finding(kind="hosted_limit", said=f"more than {TRAIN_ROWS:,} rows to train on")


def _shown(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:.3g}" for name, value in values.items()) or "any point"
