"""Eval Protocol, which Fireworks trains with: rows of EvaluationRow and one `@evaluation_test`.

Checked against eval-protocol 0.3.33: the arguments of `evaluation_test`, the fields of EvaluationRow and of
EvaluateResult.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewards.bench.lint import range_of
from rl.hosted.export.files import Project, Row, item_of, write, write_scoring

TEST = '''"""The reward of {name}: run it with pytest, or hand it to `eval-protocol create rft`."""

from pathlib import Path

from eval_protocol.models import EvaluateResult, EvaluationRow
from eval_protocol.pytest import SingleTurnRolloutProcessor, evaluation_test

from scoring import score


@evaluation_test(
    input_dataset=[str(Path(__file__).parent / "valid.jsonl")],
    completion_params=[{{"model": {model!r}, "temperature": 1.0}}],
    rollout_processor=SingleTurnRolloutProcessor(),
    mode="pointwise",
)
async def test_reward(row: EvaluationRow) -> EvaluationRow:
    prompt = [message.model_dump(exclude_none=True) for message in row.messages[:-1]]
    item = {{**row.ground_truth, "messages": prompt, "tools": row.tools}}
    value = await score(item, row.messages[-1].model_dump(exclude_none=True))
    row.evaluation_result = EvaluateResult(score=value or 0.0, is_score_valid=value is not None)
    return row
'''


def eval_protocol(project: Project, folder: Path) -> list[str]:
    """`train.jsonl`, `valid.jsonl` and `test_reward.py` with what it needs."""
    write(folder, "train.jsonl", [_row(row) for row in project.train])
    write(folder, "valid.jsonl", [_row(row) for row in project.valid])
    write_scoring(project, folder)
    write(folder, "test_reward.py", TEST.format(name=project.name, model=project.body.model))
    write(folder, "requirements.txt", "eval-protocol\nlocalrft[graders]\n")
    lost = ["hyperparameters: they are options of `eval-protocol create rft` (epochs, learning rate), not of the files"]
    low, high = range_of(project.grader)
    if not 0 <= low <= high <= 1:
        lost.append(f"the grader's scores go from {low:g} to {high:g} as far as can be seen; scores are 0 to 1 there")
    if project.job.tools:
        lost.append("tools: their servers are not called; tools come from MCP servers or remote environments there")
    if project.job.response_format is not None:
        lost.append("response_format is only graded, not enforced")
    return lost


def _row(row: Row) -> dict[str, Any]:
    found = {"messages": row["messages"], "ground_truth": item_of(row)}
    return found | {"tools": row["tools"]} if row.get("tools") else found
