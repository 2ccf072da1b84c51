import pytest

from envs import Task
from envs.errors import InputError
from rl.feed import Feed

TASKS = [Task.ask(f"question {n}") for n in range(7)]


def test_every_task_comes_once_before_any_comes_twice() -> None:
    feed = Feed(TASKS, seed=3)
    epochs = [[feed.deal().task.id for _ in TASKS] for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(task.id for task in TASKS)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_ranks_share_one_order_without_meeting() -> None:
    alone = Feed(TASKS, seed=3)
    order = [alone.deal() for _ in range(12)]
    ranks = [Feed(TASKS, seed=3, rank=rank, world=3) for rank in range(3)]
    dealt = [feed.deal() for _ in range(4) for feed in ranks]
    assert dealt == order


def test_what_was_dealt_is_the_whole_state() -> None:
    feed = Feed(TASKS, seed=5)
    before = [feed.deal() for _ in range(10)]
    after = [feed.deal() for _ in range(10)]
    resumed = Feed(TASKS, seed=5, dealt=10)
    assert [resumed.deal() for _ in range(10)] == after
    assert [ticket.position for ticket in before + after] == list(range(20))


def test_another_seed_is_another_order_and_the_same_seed_the_same() -> None:
    def order(seed: int) -> list[str]:
        feed = Feed(TASKS, seed)
        return [feed.deal().task.id for _ in range(14)]

    assert order(1) == order(1) != order(2)


def test_no_tasks_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(InputError, match=r"no tasks to train on.*env\."):
        Feed([], seed=0)
