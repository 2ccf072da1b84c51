"""The support desk: customers ask for changes to orders, and a policy says which may be made.

The model looks an order up, asks whether the order's policy allows what the customer wants, and then
either makes the change or escalates. The database at the end, the absence of forbidden changes and a
closing answer decide success; each step on the way can be checked.

Tasks are made from seeds, so there are as many as one wants and none has to be stored. Splits can't
overlap: an order number belongs to exactly one split, by a hash of its digits.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from envs.environment import Environment, tool
from envs.errors import InputError, ToolError
from envs.guard import Guard
from envs.script import Call, script
from envs.types import Message, Task

Split = Literal["train", "validation", "test", "demonstrations"]
Difficulty = Literal["easy", "standard", "hard"]
Action = Literal["refund", "cancel", "address"]

SYSTEM = (
    "You are the support desk. Look up each order and check its policy before you change it. "
    "Escalate what the policy forbids. Say when you are done."
)
ANSWER = "Done."

MOST_ORDERS = 20

ITEM = ("database", "policies", "requests", "goal")
"""What a task's item holds."""


class Desk(Environment):
    """A support desk with orders, a policy and a database."""

    def __init__(self, task: Task, guard: Guard | None = None) -> None:
        super().__init__(task, guard)
        if missing := [name for name in ITEM if name not in task.item]:
            raise InputError(f"task {task.id!r}: item.{missing[0]} is missing; the desk needs {', '.join(ITEM)}")
        self._database: dict[str, dict[str, Any]] = copy.deepcopy(dict(task.item["database"]))
        self._requests: dict[str, Mapping[str, Any]] = {request["order"]: request for request in task.item["requests"]}
        self._read: set[str] = set()
        self._checked: set[str] = set()
        self._settled: set[str] = set()

    @classmethod
    def tasks(
        cls,
        split: str,
        *,
        orders: Sequence[int] = (1, 2),
        difficulty: Difficulty = "standard",
        count: int | None = None,
    ) -> list[Task]:
        """The first `count` tasks of a split; the same arguments give the same tasks in every process.

        Args:
            split: "train", "validation", "test", or "demonstrations" for warm starts.
            orders: fewest and most orders a customer asks about: the horizon, three calls an order.
            difficulty: "easy" allows every request; "standard" forbids half of them; in "hard" policies
                also allow refunds only up to an amount, to be compared with the order's total.
            count: how many; the default is 1000 of "train" and "demonstrations", 200 of the others.

        Raises:
            InputError: an option that makes no sense.
        """
        if split not in COUNTS:
            raise InputError(f"{cls.name} has no split {split!r}; splits are {', '.join(COUNTS)}")
        if len(orders) != 2 or not 1 <= orders[0] <= orders[1] <= MOST_ORDERS:
            raise InputError(f"orders must be two numbers, fewest and most, from 1 to {MOST_ORDERS}, not {orders!r}")
        if difficulty not in get_args(Difficulty):
            raise InputError(f"difficulty must be one of {', '.join(get_args(Difficulty))}, not {difficulty!r}")
        count = COUNTS[split] if count is None else count
        return [_task(split, index, (orders[0], orders[1]), difficulty) for index in range(count)]

    @classmethod
    def expert(cls, task: Task) -> list[Message]:
        """The assistant messages of a perfect episode: a call a turn, then the answer."""
        calls = [call for request in task.item["requests"] for call in due_calls(task, request)]
        return script(calls, ANSWER)

    @tool
    async def lookup_order(self, order_id: str) -> dict[str, Any]:
        """Look up an order: its item, its total and the number of its policy.

        Args:
            order_id: the order's number, as in "4711".
        """
        order = self._find(order_id)
        self.steps.note(progress=f"read {order_id}" if order_id in self._requests else None, order=order_id)
        self._read.add(order_id)
        return {name: order[name] for name in ("item", "total", "policy")}

    @tool
    async def check_policy(self, policy: str, action: Action) -> dict[str, str]:
        """Ask whether a policy allows an action.

        Args:
            policy: the policy's number, as the order gives it.
            action: what the customer wants.
        """
        rules = self.task.item["policies"].get(policy)
        if rules is None:
            self.steps.note(order=None)
            raise ToolError("no such policy.")
        order = next(number for number, record in self._database.items() if record["policy"] == policy)
        request = self._requests.get(order)
        right = request is not None and order in self._read and action == request["action"]
        self.steps.note(progress=f"checked {order}" if right else None, order=order)
        if right:
            self._checked.add(order)
        return {"allowed": rules[action]}

    @tool
    async def refund(self, order_id: str, amount: int) -> str:
        """Pay money back for an order.

        Args:
            order_id: the order's number.
            amount: how much; a full refund is the order's total.
        """
        return self._change("refund", order_id, amount)

    @tool
    async def cancel(self, order_id: str) -> str:
        """Cancel an order.

        Args:
            order_id: the order's number.
        """
        return self._change("cancel", order_id)

    @tool
    async def update_address(self, order_id: str, zip: str) -> str:
        """Send an order to another zip code.

        Args:
            order_id: the order's number.
            zip: the five digits of the new zip code.
        """
        return self._change("update_address", order_id, zip)

    @tool
    async def escalate(self, order_id: str) -> str:
        """Hand an order to a human, where the policy forbids what the customer wants.

        Args:
            order_id: the order's number.
        """
        return self._change("escalate", order_id)

    def context(self) -> Mapping[str, Any]:
        """The policies that held, as rules by number and action."""
        return {"policies": self.task.item["policies"]}

    def state(self) -> Mapping[str, Any]:
        """What is, what should be, and how it came about.

        The task is solved when `database` equals `goal` and there are no `violations`: changes of the
        database that were unchecked, forbidden, wrong or not asked for. `steps` holds one record per
        executed call.
        """
        return {"database": self._database, "goal": self.task.item["goal"]} | self.steps.account()

    def _find(self, order: str) -> dict[str, Any]:
        if order not in self._database:
            self.steps.note(like=order, order=order)
            raise ToolError("no such order.")
        return self._database[order]

    def _change(self, name: str, order: str, value: int | str | None = None) -> str:
        record = self._find(order)
        reason = self._objection(name, order, value)
        self.steps.note(progress=None if reason else f"settled {order}", violation=reason, order=order)
        if reason is None:
            self._settled.add(order)
        _apply(record, name, value)
        return "ok"

    def _objection(self, name: str, order: str, value: int | str | None) -> str | None:
        """Why this change must not be made now, or None where it is the one that is due."""
        request = self._requests.get(order)
        if request is None:
            return "not asked for"
        if order in self._settled:
            return "settled before"
        if order not in self._checked:
            return "policy not checked"
        if name != request["due"]:
            return "policy forbids it" if name == TOOL_OF[request["action"]] else "not what was due"
        return None if value == request["value"] else "wrong value"


def due_calls(task: Task, request: Mapping[str, Any]) -> tuple[Call, Call, Call]:
    """What one request takes: look it up, check the policy, and the change that is due."""
    order = request["order"]
    policy = task.item["database"][order]["policy"]
    return (
        ("lookup_order", {"order_id": order}),
        ("check_policy", {"policy": policy, "action": request["action"]}),
        change_call(request["due"], order, request["value"]),
    )


def change_call(name: str, order: str, value: int | str | None) -> Call:
    """A call that changes the database."""
    return name, {"order_id": order} | ({VALUE_OF[name]: value} if name in VALUE_OF else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How often a scripted demonstration goes wrong; each number is a probability.

    With these, about 40 % of demonstrations succeed: a policy warm-started on them can do every step,
    and has bad habits that a reward can take away.
    """

    skip: float = 0.25
    """Act without checking the policy: mostly what the customer wants, else an escalation."""
    defy: float = 0.55
    """Make the change although the policy just said no."""
    stop: float = 0.1
    """End before the next order."""
    slip: float = 0.02
    """Look up a number nobody mentioned; and again for taking the wrong one of change and escalation."""
    repeat: float = 0.06
    """Look up or check once more."""


def demonstration(task: Task, rng: random.Random, noise: Noise = Noise()) -> list[Message]:
    """The assistant messages of an episode by somebody who knows the job and is careless about it."""
    calls: list[Call] = []
    for number, request in enumerate(task.item["requests"]):
        if number and rng.random() < noise.stop:
            break
        calls += _careless(task, request, rng, noise)
    return script(calls, ANSWER)


def _careless(task: Task, request: Mapping[str, Any], rng: random.Random, noise: Noise) -> Iterator[Call]:
    look_up, check, due = due_calls(task, request)
    order = request["order"]
    wanted_tool = TOOL_OF[request["action"]]
    value = {"refund": task.item["database"][order]["total"], "update_address": request["zip"]}.get(wanted_tool)
    wanted = change_call(wanted_tool, order, value)
    escalation = change_call("escalate", order, None)
    if rng.random() < noise.slip:
        yield "lookup_order", {"order_id": _digits(rng, len(order))}
    yield look_up
    while rng.random() < noise.repeat:
        yield look_up
    if rng.random() < noise.skip:
        change = wanted if rng.random() < 0.8 else escalation
    else:
        yield check
        while rng.random() < noise.repeat:
            yield check
        change = wanted if rng.random() < noise.defy else due
    if rng.random() < noise.slip:
        change = wanted if change == escalation else escalation
    yield change


def _task(split: str, index: int, orders: tuple[int, int], difficulty: Difficulty) -> Task:
    rng = random.Random(f"desk/{split}/{index}")
    database: dict[str, dict[str, Any]] = {}
    policies: dict[str, dict[str, str]] = {}
    requests: list[dict[str, Any]] = []
    for _ in range(rng.randint(*orders)):
        order = _new(rng, 4, lambda number: number not in database and split_of(number) == split)
        policy = _new(rng, 2, lambda number: number not in policies)
        action: Action = rng.choice(get_args(Action))
        total = int(_digits(rng, rng.randint(2, 3)))
        database[order] = {
            "item": rng.choice(ITEMS),
            "total": total,
            "policy": policy,
            "zip": _digits(rng, 5),
            "status": "open",
            "refunded": 0,
            "escalated": False,
        }
        policies[policy] = {name: _rule(rng, name, total, difficulty) for name in get_args(Action)}
        requests.append(_request(order, action, _digits(rng, 5), total, policies[policy][action]))
    goal = copy.deepcopy(database)
    for request in requests:
        _apply(goal[request["order"]], request["due"], request["value"])
    asked = " ".join(rng.choice(ASKED[request["action"]].split("|")).format_map(request) for request in requests)
    question = rng.choice(GREETINGS).format(name=rng.choice(NAMES)) + asked
    item: dict[str, Any] = {
        "index": index,
        "database": database,
        "policies": policies,
        "requests": requests,
        "goal": goal,
    }
    return Task.ask(question, system=SYSTEM, **item)


def _request(order: str, action: Action, zip: str, total: int, rule: str) -> dict[str, Any]:
    """What a customer asks for, and the change that is due: the tool and its value."""
    due = TOOL_OF[action] if _allows(rule, total) else "escalate"
    value = {"refund": total, "update_address": zip}.get(due)
    return {"order": order, "action": action, "zip": zip, "due": due, "value": value}


def _rule(rng: random.Random, action: str, total: int, difficulty: Difficulty) -> str:
    allowed = rng.random() < 0.5
    if difficulty == "easy":
        return "yes"
    if difficulty == "hard" and action == "refund":
        away = rng.randint(1, 9)
        return f"up to {total + away if allowed else total - away}"
    return "yes" if allowed else "no"


def _allows(rule: str, total: int) -> bool:
    return rule == "yes" or (rule.startswith("up to ") and total <= int(rule.removeprefix("up to ")))


def _apply(record: dict[str, Any], name: str, value: Any) -> None:
    """Make a change to an order's record, whether or not it is due."""
    match name:
        case "refund":
            record["refunded"] += value
        case "cancel":
            record["status"] = "cancelled"
        case "update_address":
            record["zip"] = value
        case "escalate":
            record["escalated"] = True


def _new(rng: random.Random, length: int, fits: Callable[[str], bool]) -> str:
    while not fits(number := _digits(rng, length)):
        pass
    return number


def _digits(rng: random.Random, length: int) -> str:
    return str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in range(length - 1))


def split_of(order: str) -> Split:
    """The one split an order number belongs to. A hash, so that digits give a model no hint of it."""
    return OWNERS[hashlib.sha256(order.encode()).digest()[0] % len(OWNERS)]


OWNERS: tuple[Split, ...] = ("train",) * 4 + ("demonstrations",) * 2 + ("validation", "test")
COUNTS = {"train": 1000, "demonstrations": 1000, "validation": 200, "test": 200}
TOOL_OF = {"refund": "refund", "cancel": "cancel", "address": "update_address"}
VALUE_OF = {"refund": "amount", "update_address": "zip"}
NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kim", "Leo")
ITEMS = ("lamp", "desk", "chair", "mug", "kettle", "radio", "clock", "scarf", "tent", "drill")
GREETINGS = ("Hi, I am {name}. ", "Hello, {name} here. ", "{name} writing. ", "")
ASKED = {
    "refund": "please refund order {order}.|I want my money back for order {order}.|order {order} broke, refund it.",
    "cancel": "please cancel order {order}.|I do not want order {order} any more.|stop order {order}, cancel it.",
    "address": "ship order {order} to zip {zip}.|change the address of order {order} to {zip}."
    "|order {order} must go to zip {zip}.",
}
