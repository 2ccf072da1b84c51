"""Reward models as rewards: by name, together in a forward, and nothing scored that can't be."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

import desk_runs
from envs.errors import InputError
from envs.types import Episode, Stop
from made import played
from rewards import Reward, Score, build
from rl import session
from rl.config import parse
from rl.learned import labels
from rl.learned.record import Kind, read, vocabulary
from rl.records import Run
from rl.trainers import reward_model
from runs import IN_PROCESS

pytestmark = pytest.mark.stack

Make = Callable[[Kind], Path]


@pytest.fixture(scope="module")
def episodes(desk_run: Path) -> list[Episode]:
    return [recorded.played.episode for recorded in Run.read(desk_run).episodes()]


def ask(judge: Reward, episodes: list[Episode]) -> list[Score]:
    async def all_at_once() -> list[Score]:
        return await asyncio.gather(*(judge(episode) for episode in episodes))

    return asyncio.run(all_at_once())


def judge(path: Path) -> Reward:
    return build({"rm": {"use": "learned", "path": str(path)}})


def test_an_outcome_model_says_how_likely_success_is(learned_model: Make, episodes: list[Episode]) -> None:
    """Against transformers' own classifier, one episode at a time."""
    path = learned_model("outcome")
    model, scale = AutoModelForSequenceClassification.from_pretrained(path), read(path).scale
    for episode, score in zip(episodes[:6], ask(judge(path), episodes[:6]), strict=True):
        with torch.inference_mode():
            logit = model(torch.tensor([labels.tokens(episode)])).logits.item()
        assert score.value == pytest.approx(scale(logit), abs=1e-5)
        assert score.turns is None and 0 < score.value < 1


def test_a_process_model_pays_a_turn_what_it_changed(learned_model: Make, episodes: list[Episode]) -> None:
    path = learned_model("process")
    model, scale = AutoModelForTokenClassification.from_pretrained(path).eval(), read(path).scale
    for episode, score in zip(episodes[:6], ask(judge(path), episodes[:6]), strict=True):
        row = labels.tokens(episode)
        with torch.inference_mode():
            logits = model(torch.tensor([row])).logits[0, :, 0].tolist()
        # Before each turn the model has that turn's prompt in front of it; at the end, everything.
        prompts = [len(turn.completion.prompt_ids) for turn in episode.turns]
        chances = [scale(logits[end - 1]) for end in (*prompts, len(row))]
        assert score.turns == pytest.approx([b - a for a, b in pairwise(chances)], abs=1e-5)
        assert score.value == 0.0 and score.total == pytest.approx(chances[-1] - chances[0], abs=1e-5)


def test_shaped_it_pays_nothing_in_all(learned_model: Make, episodes: list[Episode]) -> None:
    spec = {"use": "shaped", "potential": {"use": "learned", "path": str(learned_model("process"))}}
    plain, shaped = ask(judge(learned_model("process")), episodes), ask(build(spec), episodes)
    for before, after in zip(plain, shaped, strict=True):
        assert before.turns is not None and after.turns is not None
        assert sum(t or 0.0 for t in after.turns) == pytest.approx(0.0, abs=1e-6)
        assert after.turns[:-1] == pytest.approx(before.turns[:-1]), "only the last turn pays back"


@pytest.mark.parametrize("kind", ["outcome", "process"])
def test_what_is_asked_at_once_is_one_forward_and_says_the_same(
    kind: Kind, learned_model: Make, episodes: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = reward_model.logits

    def counting(model: Any, kind: Kind, rows: Any) -> list[list[float]]:
        asked.append(len(rows))
        return real(model, kind, rows)

    monkeypatch.setattr(reward_model, "logits", counting)
    at_once = ask(judge(learned_model(kind)), episodes)
    assert asked == [len(episodes)]
    one_by_one = [ask(judge(learned_model(kind)), [episode])[0] for episode in episodes]
    assert asked[1:] == [1] * len(episodes)
    for a, b in zip(at_once, one_by_one, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-5) and a.turns == pytest.approx(b.turns, abs=1e-5)


def test_the_weights_are_loaded_once(
    learned_model: Make, episodes: list[Episode], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loads, real = list[Path](), reward_model.load
    monkeypatch.setattr(reward_model, "load", lambda path, record: loads.append(path) or real(path, record))
    path = Path(shutil.copytree(learned_model("outcome"), tmp_path / "copy"))
    first, second = judge(path), judge(path)
    ask(first, episodes[:2]), ask(second, episodes[:2]), ask(first, episodes[:2])
    assert loads == [path]


def test_who_gives_up_takes_nobody_along(learned_model: Make, episodes: list[Episode]) -> None:
    one = judge(learned_model("outcome"))

    async def play() -> Score:
        hasty, patient = asyncio.ensure_future(one(episodes[0])), asyncio.ensure_future(one(episodes[1]))
        await asyncio.sleep(0)
        hasty.cancel()
        return await patient

    score = asyncio.run(play())
    assert score.error is None
    assert ask(one, episodes[:1])[0].error is None, "nor is anything left of it in another loop"


def test_what_can_not_be_read_is_unscored(learned_model: Make) -> None:
    scripted, broken = played().episode, played(stop=Stop.FAULT).episode
    broken.fault = "the engine died"
    scores = ask(judge(learned_model("outcome")), [scripted, broken])
    assert scores[0].error is not None and "not sampled as tokens" in scores[0].error
    assert scores[1].error is not None and "the engine died" in scores[1].error


def test_a_model_that_fails_leaves_episodes_unscored(
    learned_model: Make, episodes: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory\nand a long story")

    monkeypatch.setattr(reward_model, "logits", fails)
    for score in ask(judge(learned_model("outcome")), episodes[:3]):
        assert score.error is not None and score.error.endswith("out of memory")


def test_a_model_without_its_head_is_not_used(learned_model: Make, episodes: list[Episode], tmp_path: Path) -> None:
    """transformers would draw a new head at random, and say so in a log."""
    from safetensors.torch import load_file, save_file

    path = Path(shutil.copytree(learned_model("outcome"), tmp_path / "copy"))
    weights = load_file(path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "score.weight"}, path / "model.safetensors", {"format": "pt"})
    score = ask(judge(path), episodes[:1])[0]
    assert score.error is not None and "score.weight" in score.error


def test_scores_name_the_weights_they_are_of(learned_model: Make, episodes: list[Episode], tmp_path: Path) -> None:
    path = Path(shutil.copytree(learned_model("outcome"), tmp_path / "copy"))
    before = ask(judge(path), episodes[:1])[0]
    record = json.loads((path / "reward_model.json").read_text())
    record["scale"]["shift"] += 1.0
    (path / "reward_model.json").write_text(json.dumps(record))
    after = ask(judge(path), episodes[:1])[0]
    assert before.graders.keys() == after.graders.keys() and before.graders != after.graders
    assert after.value > before.value


def test_a_path_that_is_no_reward_model_is_refused(random_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no reward model"):
        judge(random_base)
    (tmp_path / "reward_model.json").write_text('{"kind": "mood"}')
    with pytest.raises(InputError, match=r"reward_model\.json: kind"):
        judge(tmp_path)
    with pytest.raises(InputError, match="the option 'path' is missing"):
        build({"use": "learned"})


@pytest.mark.parametrize("where", ["reward", "holdout"])
def test_a_model_of_another_vocabulary_is_refused_before_anything_starts(
    where: str, learned_model: Make, random_base: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(learned_model("process"), tmp_path / "copy"))
    spec = {"use": "shaped", "potential": {"use": "learned", "path": str(path)}}
    config = parse(desk_runs.config(random_base, tmp_path / "run", engine=IN_PROCESS, **{where: {"steps": spec}}))
    session.check(config)
    record = json.loads((path / "reward_model.json").read_text())
    assert record["vocabulary"] == vocabulary(session.read_tokenizer(str(random_base)))
    (path / "reward_model.json").write_text(json.dumps(record | {"vocabulary": "that of another"}))
    with pytest.raises(InputError, match="another vocabulary"):
        session.check(config)
