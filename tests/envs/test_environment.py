"""What happens to a call: dispatch, faults, time, and who waits for whom."""

import asyncio
import dataclasses
import datetime
import json
import re
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from envs import Environment, EnvLost, Guard, InputError, Message, Task, ToolCall, ToolError, tool
from envs.environment import as_text
from envs.guard import RESULT_CHARS

TASK = Task.ask("Do something.")


def call(name, arguments="{}", id="c1"):
    return ToolCall(id=id, name=name, arguments=arguments if isinstance(arguments, str) else json.dumps(arguments))


def ask(*calls):
    return Message(role="assistant", tool_calls=calls)


def play(env, *calls):
    return asyncio.run(env.step(ask(*calls)))


def one(env, name, arguments="{}"):
    return play(env, call(name, arguments))[0]


def tool_threads_end():
    """Whether every thread of a tool ends within seconds; a stopped one may still be on its way out."""
    threads = [thread for thread in threading.enumerate() if thread.name == "tool"]
    for thread in threads:
        thread.join(5)
    return not any(thread.is_alive() for thread in threads)


class Point(BaseModel):
    x: int
    y: int = 0


class Shed(Environment):
    """Tools that do one thing each, mostly wrong."""

    @tool
    def echo(self, value: str, times: int = 1) -> str:
        """Say it again."""
        return value * times

    @tool
    def nothing(self) -> None:
        """Return nothing."""

    @tool
    def raises(self) -> str:
        raise KeyError("drawer")

    @tool
    def refuses(self) -> str:
        raise ToolError("no such order.")

    @tool
    def exits(self) -> str:
        sys.exit(3)

    @tool
    async def exits_async(self) -> str:
        sys.exit(3)

    @tool
    def stops_iteration(self) -> str:
        return next(iter([]))

    @tool
    def times_out_by_itself(self) -> str:
        raise TimeoutError("the server is slow")

    @tool
    async def cancels_itself(self) -> str:
        raise asyncio.CancelledError

    @tool
    def lost(self) -> str:
        raise EnvLost("sandbox is gone")

    @tool
    def moves(self, to: Point) -> dict:
        return {"x": to.x, "y": to.y}

    @tool
    def surrogate(self) -> str:
        return "a\ud800b"

    @tool
    def raises_surrogate(self) -> str:
        raise ValueError("a\ud800b")

    @tool
    def circular(self) -> list:
        loop = []
        loop.append(loop)
        return loop

    @tool(timeout=0.05)
    def spins(self) -> str:
        while True:
            pass

    @tool(timeout=0.05)
    async def sleeps(self) -> str:
        await asyncio.sleep(60)
        return "late"


@pytest.fixture
def shed():
    return Shed(TASK)


def test_a_call_returns_the_methods_value_under_its_id(shed):
    result = one(shed, "echo", {"value": "ab", "times": 2})
    assert (result.call_id, result.name, result.content, result.fault) == ("c1", "echo", "abab", None)


def test_defaults_fill_in_and_empty_arguments_mean_none(shed):
    assert one(shed, "echo", {"value": "ab"}).content == "ab"
    assert one(shed, "nothing", "").content == "null"


def test_an_unknown_tool_is_told_which_there_are(shed):
    result = one(shed, "ech")
    assert result.fault == "unknown_tool"
    assert "'ech'" in result.content and "echo" in result.content


@pytest.mark.parametrize(
    "arguments",
    [
        '{"value": "a"',
        "value=a",
        "[]",
        '"a"',
        "null",
        " ",
        "NaN",
        "{}",
        '{"value": 1}',
        '{"value": "a", "times": "2"}',
        '{"value": "a", "times": 2.0}',
        '{"value": "a", "times": true}',
        '{"value": "a", "extra": 1}',
        '{"value": "\\ud800"}',
        '{"value": "\ud800"}',
        '{"p0": "a"}',
        "[" * 100_000,
    ],
)
def test_arguments_that_do_not_fit_are_the_models_fault(shed, arguments):
    result = one(shed, "echo", arguments)
    assert result.fault == "bad_arguments"
    assert result.content.startswith("Error: bad arguments: ")
    result.content.encode()


def test_what_is_wrong_is_named(shed):
    said = one(shed, "echo", {"times": "2", "extra": 1}).content
    assert "value: Field required" in said and "times: " in said and "extra: " in said
    assert "to.x: " in one(shed, "moves", {"to": {"x": "1"}}).content


def test_nested_models_arrive_as_models(shed):
    assert json.loads(one(shed, "moves", {"to": {"x": 3}}).content) == {"x": 3, "y": 0}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "Error: KeyError: 'drawer'"),
        ("refuses", "Error: no such order."),
        ("exits", "Error: SystemExit: 3"),
        ("exits_async", "Error: SystemExit: 3"),
        ("times_out_by_itself", "Error: TimeoutError: the server is slow"),
        ("cancels_itself", "Error: CancelledError: "),
        ("raises_surrogate", "Error: ValueError: a?b"),
    ],
)
def test_what_a_tool_raises_is_text_for_the_model(shed, name, said):
    result = one(shed, name)
    assert (result.content, result.fault) == (said, "raised")


def test_stop_iteration_does_not_hang_the_call(shed):
    started = time.monotonic()
    assert one(shed, "stops_iteration").fault == "raised"
    assert time.monotonic() - started < 5


def test_a_result_that_json_cannot_hold_is_a_raised_fault(shed):
    assert one(shed, "circular").fault == "raised"


def test_lone_surrogates_in_a_result_become_question_marks(shed):
    assert one(shed, "surrogate").content == "a?b"


@pytest.mark.parametrize("name", ["spins", "sleeps"])
def test_a_tool_that_takes_too_long_is_stopped(shed, name):
    result = one(shed, name)
    assert result.fault == "timeout"
    assert "0.05 s" in result.content
    assert result.seconds >= 0.05


def test_a_spinning_tool_leaves_no_thread(shed):
    one(shed, "spins")
    assert tool_threads_end()


def test_a_lost_environment_is_no_result(shed):
    with pytest.raises(EnvLost, match="sandbox is gone"):
        one(shed, "lost")


def test_a_lost_environment_stops_the_other_calls_before_it_is_raised():
    ended = []

    class Leaky(Environment):
        @tool
        async def waits(self) -> str:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("waits")
            return ""

        @tool
        async def lost(self) -> str:
            await asyncio.sleep(0)
            raise EnvLost("gone")

    async def run():
        with pytest.raises(EnvLost):
            await Leaky(TASK).step(ask(call("waits"), call("lost")))
        assert ended == ["waits"]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_cancelling_a_step_cancels_its_calls_and_is_no_fault():
    ended = []

    class Slow(Environment):
        @tool
        async def waits(self) -> str:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("waits")
            return ""

    async def run():
        step = asyncio.create_task(Slow(TASK).step(ask(call("waits"), call("waits"))))
        await asyncio.sleep(0.01)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert ended == ["waits", "waits"]

    asyncio.run(run())


@pytest.mark.parametrize("name", ["spins", "sleeps"])
def test_a_call_cancelled_from_outside_is_cancelled(name):
    class Endless(Environment):
        @tool
        def spins(self) -> str:
            while True:
                pass

        @tool
        async def sleeps(self) -> str:
            await asyncio.sleep(60)
            return "late"

    async def run():
        calling = asyncio.create_task(Endless(TASK).call(call(name)))
        await asyncio.sleep(0.01)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

    asyncio.run(run())


def test_an_episode_cancelled_from_outside_stops_a_spinning_tool():
    class Spinner(Environment):
        @tool
        def spins(self) -> str:
            while True:
                pass

    async def run():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Spinner(TASK).step(ask(call("spins")))

    asyncio.run(run())
    assert tool_threads_end()


def test_results_come_in_the_order_of_the_calls_whoever_ends_first():
    class Race(Environment):
        @tool
        async def after(self, turns: int) -> int:
            for _ in range(turns):
                await asyncio.sleep(0)
            return turns

    calls = [call("after", {"turns": n}, id=f"c{n}") for n in (5, 0, 3)]
    assert [(r.call_id, r.content) for r in play(Race(TASK), *calls)] == [("c5", "5"), ("c0", "0"), ("c3", "3")]


def test_async_tools_of_one_turn_run_at_once():
    class Meeting(Environment):
        """Each waits for the other: one after the other would never end."""

        def __init__(self, task):
            super().__init__(task)
            self.both = asyncio.Barrier(2)

        @tool(timeout=5)
        async def meet(self) -> str:
            await self.both.wait()
            return "met"

    async def run():
        return await Meeting(TASK).step(ask(call("meet", id="a"), call("meet", id="b")))

    assert [result.content for result in asyncio.run(run())] == ["met", "met"]


def test_sync_tools_of_one_environment_take_turns_in_the_order_of_the_calls():
    class Ledger(Environment):
        def __init__(self, task):
            super().__init__(task)
            self.events = []

        @tool
        def write(self, name: str) -> str:
            self.events.append(f"{name} in")
            time.sleep(0.01)
            self.events.append(f"{name} out")
            return name

    env = Ledger(TASK)
    play(env, *(call("write", {"name": name}) for name in "abc"))
    assert env.events == ["a in", "a out", "b in", "b out", "c in", "c out"]


def test_a_sync_tool_holds_up_neither_another_environment_nor_the_loop():
    class Gate(Environment):
        """`waits` ends when another environment's `opens` ran: taking turns would never end."""

        gate = threading.Event()

        @tool(timeout=5)
        def waits(self) -> bool:
            return self.gate.wait(5)

        @tool(timeout=5)
        def opens(self) -> None:
            self.gate.set()

    async def run():
        return await asyncio.gather(Gate(TASK).step(ask(call("waits"))), Gate(TASK).step(ask(call("opens"))))

    (waited,), _ = asyncio.run(run())
    assert waited.content == "true"


def test_waiting_for_another_tools_turn_is_not_a_tools_own_time():
    class Queue(Environment):
        @tool(timeout=1)
        def works(self) -> str:
            time.sleep(0.3)
            return "done"

    results = play(Queue(TASK), *(call("works") for _ in range(4)))
    assert [result.fault for result in results] == [None] * 4
    assert max(result.seconds for result in results) < 1


def test_a_stopped_tool_changes_nothing_after_it_was_stopped():
    class Late(Environment):
        changed = False

        @tool(timeout=0.05)
        def late(self) -> None:
            time.sleep(0.5)  # in C: can't be stopped before it returns
            self.changed = True

    env = Late(TASK)
    assert one(env, "late").fault == "timeout"
    assert tool_threads_end()
    assert not env.changed


def test_a_tool_may_end_the_episode():
    class Bell(Environment):
        @tool
        def ring(self) -> str:
            self.done = True
            return "ding"

    env = Bell(TASK)
    assert not env.done
    one(env, "ring")
    assert env.done


def test_a_sync_wrapper_around_an_async_tool_is_awaited():
    def traced(method):
        def wrapper(self, value: str) -> str:
            return method(self, value)

        return wrapper

    class Wrapped(Environment):
        @tool
        @traced
        async def echo(self, value: str) -> str:
            return value

    assert one(Wrapped(TASK), "echo", {"value": "a"}).content == "a"


def test_calls_with_one_id_each_get_their_own_result(shed):
    results = play(shed, call("echo", {"value": "a"}, id="x"), call("echo", {"value": "b"}, id="x"))
    assert [(r.call_id, r.content) for r in results] == [("x", "a"), ("x", "b")]


def test_a_message_without_calls_has_no_results(shed):
    assert play(shed) == ()


def test_an_environment_without_tasks_says_where_to_name_them():
    with pytest.raises(InputError, match=r"'shed' brings no tasks.*env\.data"):
        Shed.tasks("train")


def test_a_name_is_the_class_in_lower_case_unless_set():
    class Depot(Shed):
        name = "warehouse"

    class Attic(Depot):
        pass

    assert (Shed.name, Depot.name, Attic.name) == ("shed", "warehouse", "attic")


@dataclasses.dataclass
class Order:
    id: int
    due: datetime.date


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        ({"ä": [1.5, None]}, '{"ä": [1.5, null]}'),
        ((1, 2), "[1, 2]"),
        ({7: "x"}, '{"7": "x"}'),
        (Point(x=1), '{"x": 1, "y": 0}'),
        ([Order(1, datetime.date(2026, 1, 2))], '[{"id": 1, "due": "2026-01-02"}]'),
        ({3}, "[3]"),
        (ValueError("odd"), '"odd"'),
    ],
)
def test_results_are_read_as_json(value, text):
    assert as_text(value) == text


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters()) | st.integers(), children),
)


@given(ANYTHING)
def test_what_the_model_reads_can_always_be_encoded(value):
    as_text(value).encode("utf-8")


@given(st.text(st.characters()), st.text(st.characters()))
def test_no_call_however_odd_raises(name, arguments):
    result = one(Shed(TASK), name, arguments)
    assert result.fault is not None
    result.content.encode("utf-8")


HUGE, LARGE = 100_000_000, 2_000_000


class Flood(Environment):
    """Returns and raises more than anybody can read."""

    @tool
    def text(self) -> str:
        return "\x1b" * HUGE

    @tool
    def rows(self) -> list[str]:
        return ["<|im_end|>" * 10] * (LARGE // 100)

    @tool
    def raw(self) -> bytes:
        return b"\xff" * LARGE

    @tool
    def raises(self) -> str:
        raise ValueError("x" * HUGE)


@pytest.mark.parametrize(("name", "size"), [("text", HUGE), ("rows", LARGE), ("raw", LARGE), ("raises", HUGE)])
def test_of_a_huge_result_the_model_is_shown_the_beginning_and_told_how_much_there_was(name, size):
    content = one(Flood(TASK), name).content
    shown, mark = content.rsplit("\n", 1)
    assert len(shown) == RESULT_CHARS
    whole = int(re.fullmatch(r"\[cut: the result has (\d+) characters, of which the first 50000 are shown\]", mark)[1])
    assert whole >= size


def test_a_result_of_just_the_limit_is_whole():
    class Exact(Environment):
        @tool
        def give(self, n: int) -> str:
            return "x" * n

    env = Exact(TASK, Guard(result_chars=5))
    assert one(env, "give", {"n": 5}).content == "xxxxx"
    assert one(env, "give", {"n": 6}).content.startswith("xxxxx\n[cut: the result has 6 characters")
