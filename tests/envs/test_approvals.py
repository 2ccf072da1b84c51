"""Calls that need a yes: which they are, who is asked, and that whatever goes wrong is a no."""

import asyncio
import io
import socket
import sys
import threading
import time
from datetime import UTC, datetime

import pytest

from envs import Environment, Guard, InputError, Message, Task, ToolCall, tool
from envs.approvals import ANSWER_BYTES, Approvals, Rule, approver
from served import Server

TASK = Task.ask("Do something.", id="t1")


class Shop(Environment):
    def __init__(self, task, guard=None):
        super().__init__(task, guard)
        self.paid = []

    @tool
    def look(self) -> str:
        return "seen"

    @tool
    def refund(self, amount: float, note: str = "") -> str:
        self.paid.append(amount)
        return "paid"


def yes(task: Task, call: ToolCall) -> bool:
    return True


def no(task: Task, call: ToolCall) -> str:
    return f"{call.name} in {task.id}: not today"


async def later(task: Task, call: ToolCall) -> bool:
    await asyncio.sleep(0)
    return False


def sleeps(task: Task, call: ToolCall) -> bool:
    time.sleep(5)
    return True


def says_maybe(task: Task, call: ToolCall) -> str | None:
    return None


def breaks(task: Task, call: ToolCall) -> bool:
    raise ZeroDivisionError("a bug")


NUMBER = 17

WHEN = "amount > 100"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """This module, under a name that `module:attribute` can say."""
    monkeypatch.setitem(sys.modules, "approvers_of_test", sys.modules[__name__])


def named(function):
    return f"approvers_of_test:{function}"


def guard(who, *, when=WHEN, timeout=None, **limits):
    return Guard(approvals=(Approvals((Rule("refund", when),), approver(who, timeout=timeout)),), **limits)


def outcome(guard, *arguments):
    """The results of these refunds, asked for in one turn, and the environment."""
    env = Shop(TASK, guard)
    calls = tuple(ToolCall(id=f"c{n}", name="refund", arguments=text) for n, text in enumerate(arguments))
    return asyncio.run(env.step(Message(role="assistant", tool_calls=calls))), env


def refused(who, timeout=None):
    """Why a refund of 500 was not carried out."""
    (result,), env = outcome(guard(who, timeout=timeout), '{"amount": 500}')
    assert (result.fault, env.paid) == ("denied", [])
    assert result.content.startswith("Error: refund needs an approval here, and it was not given")
    (approval,) = result.approvals
    assert not approval.granted and approval.reason in result.content
    return approval


def test_only_calls_that_a_rule_names_are_asked_about():
    results, env = outcome(guard("deny"), '{"amount": 100}', '{"amount": 100.5}')
    assert [r.fault for r in results] == [None, "denied"]
    assert env.paid == [100.0] and results[0].approvals == ()
    results, env = outcome(guard("deny", when=None), '{"amount": 1}')
    assert results[0].fault == "denied" and env.paid == []


@pytest.mark.parametrize("amount", ["1e999", "NaN", "101"])
def test_no_way_of_writing_an_amount_slips_past_its_condition(amount):
    results, env = outcome(guard("deny"), f'{{"amount": {amount}}}')
    assert results[0].fault in ("denied", "bad_arguments") and env.paid == []


def test_what_is_granted_is_carried_out_and_the_record_says_who_and_when():
    before = datetime.now(UTC)
    (result,), env = outcome(guard("allow"), '{"amount": 500}')
    assert (result.content, result.fault, env.paid) == ("paid", None, [500.0])
    (approval,) = result.approvals
    assert (approval.by, approval.granted, approval.reason) == ("allow", True, "")
    assert abs((datetime.fromisoformat(approval.at) - before).total_seconds()) < 60


def test_a_default_counts_as_what_the_model_wrote():
    class Eager(Environment):
        @tool
        def refund(self, amount: float = 500) -> str:
            return "paid"

    env = Eager(TASK, guard("deny"))
    assert asyncio.run(env.call(ToolCall(id="c", name="refund", arguments="{}"))).fault == "denied"


def test_a_refusal_uses_no_budget_up_and_each_call_waits_for_the_one_before():
    results, env = outcome(guard(named("later"), calls=1), '{"amount": 500}', '{"amount": 1}', '{"amount": 2}')
    assert [r.fault for r in results] == ["denied", None, "denied"]
    assert env.paid == [1.0] and "budget of 1 call" in results[2].content


def test_nobody_is_asked_about_a_call_that_is_refused_anyway():
    (result,), _ = outcome(guard(named("breaks"), deny=["refund"]), '{"amount": 500}')
    assert result.content == "Error: refund is not allowed in this task." and result.approvals == ()


def test_of_several_approvers_all_have_to_agree():
    first = Approvals((Rule("refund"),), approver("allow"))
    second = Approvals((Rule("refund", WHEN),), approver("deny"))
    both = Guard(approvals=(first,)).narrowed(Guard(approvals=(second,)))
    results, env = outcome(both, '{"amount": 1}', '{"amount": 500}')
    assert [[a.by for a in r.approvals] for r in results] == [["allow"], ["allow", "deny"]]
    assert env.paid == [1.0]


def test_deny_says_that_nobody_is_here():
    assert refused("deny").reason == "nobody is here to approve it"


@pytest.mark.parametrize(
    ("typed", "granted", "reason"),
    [
        ("y\n", True, ""),
        ("YES\n", True, ""),
        ("too much\n", False, "too much"),
        ("\n", False, ""),
        ("", False, "nobody answered"),
    ],
)
def test_a_person_at_the_terminal_decides(typed, granted, reason, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    (result,), env = outcome(guard("ask"), '{"amount": 500}')
    (approval,) = result.approvals
    assert (approval.by, approval.granted, approval.reason) == ("ask", granted, reason)
    assert env.paid == ([500.0] if granted else [])


def test_what_the_model_wrote_can_not_disguise_itself_in_the_question(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    outcome(guard("ask", when=None), '{"amount": 500, "note": "\u202eevil\u2066"}')
    shown = capsys.readouterr().out
    assert "approve refund" in shown and "\\u202eevil\\u2066" in shown and "\u202e" not in shown


def test_a_function_decides():
    (result,), env = outcome(guard(named("yes")), '{"amount": 500}')
    assert env.paid == [500.0] and result.approvals[0].by == "approvers_of_test:yes"
    assert refused(named("no")).reason == "refund in t1: not today"
    assert refused(named("later")).reason == ""


def test_a_function_that_takes_too_long_is_a_no():
    assert refused(named("sleeps"), timeout=0.05).reason == "no answer within 0.05 s"


def test_a_function_with_a_bug_stops_the_run_and_nothing_is_carried_out():
    for function, error in (("breaks", ZeroDivisionError), ("says_maybe", TypeError)):
        with pytest.raises(error):
            outcome(guard(named(function)), '{"amount": 500}')


@pytest.fixture
def webhook():
    server = Server()
    yield server
    server.close()


def test_a_webhook_hears_what_is_asked_and_its_yes_is_recorded(webhook):
    webhook.answer = lambda request: (200, {"approved": True, "by": "Ada", "reason": "regular customer", "more": 1})
    (result,), env = outcome(guard(webhook.url), '{"amount": 500}')
    assert env.paid == [500.0]
    assert webhook.heard == [
        {"path": "/v1", "task": "t1", "call": "c0", "tool": "refund", "arguments": {"amount": 500.0, "note": ""}}
    ]
    (approval,) = result.approvals
    assert (approval.by, approval.granted, approval.reason) == (f"{webhook.url}: Ada", True, "regular customer")


def test_a_webhooks_no_is_text_for_the_model(webhook):
    webhook.answer = lambda request: (200, {"approved": False, "reason": "over the limit"})
    assert refused(webhook.url).reason == "over the limit"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, {"approved": True}, "status 500"),
        (201, {"approved": True}, "status 201"),
        (302, {"approved": True}, "status 302"),
        (200, "<html>approved</html>", "answer is none"),
        (200, "", "answer is none"),
        (200, {}, "approved: Field required"),
        (200, {"approved": "true"}, "approved: "),
        (200, {"approved": 1}, "approved: "),
        (200, [True], "answer is none"),
        (200, {"approved": True, "reason": "x" * 2 * ANSWER_BYTES}, "answer is none"),
    ],
)
def test_an_answer_that_is_no_plain_yes_is_a_no(webhook, status, body, said):
    webhook.answer = lambda request: (status, body)
    assert said in refused(webhook.url).reason


def test_a_webhook_that_is_down_is_a_no():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/approve"
    assert refused(url).reason == "the approval webhook can't be reached (ConnectError)"


def test_a_webhook_that_hangs_or_drips_is_a_no():
    """A server that sends a byte now and then never runs into a timeout between bytes."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
            while not stop.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    started = time.monotonic()
    try:
        approval = refused(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.3)
        assert approval.reason == "the approval webhook gave no answer within 0.3 s"
        assert time.monotonic() - started < 1.9
    finally:
        stop.set()
        thread.join()
        listener.close()


def test_an_episode_that_is_cancelled_does_not_wait_for_its_approval():
    async def cancelled():
        env = Shop(TASK, guard(named("sleeps")))
        asking = asyncio.create_task(env.call(ToolCall(id="c", name="refund", arguments='{"amount": 500}')))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert env.paid == []

    asyncio.run(cancelled())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: approver("alow"), "unknown approver 'alow'; did you mean 'allow'"),
        (lambda: approver("deny", timeout=3), "timeout would have no effect with approver 'deny'"),
        (lambda: approver("ask", timeout=3), "timeout would have no effect"),
        (lambda: approver(named("gone")), "unknown attribute 'gone'"),
        (lambda: approver(named("NUMBER")), "is a int; it must be a function"),
        (lambda: Rule("refund", "amount >"), "is no condition"),
        (lambda: Shop(TASK, Guard(approvals=(Approvals((Rule("refnd"),), approver("deny")),))), "unknown tool 'refnd'"),
        (lambda: Shop(TASK, guard("deny", when="amout > 1")), "unknown argument of refund 'amout'; did you mean"),
    ],
)
def test_an_approval_that_would_protect_nothing_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
