"""When two turns stand before the same state."""

from __future__ import annotations

from envs.types import Completion, Episode, Message, Task, ToolCall, ToolResult, Turn
from rl.credit.states import state_keys

Call = tuple[str, str, str]
"""Name, arguments, and what it came to."""


def keys(*turns: list[Call], say: str = "") -> list[str]:
    episode = Episode(id="e", env="made", task=Task.ask("?"))
    for n, calls in enumerate(turns):
        message = Message(
            role="assistant",
            content=say,
            tool_calls=tuple(ToolCall(id=f"{n}.{i}", name=c[0], arguments=c[1]) for i, c in enumerate(calls)),
        )
        results = tuple(ToolResult(call_id=f"{n}.{i}", name=c[0], content=c[2]) for i, c in enumerate(calls))
        episode.turns.append(Turn(completion=Completion(message=message), results=results))
    return state_keys(episode)


A, B = ("look", '{"id": 1}', "red"), ("look", '{"id": 2}', "blue")


def test_the_order_in_which_things_were_learned_does_not_matter() -> None:
    one, other = keys([A], [B], []), keys([B], [A], [])
    assert (one[0], one[2]) == (other[0], other[2])
    assert one[1] != other[1]
    assert keys([A, B], []) == [one[0], one[2]]


def test_going_round_in_a_circle_comes_back_to_the_same_state() -> None:
    start, first, again = keys([A], [A], [])
    assert first == again != start


def test_another_result_is_another_state_and_another_way_to_write_a_call_is_not() -> None:
    moved = ("look", '{"id": 1}', "green")
    spaced = ("look", '{ "id" : 1 }', "red")
    broken = ("look", '{"id": 1', "Error: bad arguments")
    assert keys([A], [])[1] != keys([moved], [])[1]
    assert keys([A], [])[1] == keys([spaced], [])[1]
    assert len({*keys([broken], []), *keys([A], [])}) == 3


def test_what_is_said_beside_a_call_is_no_state() -> None:
    assert keys([A], []) == keys([A], [], say="let me see")


def test_arguments_nested_too_deep_to_read_are_taken_as_written() -> None:
    deep = ToolCall(id="1", name="look", arguments="[" * 100_000)
    assert deep.canonical == deep.arguments
    assert ToolCall(id="1", name="look", arguments="").canonical == "{}"
