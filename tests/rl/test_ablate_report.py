"""The report of an ablation, from made-up runs that the real writer has recorded."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from envs.errors import InputError
from envs.types import Cost
from made import played, turn
from rewards.score import Score
from rl.ablate import figures
from rl.ablate.conduct import ATTEMPTS, state
from rl.ablate.credits import Tally, credits
from rl.ablate.findings import alarm_story, unlike
from rl.ablate.kept import kept
from rl.ablate.plan import Cell, Plan, read
from rl.ablate.report import HTML, MARKDOWN, headlines, write
from rl.ablate.results import result
from rl.cli import main
from rl.collect import Group
from rl.evaluate import summarise
from rl.feed import Ticket
from rl.hacking import Alarm, Observed
from rl.journal import Journal
from rl.records import Run
from rl.rollout import Played
from runs import ROOT

pytest.importorskip("matplotlib")

STEPS, EVERY, TASKS = 8, 2, 20

Success = Callable[[str, int, int], float]
"""(arm, seed, step) -> held-out success."""


def plan(directory: Path, arms: Mapping[str, Any], seeds: Sequence[int], **changes: Any) -> Plan:
    base = {
        "model": "nobody/model",
        "env": {"use": "desk"},
        "reward": {"success": {"use": "state_equal"}},
        "output_dir": "runs/base",
        "trainer": {"max_steps": STEPS},
    }
    tree = {
        "base": "base.yaml",
        "arms": dict(arms),
        "seeds": list(seeds),
        "holdout": {"solved": {"use": "state_equal"}},
        "evaluate_every": EVERY,
        "threshold": 0.5,
        "output_dir": str(directory / "out"),
    }
    (directory / "base.yaml").write_text(yaml.safe_dump(base))
    (directory / "ablation.yaml").write_text(yaml.safe_dump(tree | changes, sort_keys=False))
    return read(directory / "ablation.yaml")


def group(position: int, *, paid: Sequence[float]) -> Group:
    """A success of two turns and a failure of as many turns as it was paid for."""
    right = replace(
        played("t", 1.0, turns=(turn(None), turn(text="done")), cost=Cost(sampled_tokens=10, prompt_tokens=30)),
        score=Score(value=1.0, turns=(0.1, None)),
    )
    turns = tuple(turn(None) for _ in paid)
    wrong = replace(
        played("t", 0.0, turns=turns, sample=1, cost=Cost(sampled_tokens=20, prompt_tokens=40)),
        score=Score(value=0.0, turns=tuple(paid), graders={"judge": "abc"}),
    )
    return Group(ticket=Ticket(position, right.episode.task), played=(right, wrong))


def evaluate(run: Run, step: int, success: float) -> None:
    whole = [played(f"t{i}", float(i < round(success * TASKS))) for i in range(TASKS)]
    run.evaluated("eval/sampled", step, summarise(whole), whole)
    judged: list[Played] = whole
    run.judged("eval/sampled/holdout", step, summarise(judged), judged)


def made_with(cell: Cell, *, revision: str) -> None:
    """Have a run say that it was made with this commit, whatever these files are at."""
    file = cell.path / "versions.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"revision": revision}))


def record(cell: Cell, success: Success, *, end: str | None = "trained", alarms: Sequence[Alarm] = ()) -> None:
    """A run as training would have recorded it."""
    with Run.create(cell.path, cell.config.model_dump(mode="json")) as run:
        made_with(cell, revision="c0ffee")
        evaluate(run, 0, success(cell.arm, cell.seed, 0))
        for step in range(STEPS):
            run.record(step, group(step, paid=(0.2, 0.2, 0.2)))
            run.metrics.append(
                {"step": step + 1, "loss": 0.1, "reward": 0.5, "credit/rms": 0.7, "credit/share": 1.0, "step_time": 2.0}
            )
            if (step + 1) % EVERY == 0:
                evaluate(run, step + 1, success(cell.arm, cell.seed, step + 1))
                now = [asdict(alarm) for alarm in alarms if alarm.step == step + 1]
                run.watched.append({**asdict(Observed(step=step + 1, reward=0.5)), "alarms": now})
        if end is not None:
            run.note(end, step=STEPS, version=STEPS, adapter="0" * 64)


def climbs(arm: str, seed: int, step: int) -> float:
    """All arms rise, the arm called better by a tenth more, each seed with luck of its own on every arm."""
    luck = random.Random(seed).choice([0.0, 0.05, 0.1])
    return min(0.1 * step / EVERY + luck + 0.1 * (arm == "better") * (step > 0), 1.0)


BETTER = {"outcome": {}, "better": {"set": {"credit.name": "rloo"}}}


def test_the_numbers_of_a_run_are_those_of_its_records(tmp_path: Path) -> None:
    (cell, _) = plan(tmp_path, BETTER, [0]).cells
    record(cell, lambda arm, seed, step: [0.1, 0.3, 0.6, 0.5, 0.7][step // EVERY])
    found = result(cell)
    assert [(point.step, point.tokens, point.success) for point in found.curve] == [
        (0, 0, 0.1),
        (2, 60, 0.3),
        (4, 120, 0.6),
        (6, 180, 0.5),
        (8, 240, 0.7),
    ]
    assert found.success(3) == pytest.approx(0.6)
    assert found.success(99) == pytest.approx((0.3 + 0.6 + 0.5 + 0.7) / 4), "what was before training is not in it"
    point = found.reached(0.5)
    assert point is not None and (point.step, point.tokens) == (4, 120)
    assert found.reached(0.9) is None
    spent = found.spent
    assert (spent.steps, spent.episodes, spent.sampled_tokens, spent.prompt_tokens) == (8, 16, 240, 560)
    assert (spent.graded, spent.seconds) == (8, 16.0)
    assert found.confounds["advantage RMS before rescaling"] == pytest.approx(0.7)
    assert found.pass_at[1] == found.pass_hat[1] == pytest.approx(0.7)


def test_an_evaluation_that_a_resumed_run_made_again_counts_once(tmp_path: Path) -> None:
    (cell, _) = plan(tmp_path, BETTER, [0]).cells
    record(cell, climbs, end=None)
    with Run.resume(cell.path) as run:
        evaluate(run, STEPS, 1.0)
        run.note("trained", step=STEPS)
    assert [point.step for point in result(cell).curve] == [0, 2, 4, 6, 8]
    assert result(cell).curve[-1].success == 1.0


def test_six_paired_seeds_find_a_difference_that_every_seed_shows(tmp_path: Path) -> None:
    made = plan(tmp_path, BETTER, range(6))
    for cell in made.cells:
        record(cell, climbs)
    found = write(made)
    (other,) = found.against
    assert other.paired.difference == pytest.approx(0.1)
    assert (other.paired.p, other.verdict) == (0.03125, "better")
    assert other.detectable == pytest.approx(0.0, abs=1e-6)
    assert headlines(found) == ["`better`: +0.100 against `outcome` over 6 paired seeds: better (p = 0.031)"]
    text = (made.path / MARKDOWN).read_text()
    for heading in ("Success", "Against outcome", "What a run cost", "Confounds", "Alarms", "Where the credit went"):
        assert f"## {heading}\n" in text
    assert "| better | 6 of 6 |" in text
    assert "## Left out" not in text and "## Not the same" not in text


def test_noise_is_no_difference_detectable_and_few_seeds_are_a_pilot(tmp_path: Path) -> None:
    noise = [0.1, -0.1, 0.05, -0.05, 0.1, -0.05]
    made = plan(tmp_path, BETTER, range(6))
    for cell in made.cells:
        record(cell, lambda arm, seed, step: 0.5 + noise[seed] * (arm == "better"))
    found = write(made)
    assert found.against[0].verdict == "no difference detectable"
    assert found.against[0].detectable is not None and found.against[0].detectable > 0.1
    assert "no difference detectable (p = " in (made.path / MARKDOWN).read_text()

    (tmp_path / "few").mkdir()
    few = plan(tmp_path / "few", BETTER, range(3))
    for cell in few.cells:
        record(cell, climbs)
    (other,) = write(few).against
    assert (other.paired.p, other.verdict, other.detectable) == (None, "pilot: no p", None)
    assert "a pilot: among 1 comparisons it takes 6 seeds" in (few.path / MARKDOWN).read_text()


def test_an_arm_that_compare_does_not_name_gets_no_p_and_takes_none_from_the_others(tmp_path: Path) -> None:
    made = plan(tmp_path, {**BETTER, "third": {"set": {"credit.name": "dr_grpo"}}}, range(6), compare=["better"])
    for cell in made.cells:
        record(cell, climbs)
    better, third = write(made).against
    assert better.paired.adjusted == 0.03125
    assert (third.paired.p, third.tested) == (None, False)
    assert "`third`: +0.000 against `outcome` over 6 paired seeds; not tested" in (made.path / MARKDOWN).read_text()


def test_runs_that_are_not_done_are_kept_out_and_said_so(tmp_path: Path) -> None:
    made = plan(tmp_path, BETTER, range(3))
    for cell in made.cells[:4]:
        record(cell, climbs, end=None if cell.seed == 1 and cell.arm == "better" else "trained")
    attempts = Journal(made.path / ATTEMPTS, writable=True)
    entry = {"arm": "outcome", "seed": 2, "kind": "ended", "code": 3, "seconds": 1.0}
    attempts.append({**entry, "error": "exit code 3: rft: the engine died"})
    attempts.close()
    found = write(made)
    assert found.left_out == (
        "better, seed 1: not finished",
        "outcome, seed 2: crashed (exit code 3: rft: the engine died)",
        "better, seed 2: not begun",
    )
    assert found.against[0].paired.seeds == 1, "only seed 0 is there twice"
    assert {arm.name: len(arm.runs) for arm in found.arms} == {"outcome": 2, "better": 1}
    assert "## Left out\n\n- better, seed 1: not finished" in (made.path / MARKDOWN).read_text()
    assert [state(cell, Journal(made.path / ATTEMPTS)) for cell in made.cells] == [
        *("done", "done", "done", "half"),
        *("crashed", "missing"),
    ]


def test_runs_of_other_code_budget_or_config_are_said_loudly_or_refused(tmp_path: Path) -> None:
    made = plan(tmp_path, BETTER, [0])
    for cell in made.cells:
        record(cell, climbs)
    made_with(made.cells[0], revision="feedc0de+")
    found = write(made)
    assert found.warnings == (
        "code revision: not the same in all runs: outcome/0: feedc0de+; better/0: c0ffee",
        "the code of some runs was changed after its last commit (revisions that end with +)",
    )
    assert "## Not the same in all runs" in (made.path / MARKDOWN).read_text()
    with pytest.raises(InputError, match=r"holds a run with another trainer.max_steps: name another output_dir"):
        write(plan(tmp_path, BETTER, [0], common={"trainer.max_steps": 4}))


def test_other_tasks_than_those_of_the_reference_are_said_loudly(tmp_path: Path) -> None:
    made = plan(tmp_path, BETTER, [0])
    for cell in made.cells:
        record(cell, climbs)
    one, other = (result(cell) for cell in made.cells)
    assert unlike([one, other]) == []
    swapped = replace(other, dealt={**other.dealt, 3: "another"}, held_out=other.held_out | {"more#0"})
    assert unlike([one, swapped]) == [
        "held-out tasks: not the same in all runs",
        "training tasks: outcome and better were not dealt the same with seed 0",
    ]
    assert unlike([one, replace(swapped, seed=1)])[1:] == [], "another seed has another order"


def test_alarms_are_told_with_how_long_before_the_loss_they_came(tmp_path: Path) -> None:
    made = plan(tmp_path, {"outcome": {}, "naive": {"set": {"credit.name": "rloo"}}}, [0])
    warned = Alarm(detector="paid_failures", step=4, value=6.0, limit=5.0, says="failures are paid")
    heard = [warned, replace(warned, step=6, action="roll_back", back_to=2), replace(warned, detector="echo", step=2)]
    for cell in made.cells:
        naive = cell.arm == "naive"
        curve = [0.2, 0.6, 0.5, 0.4, 0.1] if naive else [0.2, 0.3, 0.4, 0.5, 0.6]
        record(cell, lambda arm, seed, step, curve=curve: curve[step // EVERY], alarms=heard if naive else ())
    found = write(made)
    (honest,), (naive_run,) = (arm.runs for arm in found.arms)
    assert alarm_story(naive_run) == (warned, 2)
    assert alarm_story(honest) == (None, None)
    text = (made.path / MARKDOWN).read_text()
    row = "| naive, seed 0 | paid_failures, step 4 | step 6 | 0.600, step 2 | 0.100, step 8 | 2 |"
    assert row in text
    assert "| outcome, seed 0 | none | no | 0.600, step 8 | never |  |" in text
    assert "| naive | paid_failures (2), echo (1) |" in text


def test_the_html_needs_no_other_file_and_the_figures_are_well_formed(tmp_path: Path) -> None:
    made = plan(tmp_path, BETTER, range(2))
    for cell in made.cells:
        record(cell, climbs)
    write(made)
    page = (made.path / HTML).read_bytes()
    assert len(page) < 2 << 20
    text = page.decode()
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", text)
    assert not re.search(r"<script|@import|url\((?!#)", text)
    assert text.count("<svg") == 3
    drawn = sorted(path.name for path in (made.path / "figures").iterdir())
    assert drawn == ["credit.svg", "curves.svg", "differences.svg"]
    for name in drawn:
        assert ElementTree.parse(made.path / "figures" / name).getroot().tag.endswith("svg")
        assert f"(figures/{name})" in (made.path / MARKDOWN).read_text()
    write(made)
    assert (made.path / HTML).read_bytes() == page, "the same records make the same report"


def test_a_report_outlives_the_records_of_its_runs_and_may_be_moved(tmp_path: Path) -> None:
    two = {"outcome": {}, "process": {"set": {"reward.steps": {"use": "progress"}}}}
    own = plan(tmp_path, two, [0, 1])
    for cell in own.cells:
        record(cell, climbs)
    write(own)
    page = (own.path / MARKDOWN).read_text()
    for cell in own.cells:
        shutil.rmtree(cell.path)
    assert [state(cell, Journal(own.path / ATTEMPTS)) for cell in own.cells] == ["done"] * 4
    moved = plan(tmp_path, two, [0, 1], output_dir=str(tmp_path / "elsewhere" / "out"))
    shutil.copytree(own.path, moved.path)
    write(moved)
    assert (moved.path / MARKDOWN).read_text() == page and "Where the credit went" in page

    file = moved.path / "outcome" / "seed0.result.json"
    tree = json.loads(file.read_text())
    del tree["settings"]["watch"]  # as if this section were newer than the file
    file.write_text(json.dumps(tree))
    assert kept(moved.cells[0]) == kept(own.cells[0])
    file.write_text(json.dumps(tree | {"settings": {**tree["settings"], "gone": 1}}))
    with pytest.raises(InputError, match=r"seed0.result.json: unknown key 'gone'"):
        kept(moved.cells[0])

    other = plan(tmp_path, two, [0, 1], common={"trainer.max_steps": STEPS // 2}, output_dir=str(own.path))
    with pytest.raises(InputError, match=r"another trainer.max_steps: name another output_dir"):
        write(other)
    (moved.path / "outcome" / "seed0.result.json").write_text('{"result": {}}')
    with pytest.raises(InputError, match=r"seed0.result.json is not what was kept of a run"):
        write(moved)


@pytest.mark.parametrize("name", ["ablation_desk", "ablation_sparse"])
def test_a_committed_report_is_what_the_records_beside_it_say(name: str, tmp_path: Path) -> None:
    committed, moved = ROOT / "docs" / name, tmp_path / name
    shutil.copytree(committed, moved, ignore=shutil.ignore_patterns("report*", "figures"))
    write(read(ROOT / "configs" / f"{name}.yaml", f"output_dir={moved}"))
    assert (moved / MARKDOWN).read_text() == (committed / MARKDOWN).read_text()
    assert sum(path.stat().st_size for path in committed.rglob("*.*")) < 2_000_000


def test_credit_is_the_mean_advantage_of_a_turn_over_the_root_mean_square_of_the_arm() -> None:
    one = Tally(successes={0: (2, 4.0, 8.0)}, failures={0: (1, -2.0, 4.0), 2: (1, -1.0, 1.0)})
    other = Tally(successes={0: (2, 2.0, 2.0), 1: (1, 3.0, 9.0)}, failures={})
    rms = math.sqrt((8 + 4 + 1 + 2 + 9) / 7)
    found = credits([one, None, other])
    assert found is not None
    assert found.successes == pytest.approx((6 / 4 / rms, 3 / rms))
    assert found.failures[0] == pytest.approx(-2 / rms) and found.failures[1] is None
    assert credits([None]) is None


def test_nothing_to_report_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(tmp_path, BETTER, [0])
    assert main(["ablate", str(tmp_path / "ablation.yaml"), "--report-only"]) == 2
    assert "no run is finished yet" in capsys.readouterr().err


def test_the_report_is_made_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan(tmp_path, BETTER, [0, 1])
    for cell in made.cells:
        record(cell, climbs)
    assert main(["ablate", str(tmp_path / "ablation.yaml"), "--report-only"]) == 0
    said = capsys.readouterr().out
    assert "`better`: +0.100 against `outcome` over 2 paired seeds; a pilot" in said
    assert (made.path / MARKDOWN).exists()


def test_without_matplotlib_it_says_so_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'localrft\[report\]'"):
        figures.check()
