"""Does the grader say the same twice, and does a judge look past order and dress?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rewards.bench.findings import Finding
from rewards.graders.rows import Row, grade_all
from rewards.graders.run import Grade, Grader, Services
from rewards.graders.sample import of_json
from rewards.graders.spec import Judged, Multi, Spec

SAME = 1e-9
NOISE_MOST = 0.05
"""The share of the range by which repeated grades of one sample may differ on average."""
BIAS_MOST = 0.1
"""The share of the range by which order or dress may move a judge, beyond its noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Mean differences, in units of the reward."""

    repeats: int
    samples: int
    noise: float
    """Between the highest and the lowest of the repeats of one sample."""
    differing: float
    """Share of samples whose repeats were not all the same."""
    order: float | None
    """Between a judge's prompt and the same with its parts in the opposite order; None without a judge."""
    edits: float | None
    """Between a sample and the same with other white space and punctuation at its ends; None without a judge."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def repeat(
    grader: Grader, rows: Sequence[Row], *, repeats: int, width: float
) -> tuple[Stability | None, list[Finding]]:
    """Grade every row `repeats` times, a judge's cache aside, and judges also in other order and dress.

    Args:
        width: of the grader's range.
    """
    fresh = without_cache(grader)
    runs = [await grade_all(fresh, rows) for _ in range(repeats)]
    together = [
        [g.reward for g in grades] for grades in zip(*runs, strict=True) if all(g.error is None for g in grades)
    ]
    if not together:
        return None, []
    spreads = [max(rewards) - min(rewards) for rewards in together]
    order = edits = None
    if judged(grader.spec):
        first = runs[0]
        swapped = swap(grader.spec)
        if swapped is not None:
            other = Grader(swapped, settings=fresh.settings, services=fresh.services)
            order = _difference(first, await grade_all(other, rows))
        edits = _difference(first, await grade_all(fresh, [_edited(row) for row in rows]))
    found = Stability(
        repeats=repeats,
        samples=len(together),
        noise=fmean(spreads),
        differing=sum(spread > SAME for spread in spreads) / len(spreads),
        order=order,
        edits=edits,
    )
    return found, _judged(found, width)


def judged(spec: Spec) -> bool:
    """Whether a model has a say in it."""
    children = spec.graders.values() if isinstance(spec, Multi) else [spec]
    return any(isinstance(child, Judged) for child in children)


def without_cache(grader: Grader) -> Grader:
    """The same grader with a judge that is really asked every time."""
    judge = grader.services.judge
    if judge is None:
        return grader
    services = Services(pool=grader.services.pool, judge=judge.without_cache(), embed=grader.services.embed)
    return Grader(grader.spec, settings=grader.settings, services=services)


def swap(spec: Spec) -> Spec | None:
    """The grader with the variable paragraphs of its judges' messages in the opposite order; None without two."""
    if isinstance(spec, Multi):
        children = {key: swap(child) for key, child in spec.graders.items()}
        if not any(children.values()):
            return None
        graders = {key: children[key] or child for key, child in spec.graders.items()}
        return spec.model_copy(update={"graders": graders})
    if not isinstance(spec, Judged):
        return None
    messages = [m.model_copy(update={"content": _swapped(m.content)}) for m in spec.input if isinstance(m.content, str)]
    if len(messages) < len(spec.input) or messages == spec.input:
        return None
    return spec.model_copy(update={"input": messages})


def _swapped(content: Any) -> Any:
    """Paragraphs with variables change places among themselves; the others stay where they are."""
    paragraphs = content.split("\n\n")
    places = [i for i, paragraph in enumerate(paragraphs) if "{{" in paragraph]
    held = [paragraphs[i] for i in places]
    for place, paragraph in zip(places, reversed(held), strict=True):
        paragraphs[place] = paragraph
    return "\n\n".join(paragraphs)


def _edited(row: Row) -> Row:
    """The same said in other dress: line ends around it, and the last full stop there or not."""
    text = str(row.sample["output_text"]).strip()
    text = text.removesuffix(".") if text.endswith(".") else text + "."
    return Row(where=row.where, item=row.item, sample=of_json({"output_text": f"\n{text}\n"}), group=row.group)


def _difference(a: Sequence[Grade], b: Sequence[Grade]) -> float | None:
    both = [abs(x.reward - y.reward) for x, y in zip(a, b, strict=True) if x.error is None and y.error is None]
    return fmean(both) if both else None


def _judged(found: Stability, width: float) -> list[Finding]:
    findings = []
    if found.noise > NOISE_MOST * width:
        said = f"graded {found.repeats} times, the same sample differs by {found.noise:.2f} on average"
        findings.append(Finding(kind="unstable", said=said))
    allowed = BIAS_MOST * width + found.noise
    if found.order is not None and found.order > allowed:
        said = f"with the parts of its prompt in the opposite order the judge differs by {found.order:.2f} on average"
        findings.append(Finding(kind="order_bias", said=said))
    if found.edits is not None and found.edits > allowed:
        said = f"other line ends and a full stop move the judge by {found.edits:.2f} on average"
        findings.append(Finding(kind="edit_bias", said=said))
    return findings
