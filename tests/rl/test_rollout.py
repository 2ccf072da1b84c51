"""How episodes end, with scripted policies and environments that misbehave for real."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from envs import Environment, EnvLost, Message, Stop, Task, ToolCall, tool
from envs.types import Completion, Cost, Episode
from made import played
from rewards import Score, reward
from rl import rollout
from rl.engines import EngineError
from rl.policy import ContextFull, PolicyError, ScriptPolicy
from rl.rollout import Limits, Player, rescore, run_episode


class Odd(Environment):
    """Does what its task's item says."""

    open: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def _may(self, place: str) -> None:
        error = self.task.item.get(place)
        if error is not None:
            raise error(place)

    async def setup(self) -> None:
        type(self).open += 1
        type(self).most = max(self.most, self.open)
        await asyncio.sleep(self.task.item.get("setup_seconds", 0))
        self._may("setup")

    async def close(self) -> None:
        type(self).open -= 1
        self._may("close")
        await asyncio.sleep(self.task.item.get("close_seconds", 0))

    def context(self) -> dict[str, Any]:
        self._may("context")
        return {"rules": "none"}

    def state(self) -> dict[str, Any]:
        self._may("state")
        return {"done": self.done}

    @tool
    async def look(self) -> str:
        """Look."""
        self._may("look")
        return "ok"

    @tool(timeout=0.05)
    async def hang(self) -> str:
        """Never come back."""
        await asyncio.Event().wait()
        return ""

    @tool(timeout=0.05)
    def block(self) -> str:
        """Sleep in a thread."""
        time.sleep(0.5)
        return ""

    @tool
    async def wait(self) -> str:
        """Take a while."""
        await asyncio.sleep(0.02)
        return "ok"

    @tool
    async def finish(self) -> str:
        """End it."""
        self.done = True
        return "ok"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Whatever happened, every environment that was opened was closed."""
    Odd.open = Odd.most = 0
    yield
    assert Odd.open == 0


def calls(*names: str) -> Message:
    made = (ToolCall(id=f"c{i}", name=name, arguments="{}") for i, name in enumerate(names))
    return Message(role="assistant", tool_calls=tuple(made))


ANSWER = Message(role="assistant", content="it is so")


def always(*names: str) -> ScriptPolicy:
    return ScriptPolicy(lambda episode: calls(*names))


def play(policy: Any, limits: Limits | None = None, **item: Any) -> Episode:
    task = Task.ask("Well?", id="t")
    task = Task(id="t", prompt=task.prompt, item=item)
    return asyncio.run(run_episode(Odd(task), policy, limits or Limits(), id="t#0"))


def sampled(finish: Any, tokens: int = 3) -> Any:
    async def policy(episode: Episode, tools: Any) -> Completion:
        return Completion(message=calls("look"), finish=finish, cost=Cost(sampled_tokens=tokens))

    return policy


def fails(error: Exception, after: int = 0) -> ScriptPolicy:
    def say(episode: Episode) -> Message:
        if len(episode.turns) >= after:
            raise error
        return calls("look")

    return ScriptPolicy(say)


ENDS: dict[str, tuple[Callable[[], Episode], Stop, int]] = {
    "an answer": (lambda: play(ScriptPolicy([calls("look"), ANSWER])), Stop.DONE, 2),
    "the environment says so": (lambda: play(always("finish")), Stop.DONE, 1),
    "turns": (lambda: play(always("look"), Limits(turns=3)), Stop.MAX_TURNS, 3),
    "tokens": (lambda: play(sampled("stop"), Limits(tokens=5)), Stop.MAX_TOKENS, 2),
    "a turn that is too long": (lambda: play(sampled("length")), Stop.TRUNCATED, 1),
    "the context, within a turn": (lambda: play(sampled("context")), Stop.MAX_TOKENS, 1),
    "the context, before a turn": (lambda: play(fails(ContextFull("full"), 2)), Stop.MAX_TOKENS, 2),
    "time, in a tool": (lambda: play(always("wait"), Limits(seconds=0.05)), Stop.TIMEOUT, 2),
    "time, in setup": (lambda: play(always("look"), Limits(seconds=0.05), setup_seconds=9), Stop.TIMEOUT, 0),
    "a script that is over": (lambda: play(ScriptPolicy([calls("look")])), Stop.FAULT, 1),
    "a policy that fails": (lambda: play(fails(PolicyError("down"))), Stop.FAULT, 0),
    "an environment that goes away": (lambda: play(always("look"), look=EnvLost), Stop.ENV_LOST, 0),
    "one that never came": (lambda: play(always("look"), setup=EnvLost), Stop.ENV_LOST, 0),
    "one that is gone at the end": (lambda: play(ScriptPolicy([ANSWER]), state=EnvLost), Stop.ENV_LOST, 1),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_has_its_name(end: str) -> None:
    how, stop, turns = ENDS[end]
    episode = how()
    assert episode.stop == stop
    assert abs(len(episode.turns) - turns) <= (end == "time, in a tool")
    assert (episode.fault is not None) is episode.broken
    assert episode.cost.seconds > 0
    assert (episode.state == {}) is (stop in (Stop.FAULT, Stop.ENV_LOST))


def test_all_stops_are_reached_above() -> None:
    assert {stop for _, stop, _ in ENDS.values()} == set(Stop)


def test_a_hanging_tool_costs_its_own_episode_its_timeout_and_no_more() -> None:
    started = time.perf_counter()
    episode = play(ScriptPolicy([calls("hang", "block", "look"), ANSWER]))
    assert time.perf_counter() - started < 0.45
    assert [result.fault for result in episode.turns[0].results] == ["timeout", "timeout", None]
    assert episode.stop is Stop.DONE and episode.cost.tool_calls == 3


def test_turns_hold_what_was_said_and_answered_and_costs_add_up() -> None:
    episode = play(sampled("stop", tokens=4), Limits(turns=2))
    assert [message.role for message in episode.messages] == ["user", "assistant", "tool", "assistant", "tool"]
    assert (episode.cost.sampled_tokens, episode.cost.tool_calls) == (8, 2)
    assert episode.context == {"rules": "none"} and episode.state == {"done": False}


@pytest.mark.parametrize("place", ["setup", "context", "state", "close"])
@pytest.mark.parametrize("error", [KeyError, TimeoutError, SystemExit])
def test_an_authors_bug_stops_the_run_and_closes_the_siblings(place: str, error: type[BaseException]) -> None:
    fine = [Task(id=f"t{i}", prompt=(Message(role="user", content="?"),)) for i in range(8)]
    bad = Task(id="bad", prompt=fine[0].prompt, item={place: error, "setup_seconds": 0.02})
    player = Player(env=Odd, reward=reward(lambda episode: 1.0))
    script = ScriptPolicy(lambda episode: ANSWER if episode.task is bad else calls("wait"))
    with pytest.raises(error, match=place) as caught:
        asyncio.run(player.play_all([(task, task.id) for task in (*fine, bad)], script))
    assert "_may" in str(caught.traceback[-1]), "the traceback ends where the bug is"


def test_an_environment_that_does_not_close_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "CLOSE_SECONDS", 0.05)
    started = time.perf_counter()
    assert play(ScriptPolicy([ANSWER]), close_seconds=5).stop is Stop.DONE
    assert time.perf_counter() - started < 1
    assert play(ScriptPolicy([ANSWER]), close=EnvLost).stop is Stop.DONE


def player(**settings: Any) -> Player:
    return Player(**({"env": Odd, "reward": reward(lambda episode: float(len(episode.turns)))} | settings))


def tasks(count: int, **item: Any) -> list[tuple[Task, str]]:
    prompt = (Message(role="user", content="?"),)
    return [(Task(id=f"t{i}", prompt=prompt, item=item), f"t{i}#0") for i in range(count)]


def test_a_broken_episode_is_played_again_and_one_that_stays_broken_is_unscored() -> None:
    tries = 0

    def flaky(episode: Episode) -> Message:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise PolicyError("down")
        return ANSWER

    mine = player(retries=2)
    (played,) = asyncio.run(mine.play_all(tasks(1), ScriptPolicy(flaky)))
    assert (played.episode.stop, played.score.value, mine.retried) == (Stop.DONE, 1.0, 2)
    (played,) = asyncio.run(mine.play_all(tasks(1), fails(PolicyError("down"))))
    assert played.score.error == "fault: down" and mine.retried == 4
    mine = player(retries=0)
    (played,) = asyncio.run(mine.play_all(tasks(1, look=EnvLost), always("look")))
    assert played.score.error == "env_lost: look" and mine.retried == 0


def test_a_dead_engine_is_not_tried_again() -> None:
    tries = 0

    def dead(episode: Episode) -> Message:
        nonlocal tries
        tries += 1
        raise EngineError("dead")

    with pytest.raises(EngineError):
        asyncio.run(player(concurrency=1).play_all(tasks(50), ScriptPolicy(dead)))
    assert tries == 1


def test_results_are_in_the_order_of_the_tasks_and_each_end_is_heard_of_once() -> None:
    heard: list[int] = []

    def say(episode: Episode) -> Message:
        late = len(episode.turns) >= 5 - int(episode.task.id[1:])
        return ANSWER if late else calls("wait")

    played = asyncio.run(player().play_all(tasks(5), ScriptPolicy(say), lambda index, played: heard.append(index)))
    assert [p.episode.id for p in played] == [f"t{i}#0" for i in range(5)]
    assert [p.score.value for p in played] == [6, 5, 4, 3, 2]
    assert heard == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_no_more_episodes_are_open_at_once_than_asked_for(concurrency: int) -> None:
    script = ScriptPolicy([calls("wait"), ANSWER])
    asyncio.run(player(concurrency=concurrency).play_all(tasks(12), script))
    assert Odd.most == min(concurrency, 12)


def test_cancelling_closes_every_environment() -> None:
    async def cancelled() -> None:
        job = asyncio.create_task(player().play_all(tasks(10), always("hang", "block")))
        await asyncio.sleep(0.03)
        assert Odd.open == 10
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancelled())


def test_a_listener_that_raises_stops_the_run() -> None:
    def full(index: int, played: Any) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        asyncio.run(player().play_all(tasks(4), ScriptPolicy([ANSWER]), full))


def test_a_reward_that_raises_stops_the_run_and_one_that_can_not_say_does_not() -> None:
    def bug(episode: Episode) -> float:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(player(reward=reward(bug)).play_all(tasks(4), ScriptPolicy([ANSWER])))
    (played,) = asyncio.run(player(reward=reward(lambda episode: None)).play_all(tasks(1), ScriptPolicy([ANSWER])))
    assert played.score.error

    async def short(episode: Episode) -> Score:
        return Score(value=1.0, turns=(1.0, 2.0))

    (played,) = asyncio.run(player(reward=short).play_all(tasks(1), ScriptPolicy([ANSWER])))
    assert "judged 2 turns of an episode that has 1" in str(played.score.error)


def test_threads_of_blocked_tools_end_by_themselves() -> None:
    before = threading.active_count()
    asyncio.run(player().play_all(tasks(20), ScriptPolicy([calls("block"), ANSWER])))
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_another_reward_scores_the_same_episodes_and_a_broken_one_stays_unscored() -> None:
    good, bad, broken = (played(f"t{i}", 1.0) for i in range(3))
    bad.episode.turns.clear()
    broken.episode.stop = Stop.FAULT
    again = asyncio.run(rescore([good, bad, broken], reward(lambda e: float(bool(e.turns)), name="spoke"), "holdout"))
    assert [p.score.value for p in again[:2]] == [1.0, 0.0]
    assert again[2].score.error is not None
    assert [p.episode for p in again] == [good.episode, bad.episode, broken.episode]
    assert good.score.parts == {} and again[0].score.parts == {"spoke": 1.0}
