"""What a model is told about a tool, as a rule read off a method's signature and docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Protocol, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from envs.errors import InputError, ToolError, reasons


class Arguments(Protocol):
    """What calls of a tool may carry: `Signature` reads it off a method, `envs.schemas.JsonSchema` takes a schema."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema, an object's. Everybody gets the same one: do not write to it."""
        ...

    def parse(self, text: str) -> dict[str, Any]:
        """The arguments by name from a call's JSON text; empty text means none.

        Raises:
            ToolError: what is wrong with them, for the model.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """What a model is told about a tool, and what is needed to call it."""

    name: str
    description: str
    arguments: Arguments
    timeout: float
    """Seconds."""
    method: Callable[..., Any]
    """Takes the environment, then the arguments by name."""

    @property
    def is_async(self) -> bool:
        """Whether the method is a coroutine function; others run in a thread."""
        return inspect.iscoroutinefunction(self.method)

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in the shape of OpenAI's `tools` list, which chat templates take too."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of the arguments. Everybody gets the same object: do not write to it."""
        return self.arguments.schema

    def parse(self, arguments: str) -> dict[str, Any]:
        """The method's keyword arguments from a call's JSON text; empty text means none.

        Raises:
            ToolError: not JSON, not an object, or not what the schema asks for.
        """
        return self.arguments.parse(arguments)


@dataclass(frozen=True, slots=True)
class Signature:
    """The arguments of a method, as a pydantic model of its parameters."""

    model: type[BaseModel]
    """Fields are aliased to the parameters, so that no parameter can clash with a name of pydantic's."""

    @property
    def schema(self) -> dict[str, Any]:
        return _parameters_of(self.model)

    def parse(self, text: str) -> dict[str, Any]:
        try:
            parsed = self.model.model_validate_json(text or "{}", strict=True)
        except ValidationError as error:
            raise ToolError(reasons(error)) from error
        fields = type(parsed).model_fields
        return {str(field.alias): getattr(parsed, name) for name, field in fields.items()}


@cache
def _parameters_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("title", None)
    schema.pop("additionalProperties", None)
    for field in schema["properties"].values():
        field.pop("title", None)
    return schema


@cache
def read_tools(cls: type, base: type) -> Mapping[str, ToolSpec]:
    """The tools of a class by name, in the order they were written, those it inherits first.

    A subclass that overrides a tool need not mark it again; one that sets it to None takes it away.

    Args:
        cls: the class to read.
        base: the class whose own names no tool may take.

    Raises:
        InputError: a method that can't be a tool, with its class and name.
    """
    seconds: dict[str, float] = {}
    for ancestor in reversed(cls.__mro__):
        marked = {n: m.__tool_seconds__ for n, m in vars(ancestor).items() if hasattr(m, "__tool_seconds__")}
        seconds |= marked
    specs = {}
    for name, timeout in seconds.items():
        where = f"{cls.__name__}.{name}"
        if hasattr(base, name):
            raise InputError(f"tool {where} takes the place of {base.__name__}.{name}; give it another name")
        if (method := inspect.getattr_static(cls, name)) is not None:
            specs[name] = _spec(where, name, method, timeout)
    return MappingProxyType(specs)


def _spec(where: str, name: str, method: Any, timeout: float) -> ToolSpec:
    doc = docstring_parser.parse(inspect.getdoc(method) or "")
    told = {p.arg_name: p.description for p in doc.params}
    fields: dict[str, Any] = {}
    for index, (parameter, hint) in enumerate(_parameters(where, method)):
        about: dict[str, Any] = {"alias": parameter.name}
        if told.get(parameter.name):  # an explicit None would hide a description in `Annotated`
            about["description"] = told[parameter.name]
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"p{index}"] = (hint, Field(default, **about))
    try:
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        model.model_json_schema()
    except PydanticUserError as error:
        raise InputError(
            f"tool {where}: a parameter's type has no JSON schema ({error.message.splitlines()[0]}); "
            "use numbers, strings, lists, dicts, Literal, dataclasses or pydantic models"
        ) from error
    description = "\n".join(filter(None, (doc.short_description, doc.long_description)))
    return ToolSpec(name=name, description=description, arguments=Signature(model), timeout=timeout, method=method)


def _parameters(where: str, method: Any) -> list[tuple[inspect.Parameter, Any]]:
    """The parameters after `self`, each with its type."""
    if not inspect.isfunction(method):
        raise InputError(f"tool {where} is a {type(method).__name__}; a tool is a plain method with self")
    parameters = list(inspect.signature(method).parameters.values())
    if not parameters or parameters[0].kind in (parameters[0].KEYWORD_ONLY, parameters[0].VAR_KEYWORD):
        raise InputError(f"tool {where} takes no self; a tool is a plain method with self")
    try:
        hints = get_type_hints(method, include_extras=True)
    except (NameError, TypeError) as error:
        raise InputError(f"tool {where}: a type hint can't be read ({error}); import the name at the top") from error
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InputError(f"tool {where}: *{parameter.name} has no JSON schema; name each parameter")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise InputError(f"tool {where}: {parameter.name!r} can't be passed by name; remove the '/'")
        if parameter.name not in hints:
            raise InputError(
                f"tool {where}: parameter {parameter.name!r} has no type hint; add one, as in 'order_id: str'"
            )
    return [(parameter, hints[parameter.name]) for parameter in parameters[1:]]
