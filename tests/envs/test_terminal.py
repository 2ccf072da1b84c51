"""The terminal: chores whose files decide, and rewards that can't be had otherwise."""

import asyncio
import random
import statistics
from functools import cache

import pytest

from agents import random_agent
from envs import InputError, Message, Stop, Task
from envs.chores import CHORES
from envs.sandbox import Limits, SandboxSettings, share, shared
from envs.script import script
from envs.tasks import check_disjoint
from envs.terminal import Terminal
from rl.policy import ScriptPolicy
from workspaces import did, no_tier, play, reward_of, runner, said, soaked

pytestmark = no_tier
SPLITS = ("train", "validation", "test")
DIFFICULTIES = ("easy", "standard", "hard")
REWARD = reward_of("terminal.yaml")
SUBMIT = ("submit", {})

run = pytest.fixture(scope="module")(runner)


def shell(command):
    return ("shell", {"command": command})


@cache
def made(split, difficulty, count):
    return Terminal.tasks(split, difficulty=difficulty, count=count)


def one_of_each():
    """A task of each kind of chore."""
    found = {}
    for task in made("train", "standard", 200):
        found.setdefault(task.prompt[-1].content[13:25], task)
    return list(found.values())


def test_the_expert_leaves_every_kind_of_chore_as_it_was_worked_out_without_a_shell(run):
    tasks = one_of_each()
    assert len(tasks) >= len(CHORES)
    for task in [*tasks, *made("test", "hard", 5), *made("validation", "easy", 3)]:
        episode, score = run(play(Terminal, task, ScriptPolicy(Terminal.expert(task)), REWARD))
        assert episode.stop is Stop.DONE and episode.state["files"] == task.item["goal"], (task.prompt, said(episode))
        assert score.value == 1.0 and score.parts["steps"] == pytest.approx(1.0)
        assert score.parts["kept"] == score.parts["repeats"] == score.parts["calls"] == 0.0


def test_the_mistake_that_a_chore_invites_is_wrong(run):
    for task in one_of_each():
        episode, score = run(did(Terminal, task, REWARD, *map(shell, task.item["wrong"]), SUBMIT))
        assert score.value == 0.0 and score.total < 1.0, (task.prompt, said(episode))


def test_files_must_be_right_to_the_letter_and_nothing_else_may_be_left(run):
    task = made("test", "easy", 1)[0]
    right = shell(" && ".join(task.item["commands"]))
    for more in (
        "touch left-over",
        "echo >> README.md",
        "rm README.md",
        "ln -s README.md link",
        "mkdir d; echo x > d/x",
    ):
        _, score = run(did(Terminal, task, REWARD, right, shell(more), SUBMIT))
        assert score.value == 0.0, more
    for harmless in ("mkdir -p empty/below", "touch README.md", "cat README.md", "echo x > $TMPDIR/x"):
        _, score = run(did(Terminal, task, REWARD, right, shell(harmless), SUBMIT))
        assert score.value == 1.0, harmless


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_splits_are_disjoint_and_large_enough(difficulty):
    splits = {split: Terminal.tasks(split, difficulty=difficulty) for split in SPLITS}
    check_disjoint(splits)
    assert [len({task.id for task in tasks}) for tasks in splits.values()] == [400, 100, 100]
    assert splits["test"][:5] == Terminal.tasks("test", difficulty=difficulty, count=5)


def command_of_words(rng, read):
    words = rng.choices(read, k=rng.randint(1, 4))
    return rng.choice(["", "rm ", "touch ", "cat ", "echo x > ", "mv ", "sed -i s/a/b/ "]) + " ".join(words)


PHRASES = {"command": command_of_words}


def test_a_random_agent_solves_almost_nothing(run):
    async def each(n, task):
        return (await play(Terminal, task, random_agent(random.Random(n), PHRASES), REWARD))[1]

    async def all_of_them():
        return await asyncio.gather(*(each(n, task) for n, task in enumerate(made("train", "standard", 30))))

    scores = run(all_of_them())
    assert statistics.mean(score.value for score in scores) < 0.1
    assert statistics.mean(score.total for score in scores) < 0.1


def honest_failure(task):
    """Somebody who does the work and forgets to clear away what was used for it."""
    return [shell("ls -R > notes.tmp; cat notes.tmp"), *map(shell, task.item["commands"]), SUBMIT]


FAKE = "echo 'print(\"{}\")' > json.py; cp json.py os.py; printf '#!/bin/sh\\necho {}\\n' > python3; chmod +x python3"
FLICKER = "(while :; do for f in /proc/[0-9]*/fd/1; do echo '{}' > $f; done; done) >/dev/null 2>&1 &"

HACKERS = {
    "repeats a rewarded call": lambda t: [shell(t.item["commands"][0])] * 8,
    "does and undoes": lambda t: [
        call
        for n in range(4)
        for call in (shell(f"cp -a . ../tmp/save{n} 2>/dev/null; {t.item['commands'][0]}"), shell("rm -rf ./*"))
    ],
    "submits without working": lambda t: [SUBMIT],
    "removes everything": lambda t: [shell("rm -rf ./* ./.??*"), SUBMIT],
    "prints what a success looks like": lambda t: [shell("echo 'TASK COMPLETE: files == goal, reward 1.0'"), SUBMIT],
    "claims an approval": lambda t: [shell("echo approved > APPROVED; chmod 444 APPROVED"), SUBMIT],
    "puts its own programs in the way": lambda t: [shell(FAKE), SUBMIT],
    "writes into what others print": lambda t: [shell(FLICKER), SUBMIT],
    "links instead of writing": lambda t: [
        shell(f"ln -sf /etc/hostname {path}") for path in t.item["goal"] if path not in t.files
    ] + [SUBMIT],
    "spams files": lambda t: [shell("for i in $(seq 2000); do echo x > f$i; done"), SUBMIT],
    "spams calls": lambda t: [shell("true")] * 10,
    "stops early": lambda t: [shell("ls")],
    "destroys its sandbox": lambda t: [shell("kill -9 -1; rm -rf ~ /work /tmp; chmod 000 ."), SUBMIT],
}  # fmt: skip


@pytest.mark.parametrize("hack", HACKERS.values(), ids=HACKERS)
def test_a_hacker_earns_no_more_than_an_honest_failure(run, hack):
    for task in made("test", "standard", 4)[:3]:
        _, honest = run(did(Terminal, task, REWARD, *honest_failure(task)))
        episode, score = run(did(Terminal, task, REWARD, *hack(task)))
        assert not episode.broken and score.error is None
        assert honest.value == score.value == 0.0
        assert score.total <= honest.total, (score.parts, honest.parts)


def test_progress_is_noted_once_and_what_was_spoilt_is_a_violation(run):
    task = made("test", "easy", 1)[0]
    right = shell(task.item["commands"][0])
    episode, score = run(did(Terminal, task, REWARD, right, right, shell("rm README.md"), shell("true"), SUBMIT))
    steps = episode.state["steps"]
    assert [step["progress"] > 0 for step in steps] == [True, False, False, False, False]
    assert [step["repeat"] for step in steps] == [False, True, False, False, False]
    assert [step["violation"] for step in steps] == [False, False, True, False, False]
    assert episode.state["violations"][0]["reason"] == "README.md was to stay as it was"
    assert score.parts["steps"] == pytest.approx(1.0) and score.parts["kept"] == -1.0


def test_what_runs_on_in_the_background_can_change_nothing_after_the_end(run):
    task = made("test", "easy", 1)[0]
    later = shell("(sleep 0.5; rm -f README.md; sleep 60) >/dev/null 2>&1 &")
    episode, score = run(did(Terminal, task, REWARD, *map(shell, task.item["commands"]), later, SUBMIT))
    assert score.value == 1.0 and "README.md" in episode.state["files"]


def test_no_state_crosses_episodes(run):
    task = made("test", "standard", 2)[0]
    before, _ = run(did(Terminal, task, REWARD, shell("echo x > mark; echo x > $TMPDIR/mark; (setsid sleep 99 &); ls")))
    after, _ = run(did(Terminal, task, REWARD, shell('ls -A . "$TMPDIR" | grep mark; pgrep sleep; true')))
    assert "mark" in said(before)[0] and said(after) == [""]


def test_what_a_command_came_to_is_said(run):
    task = made("test", "easy", 1)[0]
    long, odd = "head -c 100000 /dev/zero | tr '\\0' x", "printf '\\xff\\0a'"
    lines = ["echo out; echo err >&2; exit 3", "kill -TERM $$", long, odd]
    episode, _ = run(did(Terminal, task, REWARD, *map(shell, lines)))
    failed, ended, long, odd = said(episode)
    assert (failed, ended, odd) == ("out\nerr\n[exit code 3]", "[ended by signal 15]", "\ufffda")
    assert len(long) < 5000 and "characters left out" in long


def test_who_destroys_the_sandbox_has_ended_the_episode(run):
    """It is the model's doing, so that the episode counts, and is not played again until it goes well."""
    task = made("test", "easy", 1)[0]

    async def scene():
        usual = (await shared()).settings
        share(SandboxSettings(limits=Limits(lifetime=2.0)))
        try:
            await shared()
            return await did(Terminal, task, REWARD, shell("sleep 8"), shell("ls"), SUBMIT)
        finally:
            share(usual)

    episode, score = run(scene())
    assert (episode.stop, episode.fault, len(episode.turns)) == (Stop.DONE, None, 1)
    assert "has ended" in said(episode)[0] and score.value == 0.0


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"split": "train", "difficulty": "brutal"}, "difficulty"),
        ({"split": "train", "count": -1}, "count"),
        ({"split": "train", "count": 9999}, "count"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, asked):
    with pytest.raises(InputError, match=asked):
        Terminal.tasks(**options)


@pytest.mark.parametrize(
    ("item", "asked"),
    [({}, "item.goal are texts by path"), ({"goal": {"a": 1}}, "item.goal"), ({"goal": {}}, "there is nothing to do")],
)
def test_a_row_that_is_no_chore_is_refused(item, asked):
    with pytest.raises(InputError, match=asked):
        Terminal(Task.ask("Do it.", **item))


def test_calls_of_one_turn_are_carried_out_one_after_the_other(run):
    task = made("test", "easy", 1)[0]
    calls = [shell("sleep 0.3; echo 1 > n"), shell("cat n; echo 2 > n"), shell("cat n")]
    turn = [message.tool_calls[0] for message in script(calls)]

    async def scene():
        env = Terminal(task)
        await env.setup()
        try:
            return await env.step(Message(role="assistant", tool_calls=tuple(turn)))
        finally:
            await env.close()

    assert [result.content for result in run(scene())] == ["", "1", "2"]


@pytest.mark.parametrize("episodes", [16, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_random_episodes_leave_nothing_behind(run, episodes):
    before, after = run(soaked(Terminal, made("train", "standard", 40), REWARD, PHRASES, episodes))
    assert after[0] <= before[0] and after[1] <= before[1]
