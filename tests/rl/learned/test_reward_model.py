"""Reward models in training: what they are fitted to, on sequences whose worth is known."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from envs.errors import InputError
from rl import tiny
from rl.learned.labels import Labelled
from rl.learned.record import Kind, Record, vocabulary
from rl.session import read_tokenizer
from rl.stats.calibration import Scale
from rl.tiny import Shape
from rl.trainers import reward_model as rm

pytestmark = pytest.mark.stack

SMALL = Shape(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, intermediate=32)
GOOD, BAD = 101, 102


@pytest.fixture(scope="module")
def words(random_base: Path) -> Any:
    return read_tokenizer(str(random_base))


@pytest.fixture(scope="module")
def base(words: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of few weights that learned nothing."""
    path = tmp_path_factory.mktemp("small") / "base"
    torch.manual_seed(0)
    network = tiny.model(words, SMALL)
    network.save_pretrained(path)
    words.save_pretrained(path)
    return str(path)


def args(tmp_path: Path, steps: int, batch: int = 8) -> Any:
    return rm.settings(str(tmp_path), steps=steps, batch=batch, learning_rate=1e-2, seed=0)


def sequence(mark: int, rng: random.Random) -> tuple[int, ...]:
    """The mark among tokens that mean nothing."""
    return (
        rng.randrange(20, 24),
        rng.randrange(20, 24),
        mark,
        *(rng.randrange(20, 24) for _ in range(rng.randrange(3))),
    )


def test_binomial_by_hand() -> None:
    # 3 of 4 at even odds, 0 of 2 at p = 1/4, and a place without a label.
    logits, good, n = torch.tensor([0.0, -math.log(3), 7.0]), torch.tensor([3.0, 0, 0]), torch.tensor([4.0, 2, 0])
    assert rm.binomial(logits, good, n).item() == pytest.approx(4 * math.log(2) + 2 * math.log(4 / 3))


def test_labels_stand_where_their_states_end() -> None:
    rows = [
        Labelled(ids=(5, 6, 7, 8), ends=(2, 4), good=(1, 0), rollouts=(3, 1)),
        Labelled(ids=(5, 9), ends=(2,), good=(2,), rollouts=(2,)),
    ]
    batch = rm.padded(rows, pad=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["good"].tolist() == [[0, 1, 0, 0], [0, 2, 0, 0]]
    assert batch["rollouts"].tolist() == [[0, 3, 0, 1], [0, 2, 0, 0]]


def test_pairs_teach_what_tells_success_from_failure(base: str, words: Any, tmp_path: Path) -> None:
    rng = random.Random(0)
    pairs = [(sequence(GOOD, rng), sequence(BAD, rng)) for _ in range(80)]
    model = rm.fit_pairs(rm.begin(base, words, "outcome", seed=0), words, pairs[:60], args(tmp_path, 60))
    rows = [(ids, (len(ids),)) for pair in pairs[60:] for ids in pair]
    scores = [score for (score,) in rm.logits(model, "outcome", rows)]
    assert sum(good > bad for good, bad in zip(scores[::2], scores[1::2], strict=True)) >= 18


def test_a_label_weighs_the_rollouts_it_stands_on(base: str, words: Any, tmp_path: Path) -> None:
    """The same state twice, 1 of 1 and 0 of 3: as one state of 1 of 4, not as the mean of 1 and 0."""
    state = (30, 31, 32)
    rows = [
        Labelled(ids=state, ends=(3,), good=(1,), rollouts=(1,)),
        Labelled(ids=state, ends=(3,), good=(0,), rollouts=(3,)),
    ]
    model = rm.fit_states(rm.begin(base, words, "process", seed=0), words, rows, args(tmp_path, 80, batch=2))
    ((logit,),) = rm.logits(model, "process", [(state, (3,))])
    assert Scale()(logit) == pytest.approx(0.25, abs=0.03)


def test_states_learn_the_chance_and_not_the_luck(base: str, words: Any, tmp_path: Path) -> None:
    """After one mark 9 of 12 succeed, after the other one 3; before it, half of them."""
    rows = []
    for n in range(24):
        good = int(n // 2 < (9, 3)[n % 2])
        rows.append(Labelled(ids=(20, 21, (GOOD, BAD)[n % 2]), ends=(2, 3), good=(good, good), rollouts=(1, 1)))
    model = rm.fit_states(rm.begin(base, words, "process", seed=0), words, rows, args(tmp_path, 60, batch=24))
    found = rm.logits(model, "process", [((20, 21, GOOD), (2, 3)), ((20, 21, BAD), (2, 3))])
    chances = [Scale()(logit) for own in found for logit in own]
    assert chances == pytest.approx([0.5, 0.75, 0.5, 0.25], abs=0.05)


@pytest.mark.parametrize("kind", ["outcome", "process"])
@pytest.mark.parametrize("rank", [None, 4])
def test_what_was_trained_is_what_is_loaded(
    kind: Kind, rank: int | None, base: str, words: Any, tmp_path: Path
) -> None:
    rng = random.Random(0)
    lora = None if rank is None else rm.adapter(kind, rank)
    model: Any = rm.begin(base, words, kind, seed=0)
    rows = [sequence(GOOD, rng) for _ in range(6)]
    untrained = rm.logits(model.eval(), kind, [(ids, (3, len(ids))) for ids in rows])
    if kind == "outcome":
        model = rm.fit_pairs(model, words, [(rows[0], rows[1])] * 8, args(tmp_path, 3), lora=lora)
    else:
        state = Labelled(ids=rows[0], ends=(3,), good=(1,), rollouts=(1,))
        model = rm.fit_states(model, words, [state] * 8, args(tmp_path, 3), lora=lora)
    scores = rm.logits(model, kind, [(ids, (3, len(ids))) for ids in rows])
    assert scores != untrained
    model.save_pretrained(tmp_path / "saved")
    record = Record(
        kind=kind, base=base, lora=rank is not None, vocabulary=vocabulary(words), pad=words.pad_token_id, scale=Scale()
    )
    loaded: Any = rm.load(tmp_path / "saved", record)
    found = rm.logits(loaded, kind, [(ids, (3, len(ids))) for ids in rows])
    for a, b in zip(found, scores, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (trained < sum(p.numel() for p in model.parameters()) / 2) is (rank is not None)


def test_an_adapter_without_its_base_is_named(words: Any, tmp_path: Path) -> None:
    record = Record(kind="outcome", base=str(tmp_path / "gone"), lora=True, vocabulary="", pad=0, scale=Scale())
    with pytest.raises(InputError, match="can't be loaded"):
        rm.load(tmp_path, record)
