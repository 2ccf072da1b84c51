"""MCP servers as environments, with real server processes: good ones, and ones that do everything wrong."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mcp_plain
from envs import EnvLost, Guard, InputError, Message, Stop, Task, ToolCall, tool
from envs.bridges.mcp import Server, environment
from rl.policy import ScriptPolicy
from rl.rollout import Limits, run_episode
from served import Server as Http

TESTS = Path(__file__).parents[1]
TASK = Task.ask("Do something.", id="t")


def plain(start="", **options):
    options = {"timeout": 200.0, **options}
    return Server(command=sys.executable, args=[str(TESTS / "mcp_plain.py"), *([start] if start else [])], **options)


@pytest.fixture(scope="module")
def shed():
    return environment(plain())


@pytest.fixture(autouse=True)
def nothing_stays():
    """No server process, nor what it started, outlives an episode."""
    yield
    deadline = time.monotonic() + 10
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def children():
    """Programs that this process started and that still run."""
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and f"PPid:\t{os.getpid()}\n" in (directory / "status").read_text():
                line = (directory / "cmdline").read_bytes().decode().replace("\0", " ")
                found += [line] if "mcp_plain" in line else []
        except OSError:
            continue
    return found


def turn(*calls):
    made = (ToolCall(id=f"c{n}", name=name, arguments=json.dumps(rest)) for n, (name, rest) in enumerate(calls))
    return Message(role="assistant", tool_calls=tuple(made))


ANSWER = Message(role="assistant", content="so be it")


def play(env, *turns, guard=None):
    return asyncio.run(run_episode(env(TASK, guard), ScriptPolicy([*turns, ANSWER]), Limits(), id="t#0"))


def one(env, name, guard=None, **arguments):
    """The only result of an episode with one call that goes on to its answer."""
    episode = play(env, turn((name, arguments)), guard=guard)
    assert episode.stop is Stop.DONE, episode.fault
    return episode.turns[0].results[0]


def lost(env, name, **arguments):
    """Why an episode with one call was lost."""
    episode = play(env, turn((name, arguments)))
    assert episode.stop is Stop.ENV_LOST
    return episode.fault


def test_tools_come_in_their_order_with_their_schemas_as_they_are(shed):
    assert list(shed.tools()) == ["echo", *mcp_plain.NAMES]
    function = shed.tools()["echo"].schema["function"]
    assert function == {"name": "echo", "description": "Say it again.", "parameters": mcp_plain.ODD}
    assert list(environment(plain("pages")).tools()) == list(shed.tools())


def test_a_call_reaches_the_server_and_its_text_comes_back(shed):
    result = one(shed, "echo", text="grüezi 😀", self=3)
    assert (result.fault, json.loads(result.content)) == (None, {"text": "grüezi 😀", "self": 3})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'text' is a required property"),
        ({"text": 3}, "text: 3 is not of type 'string'"),
        ({"text": "x" * 51}, "text: .* is too long"),
    ],
)
def test_arguments_that_break_the_schema_never_reach_the_server(shed, arguments, said):
    env = shed(TASK)  # not set up: there is no server to reach
    result = asyncio.run(env.call(turn(("echo", arguments)).tool_calls[0]))
    assert result.fault == "bad_arguments"
    assert re.search(said, result.content)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "Error: the drawer is stuck"),
        ("refuses", "Error: n must be even"),
        ("breaks", "Error: something broke in here"),
    ],
)
def test_an_error_of_a_server_that_still_answers_is_the_models_to_read(shed, name, said):
    result = one(shed, name)
    assert (result.fault, result.content) == ("raised", said)


def test_what_is_no_text_is_named(shed):
    assert one(shed, "shows").content == "[image/png, not shown]\nbelow\ninside"


def test_bytes_that_are_no_utf_8_are_marked_in_the_text(shed):
    assert one(shed, "broken").content == "caf\ufffd"


def test_a_huge_result_is_cut_and_the_text_says_so(shed):
    content = one(shed, "big", n=5_000_000).content
    assert content.endswith("[cut: the result has 5000000 characters, of which the first 50000 are shown]")
    assert len(content) < 50_200
    assert one(shed, "big", guard=Guard(result_chars=10), n=11).content.startswith("x" * 10 + "\n[cut")


def test_each_episode_has_a_process_of_its_own(shed):
    for _ in range(2):
        episode = play(shed, turn(("count", {})), turn(("count", {}), ("count", {})))
        assert [r.content for t in episode.turns for r in t.results] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dies", "out of cheese"),
        ("garbage", "speaks no MCP: .*html"),
        ("latin", "speaks no MCP: .*caf"),
        ("nonsense", "content"),
    ],
)
def test_a_server_that_dies_or_speaks_garbage_is_a_lost_environment(shed, name, said):
    fault = lost(shed, name)
    assert fault.startswith("MCP server ") and re.search(said, fault), fault


def test_a_call_that_hangs_is_a_timeout_and_the_episode_goes_on():
    env = environment(plain(timeout=3))
    episode = play(env, turn(("hangs", {}), ("echo", {"text": "a"})), turn(("count", {})))
    assert episode.stop is Stop.DONE, episode.fault
    assert [r.fault for t in episode.turns for r in t.results] == ["timeout", None, None]


def test_what_the_server_started_ends_with_the_episode(shed):
    pid = int(one(shed, "child").content)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_that_will_not_end_is_ended(shed):
    class Deaf(shed):
        server = plain("deaf")

    assert one(Deaf, "count").content == "1"


def test_cancelling_an_episode_ends_its_server(shed):
    async def cancelled():
        env = shed(TASK)
        episode = asyncio.create_task(run_episode(env, ScriptPolicy([turn(("hangs", {}))]), Limits(), id="t"))
        while not children():
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        episode.cancel()
        with pytest.raises(asyncio.CancelledError):
            await episode
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancelled())


def test_many_episodes_at_once_leave_nothing_open(shed):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    async def all_of_them():
        policies = [ScriptPolicy([turn(("dies" if n % 3 == 0 else "count", {})), ANSWER]) for n in range(9)]
        return await asyncio.gather(*(run_episode(shed(TASK), p, Limits(), id=f"{n}") for n, p in enumerate(policies)))

    asyncio.run(all_of_them())
    before = descriptors()
    stops = [episode.stop for episode in asyncio.run(all_of_them())]
    assert stops == [Stop.ENV_LOST, Stop.DONE, Stop.DONE] * 3
    assert descriptors() <= before


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (lambda: plain("exits"), "no licence found"),
        (lambda: plain("banner"), "speaks no MCP: .*Welcome to Plain"),
        (lambda: plain("mute", timeout=0.7), "was not ready within 0.7 s"),
        (lambda: plain("no-tools"), "offers no tools"),
        (lambda: plain("twice"), "offers two tools of one name"),
        (lambda: plain("bad-schema"), "tool echo: its schema is none: 'strin'"),
        (lambda: plain("no-schema"), "ValidationError: .*inputSchema"),
        (lambda: plain("not-an-object"), "tool echo: its schema refers to '#/gone'"),
        (lambda: Server(command="/no/such/program"), "/no/such/program: not found|No such file"),
        (lambda: plain(cwd="/no/such/directory"), "No such file or directory: '/no/such/directory'"),
        (lambda: Server(url="http://127.0.0.1:9/mcp"), "ConnectError"),
    ],
)
def test_a_server_that_can_not_be_used_is_named_before_anything_is_played(server, said):
    with pytest.raises(InputError, match=said) as caught:
        environment(server())
    assert str(caught.value).startswith("MCP server ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "name one of them"),
        ({"command": "a", "url": "http://b"}, "name one of them"),
        ({"command": "a", "headers": {"x": "y"}}, "headers would have no effect with command"),
        ({"url": "http://b", "args": ["x"], "cwd": "/"}, "args, cwd would have no effect with url"),
    ],
)
def test_a_server_is_a_command_or_an_address(options, said):
    with pytest.raises(InputError, match=said):
        Server(**options)


def test_an_environment_can_be_made_while_a_loop_runs():
    async def inside():
        return environment(plain())

    assert "echo" in asyncio.run(inside()).tools()


def test_a_server_that_offers_less_than_it_did_is_lost(shed):
    class Moved(shed):
        server = plain("no-tools")

    assert "no longer offers big, breaks, broken" in lost(Moved, "count")


def test_a_subclass_adds_tools_and_replaces_them(shed):
    class More(shed):
        @tool
        def count(self) -> str:
            return "none"

        @tool
        def answer(self, value: int) -> str:
            self.done = True
            return "noted"

    assert set(More.tools()) == {*shed.tools(), "answer"}
    episode = play(More, turn(("count", {})), turn(("answer", {"value": 3})))
    assert [r.content for t in episode.turns for r in t.results] == ["none", "noted"]


def test_the_program_sees_no_secrets_of_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    seen = tmp_path / "seen"
    script = f"env > {seen}; exec {sys.executable} {TESTS / 'mcp_plain.py'}"
    environment(Server(command="/bin/sh", args=["-c", script], env={"GIVEN": "yes"}))
    assert "GIVEN=yes" in seen.read_text() and "secret" not in seen.read_text()


NOTES = [("add_note", {"text": "milk"}), ("divide", {"a": 1, "b": 0}), ("divide", {"a": 1, "b": 4})]


def test_a_server_of_the_official_sdk_plays_over_stdio():
    env = environment(Server(command=sys.executable, args=[str(TESTS / "mcp_sdk.py")]))
    assert env.tools()["add_note"].description == "Keep a note."
    episode = play(env, turn(*NOTES), turn(("all_notes", {})))
    added, failed, divided = episode.turns[0].results
    assert (added.content, failed.fault, divided.content) == ("1 notes", "raised", "0.25")
    assert "milk" in episode.turns[1].results[0].content


@pytest.fixture
def over_http():
    """A server process with streamable HTTP, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(TESTS / "mcp_sdk.py"), str(port)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    yield Server(url=f"http://127.0.0.1:{port}/mcp", headers={"x-who": "test"})
    process.kill()
    process.wait()


def test_a_server_of_the_official_sdk_plays_over_http_until_it_goes_away(over_http):
    env = environment(over_http)
    episode = play(env, turn(*NOTES))
    assert [r.content for r in episode.turns[0].results[::2]] == ["1 notes", "0.25"]
    assert episode.turns[0].results[1].fault == "raised"
    assert lost(env, "leave").startswith(f"MCP server {over_http.url}")
    episode = play(env)
    assert episode.stop is Stop.ENV_LOST and "ConnectError" in episode.fault


@pytest.mark.parametrize(
    "answer",
    [(200, "<html>welcome</html>"), (200, {"hello": "world"}), (500, {"error": "down"}), (404, {}), (302, {})],
)
def test_an_address_that_answers_no_mcp_is_named(answer):
    http = Http()
    http.answer = lambda request: answer
    try:
        with pytest.raises(InputError, match=f"MCP server {http.url}: "):
            environment(Server(url=http.url, timeout=200))
    finally:
        http.close()


def test_an_address_that_stops_to_speak_mcp_is_a_lost_environment():
    """A server of the SDK's kind, in front of which a broken proxy answers from some moment on."""
    http = Http()
    plain_server = mcp_plain.Plain("")
    broken = False

    def answer(request):
        if broken and request["method"] != "server/discover":
            return 200, "<html>bad gateway</html>"
        said = []
        mcp_plain_write, mcp_plain.write = mcp_plain.write, said.append
        try:
            if "id" in request:
                plain_server.answer({k: v for k, v in request.items() if k != "path"})
        finally:
            mcp_plain.write = mcp_plain_write
        return (200, said[0]) if said else (202, {})

    http.answer = answer
    try:
        env = environment(Server(url=http.url, timeout=200))
        assert one(env, "echo", text="a").content == '{"text": "a"}'

        async def breaks_midway():
            nonlocal broken
            session = env(TASK)
            await session.setup()
            broken = True
            try:
                with pytest.raises(EnvLost, match="MCP server"):
                    await session.call(turn(("echo", {"text": "a"})).tool_calls[0])
            finally:
                await session.close()

        asyncio.run(breaks_midway())
    finally:
        http.close()
