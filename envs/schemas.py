"""Tools that are known by a JSON schema alone: those of another process, as it describes them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import jsonschema
import pydantic_core
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from envs.errors import InputError, ToolError

PROBLEMS, PROBLEM_CHARS = 5, 300
"""How many things that are wrong with a call the model is told, and how much of each: they quote what it wrote."""


class JsonSchema:
    """Arguments that a JSON schema describes; the model is shown the schema as it is.

    References lead nowhere outside the schema: nothing is fetched.

    Args:
        schema: of an object, by any draft that `$schema` names, or else the newest.
        where: the tool, for messages.

    Raises:
        InputError: it is no JSON schema, refers to what it does not hold, or is not an object's.
    """

    def __init__(self, schema: Mapping[str, Any], where: str) -> None:
        self._schema = copy.deepcopy(dict(schema))
        kind = validator_for(self._schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(self._schema)
        except jsonschema.SchemaError as error:
            raise InputError(f"{where}: its schema is none: {error.message[:PROBLEM_CHARS]}") from error
        if self._schema.get("type") != "object":
            raise InputError(f"{where}: its schema is not that of an object ('type' is {self._schema.get('type')!r})")
        self._validator = kind(self._schema, registry=Registry())
        whole = Resource.from_contents(self._schema, default_specification=DRAFT202012)
        resolver = Registry().with_resource(whole.id() or "", whole).resolver(whole.id() or "")
        for reference in _references(self._schema):
            try:
                resolver.lookup(reference)
            except Unresolvable as error:
                raise InputError(f"{where}: its schema refers to {reference!r}, which it does not hold") from error

    @property
    def schema(self) -> dict[str, Any]:
        """As it was given. Everybody gets the same object: do not write to it."""
        return self._schema

    def parse(self, text: str) -> dict[str, Any]:
        """The arguments by name from a call's JSON text; empty text means none.

        Raises:
            ToolError: not JSON, not an object, or not what the schema asks for.
        """
        try:
            arguments = pydantic_core.from_json((text or "{}").encode(), allow_inf_nan=False)
            json.dumps(arguments, allow_nan=False)  # 1e999 is valid JSON, and what it stands for can't be passed on
        except ValueError as error:
            raise ToolError(f"Invalid JSON: {error}") from error
        if problems := list(islice(self._validator.iter_errors(arguments), PROBLEMS)):
            raise ToolError("; ".join(map(_said, problems)))
        found: dict[str, Any] = arguments
        return found


def _said(problem: jsonschema.ValidationError) -> str:
    where = ".".join(map(str, problem.absolute_path))
    message = problem.message[:PROBLEM_CHARS]
    return f"{where}: {message}" if where else message


def _references(schema: Any) -> Iterable[str]:
    """Every `$ref` of a schema."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)
