"""A training run that is paid by a judge of groups and by what the policy itself finds likely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1200)]
pytest.importorskip("torch")

from judging import Shown, judge  # noqa: E402
from rl.records import Run  # noqa: E402
from runs import IN_PROCESS, Process, config  # noqa: E402


def length(seen: Shown) -> dict[str, Any]:
    """A judge of lengths, who tells an episode by its number and what it said by the lines after it."""
    said: dict[int, int] = {}
    for line in seen.lines:
        if "episode" in line:
            said[number := line["episode"]] = 0
        elif "turn" in line:
            said[number] += len(line.get("text", ""))
    return {"episodes": [{"episode": n, "why": "", "score": total / 1000} for n, total in said.items()]}


def test_a_group_is_judged_when_it_is_whole_and_every_turn_knows_its_belief(random_base: Path, tmp_path: Path) -> None:
    with judge(length) as server:
        reward = {
            "vowels": {"use": "letters:vowels"},
            "better": {"use": "relative", "model": "m", "judge": {"base_url": server.url}},
            "gain": {"use": "information_gain", "field": "pause", "lead": "It is "},
        }
        options: dict[str, Any] = {
            "engine": IN_PROCESS,
            "reward": reward,
            "env": {"use": "letters:Letters", "options": {"pause": 0.0}},
            "trainer": {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1},
        }
        refused = Process(config(random_base, tmp_path / "refused", **options))
        assert refused.ends() == 2
        assert "set evaluate.samples to 2 or more" in refused.said
        assert not server.heard and not (tmp_path / "refused").exists()
        evaluate = {"tasks": 2, "samples": 2, "greedy": False}
        run = Process(config(random_base, tmp_path / "run", evaluate=evaluate, **options))
        assert run.ends() == 0, run.said
    groups = [tuple(played) for played in Run.read(run.run).recorded(0).values()]
    assert [len(group) for group in groups] == [2, 2]
    for played in (played for group in groups for played in group):
        said = sum(len(turn.completion.message.content) for turn in played.episode.turns)
        assert played.score.error is None
        assert played.score.parts["better"] == pytest.approx(said / 1000)
        assert "gain" in played.score.parts
        assert all(0 < (turn.completion.belief or 0) < 1 for turn in played.episode.turns)
    (evaluation,) = Run.read(run.run).evaluations()
    assert (evaluation["unscored"], evaluation["episodes"]) == (0, 4)
