"""What a model is told about a tool, and which methods can't be one."""

import inspect
import json
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from envs import Environment, InputError, ToolError, tool


class Place(BaseModel):
    street: str
    number: int = 1


class Clerk(Environment):
    @tool
    def send(
        self,
        order_id: str,
        kind: Literal["letter", "parcel"],
        to: Place,
        items: list[int],
        amount: Annotated[float, Field(ge=0, description="in euros")] = 0,
        note: Optional[str] = None,  # noqa: UP045 - users write it this way
        copy: bool = False,
        _hidden: dict[str, Any] = {},  # noqa: B006
    ) -> str:
        """Send an order.

        It can't be taken back.

        Args:
            order_id: the order's number.
            copy: keep one.
        """
        return f"{order_id} {kind} {to.street} {to.number} {items} {amount} {note} {copy} {_hidden}"


ARGUMENTS = {"order_id": "1", "kind": "letter", "to": {"street": "Main"}, "items": [1]}


def parameters():
    return Clerk.tools()["send"].schema["function"]["parameters"]


def test_signature_and_docstring_become_the_schema():
    schema = Clerk.tools()["send"].schema
    assert schema["type"] == "function"
    assert schema["function"]["name"] == "send"
    assert schema["function"]["description"] == "Send an order.\nIt can't be taken back."
    properties = schema["function"]["parameters"]["properties"]
    assert list(properties) == list(inspect.signature(Clerk.send).parameters)[1:]
    assert properties["order_id"] == {"type": "string", "description": "the order's number."}
    assert properties["kind"] == {"type": "string", "enum": ["letter", "parcel"]}
    assert properties["items"] == {"type": "array", "items": {"type": "integer"}}
    assert properties["amount"] == {"type": "number", "minimum": 0, "default": 0, "description": "in euros"}
    assert properties["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert properties["copy"]["description"] == "keep one."
    assert schema["function"]["parameters"]["required"] == ["order_id", "kind", "to", "items"]
    json.dumps(schema)


def test_names_that_pydantic_uses_itself_are_names_like_any_other():
    class Odd(Environment):
        @tool
        def odd(self, copy: int, json: int, model_config: int, schema: int, _private: int, model_fields: int) -> int:
            return copy + json + model_config + schema + _private + model_fields

    arguments = dict.fromkeys(["copy", "json", "model_config", "schema", "_private", "model_fields"], 1)
    spec = Odd.tools()["odd"]
    assert spec.parse(json.dumps(arguments)) == arguments
    assert list(spec.schema["function"]["parameters"]["properties"]) == list(arguments)


def test_a_parameter_called_title_is_kept():
    class Library(Environment):
        @tool
        def search(self, title: str) -> str:
            return title

    assert Library.tools()["search"].schema["function"]["parameters"]["properties"] == {"title": {"type": "string"}}


def test_limits_on_a_parameter_are_checked():
    with pytest.raises(ToolError, match="amount"):
        Clerk.tools()["send"].parse(json.dumps(ARGUMENTS | {"amount": -1}))


def test_a_default_that_can_change_is_not_shared_between_calls():
    first = Clerk.tools()["send"].parse(json.dumps(ARGUMENTS))
    first["_hidden"]["x"] = 1
    assert Clerk.tools()["send"].parse(json.dumps(ARGUMENTS))["_hidden"] == {}


def broken(method):
    return type("Broken", (Environment,), {"do": method})


def test_a_parameter_without_a_type_is_named():
    @tool
    def do(self, order_id, amount: int) -> str: ...

    with pytest.raises(InputError, match=r"Broken\.do: parameter 'order_id' has no type hint; add one"):
        broken(do).tools()


def test_star_arguments_are_named():
    @tool
    def do(self, *orders: str) -> str: ...

    with pytest.raises(InputError, match=r"Broken\.do: \*orders"):
        broken(do).tools()

    @tool
    def do(self, **orders: str) -> str: ...

    with pytest.raises(InputError, match="orders"):
        broken(do).tools()


def test_positional_only_parameters_are_named():
    @tool
    def do(self, order: str, /) -> str: ...

    with pytest.raises(InputError, match="'order' can't be passed by name"):
        broken(do).tools()


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_a_tool_is_a_plain_method(kind):
    def do(self, order: str) -> str: ...

    with pytest.raises(InputError, match="plain method with self"):
        broken(tool(kind(do))).tools()


def test_a_tool_without_self_is_refused():
    @tool
    def do() -> str: ...

    with pytest.raises(InputError, match="no self"):
        broken(do).tools()


class NoSchema:
    pass


@pytest.mark.parametrize("kind", [NoSchema, type, list[NoSchema]])
def test_a_type_without_a_json_schema_is_refused(kind):
    def do(self, thing) -> str: ...

    do.__annotations__["thing"] = kind
    with pytest.raises(InputError, match=r"Broken\.do: a parameter's type has no JSON schema"):
        broken(tool(do)).tools()


def test_a_type_that_is_not_imported_is_refused():
    @tool
    def do(self, thing: "Missing") -> str: ...  # noqa: F821

    with pytest.raises(InputError, match="'Missing' is not defined"):
        broken(do).tools()


@pytest.mark.parametrize("name", ["close", "step", "state", "setup", "name"])
def test_a_tool_may_not_take_the_place_of_a_part_of_the_environment(name):
    @tool
    def do(self) -> str: ...

    with pytest.raises(InputError, match=f"takes the place of Environment.{name}"):
        type("Broken", (Environment,), {name: do}).tools()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_more_than_nothing(timeout):
    with pytest.raises(InputError, match="timeout"):
        tool(timeout=timeout)


class Base(Environment):
    @tool(timeout=7)
    def first(self, a: int) -> str:
        """Base."""
        return "base"

    @tool
    def second(self) -> str:
        return "second"

    def helper(self) -> str:
        return "no tool"


def test_only_marked_methods_are_tools_in_the_order_they_were_written():
    class More(Base):
        @tool
        def third(self) -> str: ...

    assert list(Base.tools()) == ["first", "second"]
    assert list(More.tools()) == ["first", "second", "third"]


def test_an_override_is_what_is_called_marked_or_not():
    class Plain(Base):
        def first(self, a: int, b: int) -> str:
            return "plain"

    class Marked(Base):
        @tool(timeout=9)
        def first(self, c: str) -> str:
            return "marked"

    assert Plain.tools()["first"].method is Plain.first
    assert Plain.tools()["first"].timeout == 7
    assert list(Plain.tools()["first"].schema["function"]["parameters"]["properties"]) == ["a", "b"]
    assert Marked.tools()["first"].timeout == 9
    assert list(Marked.tools()) == ["first", "second"]


def test_none_takes_an_inherited_tool_away():
    class Less(Base):
        first = None

    assert list(Less.tools()) == ["second"]


def test_tools_of_several_parents_are_found_the_way_python_finds_them():
    class Left(Base):
        @tool
        def second(self) -> str: ...

    class Right(Base):
        @tool
        def second(self) -> str: ...

    class Both(Left, Right):
        pass

    assert Both.tools()["second"].method is Left.second


def test_the_tools_of_a_class_can_not_be_written_to():
    with pytest.raises(TypeError):
        Base.tools()["third"] = None


PLACES = st.fixed_dictionaries({"street": st.text()}, optional={"number": st.integers()})
CALLS = st.fixed_dictionaries(
    {
        "order_id": st.text() | st.integers(),
        "kind": st.sampled_from(["letter", "parcel", "pigeon"]),
        "to": PLACES | st.none(),
        "items": st.lists(st.integers() | st.booleans(), max_size=3),
    },
    optional={
        "amount": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        "note": st.none() | st.text() | st.integers(),
        "copy": st.booleans(),
    },
)


@given(CALLS)
def test_the_schema_accepts_what_validation_accepts(arguments):
    jsonschema = pytest.importorskip("jsonschema")
    spec = Clerk.tools()["send"]
    try:
        spec.parse(json.dumps(arguments))
    except ToolError:
        return
    jsonschema.validate(arguments, parameters())
