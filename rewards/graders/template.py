"""Variables in texts of graders: `{{ item.answer }}`, `{{ sample.output_tools[0].function.name }}`.

Two namespaces, `item` (the dataset row) and `sample` (what the model said). What a variable stands for is
put in as it is and never read again: a model that answers `{{ item.answer }}` has answered just that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from envs.errors import InputError

Render = Literal["json", "python"]
"""How values that are not strings are written: `true` and `null`, or `True` and `None`."""

NAMESPACES = ("item", "sample")

_STEP = re.compile(r"\.([^\W\d][\w-]*|\d+)|\[(\d{1,9})\]|\[(\"[^\"]*\"|'[^']*')\]")
_NAMESPACE = re.compile(r"[^\W\d]\w*")


class MissingVariable(LookupError):
    """A variable that this row or this sample does not have."""

    def __init__(self, variable: Variable) -> None:
        super().__init__(
            f"the variable {variable.text!r} cannot be found either in the current datapoint or in the current "
            "model sample"
        )
        self.variable = variable


@dataclass(frozen=True, slots=True)
class Variable:
    """One `{{ ... }}`: a namespace and the way from there."""

    text: str
    namespace: str
    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> Variable:
        """A variable of what stands between the braces.

        Raises:
            InputError: it is none.
        """
        text = text.strip()
        head = _NAMESPACE.match(text)
        if head is None or head[0] not in NAMESPACES:
            raise InputError(f"{{{{ {text} }}}}: a variable starts with item. or sample.")
        steps: list[str | int] = []
        at = head.end()
        while at < len(text):
            step = _STEP.match(text, at)
            if step is None:
                raise InputError(f"{{{{ {text} }}}}: {text[at:]!r} is no path; write as in item.a.b[0] or item['a b']")
            name, index, quoted = step.groups()
            steps.append(name if name is not None else int(index) if index is not None else quoted[1:-1])
            at = step.end()
        if not steps:
            raise InputError(f"{{{{ {text} }}}}: name a variable in {head[0]}, as in {head[0]}.x")
        return cls(text, head[0], tuple(steps))

    def value(self, names: Mapping[str, Any]) -> Any:
        """What it stands for; `names` maps each namespace to its values.

        Raises:
            MissingVariable: there is no such thing.
        """
        value = names[self.namespace]
        for step in self.steps:
            # After a dot a number is a place in a list or a key; in brackets it is a place alone.
            if isinstance(value, Mapping) and isinstance(step, str) and step in value:
                value = value[step]
            elif isinstance(value, (list, tuple)) and str(step).isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                raise MissingVariable(self)
        return value


@dataclass(frozen=True, slots=True)
class Template:
    """A text with variables: literal parts and variables by turns, literals first and last."""

    literals: tuple[str, ...]
    variables: tuple[Variable, ...]

    @classmethod
    def parse(cls, text: str, where: str = "template") -> Template:
        """A template of its text.

        Raises:
            InputError: a `{{` that is never closed, or something in braces that is no variable.
        """
        literals, variables, at = [], [], 0
        while (start := text.find("{{", at)) >= 0:
            end = text.find("}}", start)
            if end < 0:
                raise InputError(f"{where}: {text[start : start + 30]!r} is never closed; a variable ends with }}}}")
            literals.append(text[at:start])
            try:
                variables.append(Variable.parse(text[start + 2 : end]))
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            at = end + 2
        return cls((*literals, text[at:]), tuple(variables))

    def render(self, names: Mapping[str, Any], how: Render = "json") -> str:
        """The text with every variable replaced.

        Raises:
            MissingVariable: one is not there.
        """
        if not self.variables:
            return self.literals[0]
        pieces = [self.literals[0]]
        for variable, literal in zip(self.variables, self.literals[1:], strict=True):
            pieces += (shown(variable.value(names), how), literal)
        return "".join(pieces)


def shown(value: Any, how: Render = "json") -> str:
    """A value as text: strings as they are, the rest as JSON or as Python writes it."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str) if how == "json" else str(value)
