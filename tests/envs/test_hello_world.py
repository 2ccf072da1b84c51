"""The hello world of the README: an environment, its tasks and a reward in about twenty lines."""

import asyncio

from envs import Completion, Environment, Episode, Message, Stop, Task, ToolCall, Turn, tool
from rewards import reward


class Calculator(Environment):
    @classmethod
    def tasks(cls, split: str) -> list[Task]:
        numbers = range(10, 30) if split == "train" else range(30, 40)
        return [Task.ask(f"What is {a} * {b}?", answer=str(a * b)) for a in numbers for b in numbers]

    @tool
    def multiply(self, a: int, b: int) -> int:
        """Multiply two integers."""
        return a * b


def correct(episode: Episode) -> float:
    return float(episode.task.item["answer"] in episode.answer)


def play(task: Task, *messages: Message) -> Episode:
    async def turns() -> list[Turn]:
        env = Calculator(task)
        return [Turn(completion=Completion(message=m), results=await env.step(m)) for m in messages]

    return Episode(id="1", env="calculator", task=task, turns=asyncio.run(turns()), stop=Stop.DONE)


def test_its_tasks_are_named_once_and_no_split_shares_one():
    ids = {split: {task.id for task in Calculator.tasks(split)} for split in ("train", "test")}
    assert {split: len(names) for split, names in ids.items()} == {"train": 400, "test": 100}
    assert not ids["train"] & ids["test"]


def test_its_tool_is_shown_to_a_model():
    (spec,) = Calculator.tools().values()
    assert spec.schema == {
        "type": "function",
        "function": {
            "name": "multiply",
            "description": "Multiply two integers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }


def test_the_right_answer_is_paid_and_a_wrong_one_is_not():
    task = Calculator.tasks("train")[0]
    call = ToolCall(id="1", name="multiply", arguments='{"a": 10, "b": 10}')
    asks = Message(role="assistant", tool_calls=(call,))
    right = play(task, asks, Message(role="assistant", content="It is 100."))
    wrong = play(task, asks, Message(role="assistant", content="It is 99."))
    assert right.messages[2].content == "100"
    assert [asyncio.run(reward(correct)(episode)).value for episode in (right, wrong)] == [1.0, 0.0]
