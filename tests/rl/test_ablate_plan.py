"""The plan of an ablation: which runs there are, what they have in common, and what can't be compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from envs.errors import InputError
from rl.ablate.plan import Plan, read
from rl.config import load
from rl.trees import differing

ROOT = Path(__file__).parents[2]

BASE = {
    "model": "tiny",
    "env": {"use": "desk"},
    "reward": {"success": {"use": "state_equal"}},
    "output_dir": "runs/base",
    "trainer": {"max_steps": 4, "learning_rate": 1e-4},
}

ABLATION: dict[str, Any] = {
    "base": "base.yaml",
    "arms": {"outcome": {}, "process": {"set": {"reward.steps": {"use": "progress", "weight": 0.1}}}},
    "seeds": [3, 1],
    "holdout": {"solved": {"use": "state_equal", "require": ["done"]}},
    "evaluate_every": 2,
}

Planned = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    def make(*overrides: str, **changes: Any) -> Plan:
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
        tree = ABLATION | {"output_dir": str(tmp_path / "out")} | changes
        (tmp_path / "ablation.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        return read(tmp_path / "ablation.yaml", *overrides)

    return make


def test_there_is_a_run_for_every_arm_and_seed_and_pairs_come_first(planned: Planned, tmp_path: Path) -> None:
    plan = planned()
    assert [(cell.arm, cell.seed) for cell in plan.cells] == [
        ("outcome", 3),
        ("process", 3),
        ("outcome", 1),
        ("process", 1),
    ]
    assert [cell.path for cell in plan.cells[:2]] == [
        tmp_path / "out" / "outcome" / "seed3",
        tmp_path / "out" / "process" / "seed3",
    ]
    assert plan.warnings == ()
    assert [str(cell) for cell in plan.chosen(["process"], [1])] == ["process, seed 1"]


def test_runs_of_a_seed_differ_in_what_their_arm_names_and_nothing_else(planned: Planned) -> None:
    one, other, later, _ = (cell.config.model_dump(mode="json") for cell in planned().cells)
    assert differing(one, other) == ["output_dir", "reward.steps"]
    assert differing(one, later) == ["model", "output_dir", "seed"]
    assert one["holdout"] == ABLATION["holdout"]
    trainer = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True}
    assert one["trainer"] == BASE["trainer"] | trainer  # type: ignore[operator]


def test_the_embedded_policy_is_made_once_a_seed_or_once_for_all(planned: Planned, tmp_path: Path) -> None:
    by_seed = planned().cells
    assert [cell.recipe and cell.recipe.seed for cell in by_seed] == [3, 3, 1, 1]
    assert by_seed[0].config.model == by_seed[1].config.model != by_seed[2].config.model
    assert Path(by_seed[0].config.model).parent == tmp_path / "out" / "bases"
    shared = planned("tiny.seed=7", "tiny.steps=5").cells
    assert len({cell.config.model for cell in shared}) == 1
    assert {cell.recipe and (cell.recipe.seed, cell.recipe.steps) for cell in shared} == {(7, 5)}
    assert all(cell.recipe is None for cell in planned("model=Qwen/Qwen3-0.6B").cells)


def test_an_override_is_of_the_ablation_or_of_all_its_runs(planned: Planned) -> None:
    plan = planned("seeds=[0]", "trainer.max_steps=8", "evaluate_every=4")
    assert [cell.seed for cell in plan.cells] == [0, 0]
    assert {cell.config.trainer["max_steps"] for cell in plan.cells} == {8}
    assert {cell.config.trainer["eval_steps"] for cell in plan.cells} == {4}


def test_arms_may_have_fewer_seeds(planned: Planned) -> None:
    plan = planned(arms={"outcome": {}, "process": {**ABLATION["arms"]["process"], "seeds": [1]}})
    assert [(cell.arm, cell.seed) for cell in plan.cells] == [("outcome", 3), ("outcome", 1), ("process", 1)]


def test_an_arm_that_differs_in_more_is_refused_unless_that_is_the_question(planned: Planned) -> None:
    arms = {"outcome": {}, "longer": {"set": {"trainer.max_steps": 8, "env.options": {"orders": [2, 2]}}}}
    with pytest.raises(InputError, match=r"arm longer differs from outcome in env.options.orders, trainer.max_steps"):
        planned(arms=arms)
    plan = planned(arms=arms, may_differ=["trainer.max_steps", "env"])
    assert plan.warnings == ("longer differs from outcome in env.options.orders, trainer.max_steps as well",)


def arms(**settings: Any) -> dict[str, Any]:
    return {"arms": {"outcome": {}, "other": {"set": settings}}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"armz": {}}, "unknown key 'armz'; did you mean 'arms'?"),
        ({"arms": {"outcome": {}, "b": {"sett": {}}}}, "unknown key 'arms.b.sett'; did you mean 'set'?"),
        ({"arms": {"outcome": {}}}, "arms: Dictionary should have at least 2 items"),
        ({"arms": {"outcome": {}, "a/b": {}}}, "'a/b' is to be a directory"),
        ({"arms": {"outcome": {}, "b": {"seeds": [9]}}}, "arm b: seed 9 has no run of outcome"),
        ({"reference": "outcom"}, "unknown arm 'outcom'; did you mean 'outcome'?"),
        ({"compare": ["outcome"]}, "outcome is what the others are compared with"),
        ({"seeds": [1, 1]}, "seeds are different numbers"),
        ({"seeds": []}, "seeds: Tuple should have at least 1 item"),
        ({"holdout": {}}, "holdout: Dictionary should have at least 1 item"),
        ({"holdout": {"solved": {"use": "state_equl"}}}, "holdout.solved.use: unknown reward 'state_equl'"),
        ({"evaluate_every": 3}, "trainer.max_steps is 4; it has to be a multiple of evaluate_every"),
        ({"base": "nowhere.yaml"}, "can't read the config"),
        (arms(seed=4), "arms.other.set: seed is the ablation's to set"),
        (arms(**{"trainer.eval_steps": 1}), "arms.other.set: trainer.eval_steps is the ablation's to set"),
        (arms(trainer={}), "arms.other.set: trainer is the ablation's to set"),
        (arms(**{"reward.steps": {"use": "progres"}}), "reward.steps.use: unknown reward 'progres'"),
        (arms(**{"credit.name": "grop"}), "arm other: credit: credit.name: unknown estimator 'grop'"),
        (arms(**{"model.x": 1}), "model.x: 'model' holds a value, not a section"),
    ],
)
def test_mistakes_are_named(planned: Planned, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        planned(**changes)
    assert says in str(error.value)


def test_arms_and_seeds_that_are_not_there_can_not_be_chosen(planned: Planned) -> None:
    with pytest.raises(InputError, match="--arms: unknown arm 'proces'; did you mean 'process'"):
        planned().chosen(["proces"], None)
    with pytest.raises(InputError, match="--seeds: 2 is not among the seeds 1, 3"):
        planned().chosen(None, [2])


def test_the_lesson_s_arms_differ_in_reward_alone_but_for_the_one_with_a_critic() -> None:
    plan = read(ROOT / "configs" / "ablation_desk.yaml")
    assert [warning for warning in plan.warnings if "ppo" not in warning] == []
    runs = {(cell.arm, cell.seed): cell.config.model_dump(mode="json") for cell in plan.cells}
    for arm in plan.ablation.arms:
        keys = differing(runs["outcome", 0], runs[arm, 0])
        own = {"algorithm", "credit", "ppo"} if arm == "ppo" else {"reward"}
        assert {key.split(".")[0] for key in keys} <= {"output_dir", *own}
    assert len({cell.config.model for cell in plan.cells if cell.seed == 0}) == 1
    assert load(ROOT / "configs" / "demo.yaml").env.evaluate != load(ROOT / "configs" / "demo.yaml").env.train


def test_where_outcomes_say_little_the_arms_differ_in_reward_alone() -> None:
    plan = read(ROOT / "configs" / "ablation_sparse.yaml")
    assert plan.warnings == ()
    outcome, steps = (next(cell for cell in plan.cells if cell.arm == arm).config for arm in ("outcome", "steps"))
    keys = differing(outcome.model_dump(mode="json"), steps.model_dump(mode="json"))
    assert {key.split(".")[0] for key in keys} == {"output_dir", "reward"}


def test_every_ablation_of_the_configs_is_read_by_a_test() -> None:
    assert {path.stem for path in (ROOT / "configs").glob("ablation_*")} == {"ablation_desk", "ablation_sparse"}
