"""What a model is told about a tool, read off a method's signature and docstring."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError

from envs.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """What a model is told about a tool, and what is needed to call it."""

    name: str
    description: str
    arguments: type[BaseModel]
    """Fields are aliased to the parameters, so that no parameter can clash with a name of pydantic's."""
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
        return _parameters_of(self.arguments)

    def parse(self, arguments: str) -> dict[str, Any]:
        """The method's keyword arguments from a call's JSON text; empty text means none.

        Raises:
            pydantic.ValidationError: not JSON, not an object, or not what the signature asks for.
        """
        parsed = self.arguments.model_validate_json(arguments or "{}", strict=True)
        if isinstance(parsed, Declared):
            return dict(parsed.model_extra or {})
        fields = type(parsed).model_fields
        return {str(field.alias): getattr(parsed, name) for name, field in fields.items()}


class Declared(BaseModel):
    """Arguments of a tool that is no method of ours: any object. Whoever executes the tool knows better."""

    model_config = ConfigDict(extra="allow")
    schema_: ClassVar[dict[str, Any]] = {}


def declared(name: str, description: str, parameters: Mapping[str, Any], *, timeout: float) -> ToolSpec:
    """A tool that somebody else executes, with the JSON schema of its arguments as they wrote it.

    Equal schemas give equal tools. `method` raises: the environment that offers such a tool overrides `call`.
    """
    return _declared(name, description, json.dumps(parameters, sort_keys=True), timeout)


@cache
def _declared(name: str, description: str, parameters: str, timeout: float) -> ToolSpec:
    class Arguments(Declared):
        schema_: ClassVar[dict[str, Any]] = json.loads(parameters)

    return ToolSpec(name=name, description=description, arguments=Arguments, timeout=timeout, method=_elsewhere)


async def _elsewhere(environment: object, **arguments: Any) -> Any:
    raise NotImplementedError("an environment with declared tools carries out their calls itself")


@cache
def _parameters_of(arguments: type[BaseModel]) -> dict[str, Any]:
    if issubclass(arguments, Declared):
        return arguments.schema_
    schema = arguments.model_json_schema()
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
        arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        arguments.model_json_schema()
    except PydanticUserError as error:
        raise InputError(
            f"tool {where}: a parameter's type has no JSON schema ({error.message.splitlines()[0]}); "
            "use numbers, strings, lists, dicts, Literal, dataclasses or pydantic models"
        ) from error
    description = "\n".join(filter(None, (doc.short_description, doc.long_description)))
    return ToolSpec(name=name, description=description, arguments=arguments, timeout=timeout, method=method)


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
