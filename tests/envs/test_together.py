"""Several coroutines at once, and none left behind."""

import asyncio

import pytest

from envs.together import together


def test_results_come_in_the_order_of_the_coroutines():
    async def after(steps):
        for _ in range(steps):
            await asyncio.sleep(0)
        return steps

    assert asyncio.run(together(map(after, (3, 0, 1)))) == [3, 0, 1]
    assert asyncio.run(together([])) == []


def test_the_first_error_is_raised_as_it_is_when_the_others_have_ended():
    ended = []

    async def waits():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("waits")

    async def fails():
        await asyncio.sleep(0)
        raise KeyError("first")

    async def run():
        with pytest.raises(KeyError, match="first"):
            await together([waits(), fails(), waits()])
        assert ended == ["waits", "waits"]

    asyncio.run(run())
