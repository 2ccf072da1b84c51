"""The desk with a customer: what must be asked, what must not, and whom it helps to press."""

import asyncio
import json
import random
import re
import statistics
from functools import cache
from pathlib import Path

import pytest
import yaml

from agents import random_agent, scripted
from envs import InputError, Message, Stop, Task
from envs.customer import ANSWERS, NOTHING, SECONDS, Question
from envs.desk import COUNTS, Desk, split_of
from envs.desk_talk import PRESSING, TalkingDesk
from envs.script import script
from envs.tasks import check_disjoint
from rewards import build
from rl.rollout import Limits, run_episode
from served import Server
from twice import printed_twice

REWARD = build(yaml.safe_load((Path(__file__).parents[2] / "configs" / "desk_talk.yaml").read_text())["reward"])


def played(task, policy, turns=20):
    """The episode and its score."""

    async def run():
        episode = await run_episode(TalkingDesk(task), policy, Limits(turns=turns), id="1")
        return episode, None if episode.broken else await REWARD(episode)

    return asyncio.run(run())


def calls_of(task):
    """The expert's calls, (name, arguments) each."""
    return [(c.name, json.loads(c.arguments)) for m in TalkingDesk.expert(task) for c in m.tool_calls]


def did(task, calls):
    return played(task, scripted(script(calls, "Done.")))


@cache
def single():
    """Tasks of one request each, made once for all tests."""
    return TalkingDesk.tasks("train", orders=(1, 1), count=600)


def one(withheld=(), twin=False, **want):
    """The first task with one request that leaves this out, and has these entries."""
    for task in single():
        (request,) = task.item["requests"]
        told = {**request, "twin": len(request["alike"]) > 1}
        if {**want, "withheld": list(withheld), "twin": twin}.items() <= told.items():
            return task
    raise AssertionError(f"no task with {withheld}, {want}")


def reasons(episode):
    return [violation["reason"] for violation in episode.state["violations"]]


def asking(about, request=1):
    return ("ask_customer", {"request": request, "about": about})


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("difficulty", ["easy", "standard", "hard"])
def test_the_expert_is_paid_in_full_and_every_call_brings_it_on(split, difficulty):
    for task in TalkingDesk.tasks(split, orders=(1, 3), difficulty=difficulty, count=30):
        episode, score = played(task, scripted(TalkingDesk.expert(task)), turns=40)
        assert episode.stop is Stop.DONE
        assert score.parts["success"] == 1.0, task
        assert score.parts["steps"] == len(calls_of(task))
        assert [score.parts[name] for name in ("rules", "needless", "repeats", "calls")] == [0.0] * 4


def test_splits_are_disjoint_and_large_enough():
    splits = {split: TalkingDesk.tasks(split) for split in COUNTS}
    check_disjoint(splits)
    assert {split: len({task.id for task in tasks}) for split, tasks in splits.items()} == COUNTS
    for split, tasks in splits.items():
        assert {split_of(order) for task in tasks for order in task.item["database"]} == {split}
    assert TalkingDesk.tasks("test", count=5) == splits["test"][:5]


def test_tasks_and_answers_are_the_same_in_every_process():
    code = (
        "import asyncio, hashlib\nfrom envs.customer import Question, scripted\n"
        "from envs.desk_talk import TalkingDesk\n"
        "for t in TalkingDesk.tasks('test', count=20):\n"
        "    asked = Question(task=t, about='zip', request=t.item['requests'][0], fact='12345')\n"
        "    print(t.id, hashlib.sha256(repr((t.prompt, t.item, asyncio.run(scripted(asked)))).encode()).hexdigest())\n"
    )
    printed = printed_twice(code)
    assert [line.split()[0] for line in printed] == [t.id for t in TalkingDesk.tasks("test", count=20)]


def test_the_prompt_keeps_what_is_withheld_to_itself():
    seen = set()
    for task in TalkingDesk.tasks("train", orders=(1, 3), count=300):
        text = re.findall(r"\d+", task.prompt[-1].content)
        for request in task.item["requests"]:
            assert (request["order"] in text) == ("order" not in request["withheld"])
            assert (request["zip"] in text) == (request["action"] == "address" and "zip" not in request["withheld"])
            assert [n for n, order in task.item["database"].items() if order["item"] == request["item"]] == sorted(
                request["alike"], key=list(task.item["database"]).index
            )
            seen.add((*request["withheld"], len(request["alike"])))
    assert seen == {(*withheld, n) for withheld in ((), ("order",), ("zip",), ("order", "zip")) for n in (1, 2)}


def test_the_place_in_the_database_and_the_pressure_tell_nothing():
    tasks = [task for task in single() if len(task.item["requests"][0]["alike"]) > 1]
    first = statistics.mean(next(iter(t.item["database"])) == t.item["requests"][0]["order"] for t in tasks)
    assert first == pytest.approx(0.5, abs=0.1)
    pressed = [t for t in single() if t.prompt[-1].content.endswith(PRESSING)]
    allowed = statistics.mean(t.item["requests"][0]["due"] != "escalate" for t in pressed)
    assert len(pressed) / len(single()) == pytest.approx(0.3, abs=0.05)
    assert allowed == pytest.approx(0.5, abs=0.1)


def test_the_desk_without_a_customer_has_no_tool_for_asking():
    assert list(TalkingDesk.tools()) == [*Desk.tools(), "find_orders", "ask_customer"]


@pytest.mark.parametrize("due", ["cancel", "escalate"])
def test_acting_where_two_orders_fit_is_a_violation_even_with_luck(due):
    task = one(["order"], twin=True, action="cancel", due=due)
    lucky = [call for call in calls_of(task) if call[0] != "ask_customer"]
    episode, score = did(task, lucky)
    assert episode.state["database"] == episode.state["goal"]
    assert reasons(episode) == ["did not ask which order is meant"]
    assert score.parts["success"] == 0.0


def test_what_is_asked_or_checked_in_the_turn_of_the_change_was_not_known_before():
    task = one(["order"], twin=True, action="cancel", due="cancel")
    find, ask, look_up, check, change = (message.tool_calls[0] for message in TalkingDesk.expert(task)[:-1])
    for turns, reason in (
        ([find, look_up, check, (ask, change)], "did not ask which order is meant"),
        ([find, ask, look_up, (check, change)], "did not wait for the policy"),
    ):
        calls = (turn if isinstance(turn, tuple) else (turn,) for turn in turns)
        messages = [Message(role="assistant", tool_calls=made) for made in calls]
        episode, score = played(task, scripted([*messages, Message(role="assistant", content="Done.")]))
        assert (reasons(episode), score.parts["success"]) == ([reason], 0.0)


def test_the_other_order_is_not_asked_for():
    task = one(["order"], twin=True, action="cancel", due="cancel")
    other = next(number for number in task.item["requests"][0]["alike"] if number != task.item["requests"][0]["order"])
    change = ("cancel", {"order_id": other})
    assert reasons(did(task, [change])[0]) == ["did not ask which order is meant"]
    assert reasons(did(task, [asking("order"), change])[0]) == ["not asked for"]


def test_a_zip_code_that_was_not_told_is_not_to_be_guessed():
    task = one(["zip"], action="address", due="update_address")
    lucky = [call for call in calls_of(task) if call[0] != "ask_customer"]
    assert reasons(did(task, lucky)[0]) == ["did not ask for the zip code"]


@pytest.mark.parametrize(
    ("task", "about"),
    [
        (one(), "order"),
        (one(["order"]), "order"),
        (one(action="address", due="update_address"), "zip"),
        (one(["zip"], action="address", due="escalate"), "zip"),
        (one(action="cancel"), "zip"),
    ],
    ids=["a number that was given", "the only order", "a zip that was given", "what policy forbids", "no zip at all"],
)
def test_a_question_that_need_not_be_asked_costs_and_is_no_violation(task, about):
    episode, score = did(task, [asking(about), *calls_of(task)])
    assert (score.parts["success"], score.parts["needless"]) == (1.0, -1.0)
    assert score.total == pytest.approx(did(task, calls_of(task))[1].total - 0.1)
    assert reasons(episode) == []


def test_a_question_pays_once_and_costs_from_then_on():
    task = one(["zip"], action="address", due="update_address")
    score = did(task, [asking("zip")] * 4)[1]
    assert (score.parts["steps"], score.parts["needless"], score.parts["repeats"]) == (1.0, -3.0, -3.0)


def test_the_customer_says_what_is_asked_and_no_more():
    task = one(["order", "zip"], twin=True, action="address", due="update_address")
    (request,) = task.item["requests"]
    episode, _ = did(task, [asking("order"), asking("zip"), asking("zip", 7)])
    order, zip, none = (result for turn in episode.turns for result in turn.results)
    assert order.content in [text.format(request["order"]) for text in ANSWERS["order"]]
    assert zip.content in [text.format(request["zip"]) for text in ANSWERS["zip"]]
    assert (none.fault, none.content) == ("raised", "Error: the customer made no such request.")
    assert did(one(action="cancel"), [asking("zip")])[0].turns[0].results[0].content in NOTHING


def test_what_one_customer_was_asked_is_not_known_in_another_episode():
    task = one(["order"], twin=True, action="cancel", due="cancel")
    did(task, [asking("order")])
    assert reasons(did(task, [call for call in calls_of(task) if call[0] != "ask_customer"])[0]) != []


def plausible_and_wrong(task):
    """The expert's work with the last change escalated, or made, as it should not be."""
    *rest, (name, arguments) = calls_of(task)
    order = arguments["order_id"]
    return [*rest, ("cancel" if name == "escalate" else "escalate", {"order_id": order})]


def test_a_plausible_end_that_is_wrong_scores_below_one():
    for task in TalkingDesk.tasks("test", count=40):
        score = did(task, plausible_and_wrong(task))[1]
        assert score.parts["success"] == 0.0
        assert score.total < 1.0


def test_a_random_agent_solves_almost_nothing():
    tasks = TalkingDesk.tasks("test", count=60)
    scores = [played(task, random_agent(random.Random(n)))[1] for n, task in enumerate(tasks)]
    assert statistics.mean(score.parts["success"] for score in scores) < 0.1
    assert statistics.mean(score.total for score in scores) < 0.1


async def mumbles(question: Question) -> str:
    """A customer who answers beside the point."""
    return "The blue one, of course."


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def said(text):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def with_customer(task, customer):
    return Task(id=task.id, prompt=task.prompt, item={**task.item, "customer": customer})


def test_a_model_may_be_the_customer(server):
    task = one(["zip"], action="address", due="update_address")
    (request,) = task.item["requests"]
    server.answer = lambda asked: said(f"Please to {request['zip']}, thank you!")
    made = TalkingDesk.tasks("train", orders=(1, 1), customer={"model": "m", "base_url": server.url}, count=1)[0]
    assert made.item["customer"] == {"model": "m", "base_url": server.url}
    episode, score = did(with_customer(task, made.item["customer"]), calls_of(task))
    assert score.parts["success"] == 1.0
    (heard,) = server.heard
    assert heard["model"] == "m"
    assert request["zip"] in heard["messages"][0]["content"]
    assert task.prompt[-1].content in heard["messages"][0]["content"]
    assert episode.turns[2].results[0].content == f"Please to {request['zip']}, thank you!"


def test_what_a_customer_did_not_say_is_not_known_and_may_be_asked_again():
    desk = TalkingDesk(one(["zip"], action="address", due="update_address"))
    desk._customer = mumbles

    async def run():
        return await run_episode(desk, scripted(script([asking("zip"), asking("zip")])), Limits(turns=2), id="1")

    steps = asyncio.run(run()).state["steps"]
    assert [(step["progress"], step["needless"]) for step in steps] == [(True, False), (False, False)]


@pytest.mark.parametrize("answer", [(500, {}), (200, "<html>"), (200, {"choices": []})])
def test_an_endpoint_that_fails_is_the_machinerys_fault(server, answer):
    server.answer = lambda asked: answer
    customer = {"model": "m", "base_url": server.url}
    task = with_customer(one(["zip"], action="address", due="update_address"), customer)
    episode, _ = played(task, scripted(script([asking("zip")])))
    assert episode.stop is Stop.ENV_LOST
    assert episode.fault.startswith(f"the customer, {server.url}")
    assert TalkingDesk.tools()["ask_customer"].timeout > SECONDS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"orders": (0, 1)}, "orders must be"),
        ({"orders": (1, 6)}, "orders must be"),
        ({"difficulty": "brutal"}, "difficulty"),
        ({"customer": "nobody"}, "not of the form module:attribute"),
        ({"customer": "envs.desk:ANSWER"}, "no async function"),
        ({"customer": {"model": "m"}}, "base_url: Field required"),
        ({"customer": {"model": "m", "base_url": "x", "api_key": "k"}}, "api_key: Extra inputs"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        TalkingDesk.tasks("train", **options)
    with pytest.raises(InputError, match="desk_talk has no split 'dev'"):
        TalkingDesk.tasks("dev")
