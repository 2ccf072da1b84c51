"""Options from a config, for a function that says by its signature which it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from envs.errors import InputError, reasons, unknown


def checked(function: Callable[..., Any], options: Mapping[str, Any], where: str, *, given: int = 0) -> dict[str, Any]:
    """The options as the function's keywords, with the types of its signature.

    Args:
        where: the section they came from, for messages.
        given: how many positional parameters are not the options' to set.

    Raises:
        InputError: an option the function does not take (with the nearest it does), or a wrong type.
    """
    parameters = list(inspect.signature(function).parameters.values())[given:]
    known = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    hints = get_type_hints(function)
    found = {}
    for name, value in options.items():
        if name not in known and not takes_all:
            raise InputError(f"{where}: {unknown('option', name, known)}")
        try:
            found[name] = TypeAdapter(hints.get(name, Any)).validate_python(value) if name in known else value
        except ValidationError as error:
            raise InputError(f"{where}.{name}: {reasons(error)}, not {value!r}") from error
    return found
