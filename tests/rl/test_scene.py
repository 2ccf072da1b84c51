"""What a config needs before it is played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from envs import Environment, Episode
from envs.errors import InputError
from envs.sandbox import SandboxSettings
from rewards.process import Gold
from rl import scene
from rl.config import Config, parse
from rl.loop import BackgroundLoop

USUAL = SandboxSettings()
PYTHON = {"type": "python", "source": "def grade(sample, item):\n    return 1.0"}
EQ = {"type": "string_check", "operation": "eq", "input": "a", "reference": "a"}
BOTH = {"type": "multi", "graders": {"a": PYTHON | {"name": "a"}, "b": EQ | {"name": "b"}}, "calculate_output": "a * b"}


class Runs(Environment):
    sandboxed = True


def own(episode: Episode) -> float:
    return 0.0


def config(reward: Any, env: str = "desk", **changes: Any) -> Config:
    return parse({"model": "tiny", "env": {"use": env}, "reward": reward, "output_dir": "x"} | changes)


@pytest.mark.parametrize(
    ("reward", "needed"),
    [
        ({"use": "progress"}, set()),
        ({"use": "grader", "grader": EQ}, set()),
        ({"use": "grader", "grader": PYTHON}, {USUAL}),
        ({"use": "grader", "grader": BOTH}, {USUAL}),
        ({"use": "grader", "grader": PYTHON, "unsafe_python": "a test"}, set()),
        ({"a": "progress", "b": {"use": "grader", "grader": PYTHON, "weight": 0.5}}, {USUAL}),
        ({"use": "gated", "first": {"use": "grader", "grader": PYTHON}, "then": {"use": "progress"}}, {USUAL}),
        (
            {"use": "grader", "grader": PYTHON, "sandbox": {"python": "/opt/python"}},
            {SandboxSettings(python="/opt/python")},
        ),
    ],
)
def test_a_run_opens_the_sandboxes_that_its_graders_run_in(reward: Any, needed: set[SandboxSettings]) -> None:
    assert scene.sandboxes(config(reward)) == needed


RELATIVE = {"use": "relative", "model": "m", "judge": {"base_url": "http://127.0.0.1:9/v1"}}


@pytest.mark.parametrize(
    ("changes", "trained", "said"),
    [
        ({}, None, "evaluate.samples to 2"),
        ({"evaluate": {"samples": 4}}, None, "set evaluate.greedy to false"),
        ({"evaluate": {"greedy": False}}, None, "evaluate.samples to 2"),
        ({"evaluate": {"samples": 4, "greedy": False}}, 1, "trainer.num_generations to 2"),
        ({"evaluate": {"samples": 4, "greedy": False}}, 2, None),
        ({"evaluate": {"samples": 4}, "holdout": {"use": "progress"}}, 2, None),
        ({"evaluate": {"samples": 1}, "holdout": {"use": "progress"}}, 2, "evaluate.samples to 2"),
    ],
)
@pytest.mark.parametrize("reward", [RELATIVE, {"a": "progress", "b": {"use": "capped", "part": RELATIVE, "limit": 1}}])
def test_a_reward_that_compares_is_refused_where_there_is_nothing_to_compare(
    reward: Any, changes: Any, trained: int | None, said: str | None
) -> None:
    made = config(reward, **changes)
    scene.check_groups(made, trained=2, evaluated=False)
    if said is None:
        scene.check_groups(made, trained=trained)
    else:
        with pytest.raises(InputError, match=said):
            scene.check_groups(made, trained=trained)
    scene.check_groups(config({"use": "progress"}), trained=1)


def test_a_holdout_that_compares_is_refused() -> None:
    with pytest.raises(InputError, match="holdout compares"):
        scene.holdout(config({"use": "progress"}, holdout=RELATIVE))


def test_the_policy_is_to_note_one_answer_and_no_two() -> None:
    one, other = {"use": "information_gain"}, {"use": "information_gain", "lead": "So: "}
    assert scene.gold(config({"use": "progress"})) is None
    assert scene.gold(config({"a": one, "b": "progress"}, holdout=one)) == Gold()
    assert scene.gold(config({"use": "progress"}, holdout=other)) == Gold(lead="So: ")
    with pytest.raises(InputError, match="the same field and lead"):
        scene.gold(config({"a": one, "b": other}))


def test_a_run_opens_sandboxes_for_an_environment_that_runs_code() -> None:
    asked = {"limits": {"wall": 5.0}}
    made = config({"use": "progress"}, f"{__name__}:Runs", sandbox=asked)
    assert [settings.limits.wall for settings in scene.sandboxes(made)] == [5.0]


def test_sandboxes_that_nothing_runs_in_are_refused() -> None:
    with pytest.raises(InputError, match="sandbox would have no effect"):
        scene.sandboxes(config({"use": "progress"}, sandbox={"tier": "landlock"}))
    assert scene.sandboxes(config({"use": f"{__name__}:own"}, sandbox={"tier": "landlock"})) == set()


@pytest.mark.parametrize(
    ("sandbox", "said"),
    [
        ({"teir": "bwrap"}, "unknown key 'sandbox.teir'; did you mean 'tier'"),
        ({"limits": {"wal": 3}}, "unknown key 'sandbox.limits.wal'; did you mean 'wall'"),
        ({"limits": {"wall": 0}}, "limit wall is a number more than 0"),
        ({"tier": "unsafe"}, "say why code may run unprotected"),
        ({"tier": "none"}, "sandbox.tier"),
    ],
)
def test_a_sandbox_that_cannot_be_is_named(sandbox: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        config({"use": "progress"}, sandbox=sandbox)


def test_a_graders_limits_are_the_hosted_ones() -> None:
    with pytest.raises(InputError, match=r"sandbox\.limits would have no effect"):
        scene.player(config({"use": "grader", "grader": PYTHON, "sandbox": {"limits": {"wall": 3}}}))


def test_what_lives_as_long_as_the_loop_ends_with_it() -> None:
    ended, kept = list[str](), list[Any]()

    def open() -> Callable[[], Any]:
        async def life() -> Any:
            try:
                yield "open"
            finally:
                ended.append("closed")

        kept.append(life())
        return kept[0]

    async def first() -> str:
        return await anext(open())

    loop = BackgroundLoop()
    assert loop.run(first()) == "open" and not ended
    loop.close()
    loop.close()
    assert ended == ["closed"]
