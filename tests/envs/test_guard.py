"""Scopes and budgets: what is refused, what counts, and which guards make no sense."""

import asyncio

import pytest

from envs import Environment, Guard, InputError, Message, Task, ToolCall, tool

TASK = Task.ask("Do something.")


class Shop(Environment):
    sold = 0

    @tool
    def look(self) -> str:
        return "seen"

    @tool
    def sell(self, price: int) -> str:
        self.sold += 1
        return "sold"


def outcome(guard, *calls):
    """The faults of these calls, made in one turn, and the environment."""
    env = Shop(TASK, guard)
    made = tuple(ToolCall(id=str(n), name=name, arguments=text) for n, (name, text) in enumerate(calls))
    results = asyncio.run(env.step(Message(role="assistant", tool_calls=made)))
    return [r.fault for r in results], env, results


LOOK, SELL = ("look", "{}"), ("sell", '{"price": 1}')


def test_without_limits_everything_is_admitted():
    assert outcome(Guard(), LOOK, SELL, LOOK)[0] == [None] * 3


def test_a_tool_outside_the_scope_is_denied_and_not_carried_out():
    for guard in (Guard(allow=["look"]), Guard(deny=["sell"])):
        faults, env, results = outcome(guard, LOOK, SELL)
        assert faults == [None, "denied"]
        assert results[1].content == "Error: sell is not allowed in this task."
        assert env.sold == 0


def test_an_empty_scope_allows_nothing():
    assert outcome(Guard(allow=[]), LOOK)[0] == ["denied"]


def test_a_denied_tool_is_still_shown():
    assert "sell" in Shop(TASK, Guard(deny=["sell"])).tools()


def test_the_budget_admits_calls_in_their_order_even_within_a_turn():
    faults, env, results = outcome(Guard(calls=2), SELL, LOOK, SELL)
    assert faults == [None, None, "denied"]
    assert results[2].content == "Error: the budget of 2 calls is used up."
    assert env.sold == 1


def test_a_tool_may_have_a_budget_of_its_own():
    faults, _, results = outcome(Guard(calls_per_tool={"sell": 1}), SELL, LOOK, SELL, LOOK)
    assert faults == [None, None, "denied", None]
    assert results[2].content == "Error: the budget of 1 call of sell is used up."


def test_a_budget_of_nothing_is_a_budget():
    assert outcome(Guard(calls=0), LOOK)[0] == ["denied"]


def test_only_calls_that_are_carried_out_use_the_budget_up():
    guard = Guard(deny=["sell"], calls=1)
    faults, env, _ = outcome(guard, SELL, ("nothing", "{}"), ("look", '{"x": 1}'), LOOK)
    assert faults == ["denied", "unknown_tool", "bad_arguments", None]
    assert env.guard.used == {"look": 1}
    assert guard.used == {}, "what is given is a rule for many episodes"


def test_guards_do_not_share_what_was_used():
    Guard().used["look"] = 5
    assert Guard().used == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"calls": -1}, r"guard\.calls is a number of calls, 0 or more, not -1"),
        ({"calls": True}, r"guard\.calls "),
        ({"calls": 1.5}, r"guard\.calls "),
        ({"calls_per_tool": {"sell": "2"}}, r"guard\.calls_per_tool\.sell"),
        ({"allow": "sell"}, r"guard\.allow is a list of tools, as in \[sell\]"),
        ({"deny": "sell"}, r"guard\.deny"),
        ({"allow": ["sell", "look"], "deny": ["sell"]}, "sell is both allowed and denied"),
    ],
)
def test_a_guard_that_makes_no_sense_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        Guard(**options)


@pytest.mark.parametrize("options", [{"allow": ["sel"]}, {"deny": ["sel"]}, {"calls_per_tool": {"sel": 1}}])
def test_a_misspelt_tool_in_a_guard_is_refused_with_the_nearest(options):
    with pytest.raises(InputError, match="unknown tool 'sel'; did you mean 'sell'"):
        Shop(TASK, Guard(**options))
