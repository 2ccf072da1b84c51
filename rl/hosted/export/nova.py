"""Amazon Nova: rows with a reference_answer, and a reward that is a Lambda function.

Checked against the user guides of Bedrock and SageMaker (data format, interface of reward functions, 2026): extra
fields of a row come to the function beside `messages`, or in `metadata`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewards.graders.spec import content_hash
from rl.hosted.export.files import Project, Row, item_of, text_of, with_system, write, write_scoring

HANDLER = '''"""The reward function: a batch of conversations in, a score each out."""

from scoring import scores


def lambda_handler(event, context):
    batch = event if isinstance(event, list) else event.get("samples", [event])
    pairs = [(item(sample), sample["messages"][-1]) for sample in batch]
    return [
        {
            "id": sample["id"],
            "aggregate_reward_score": 0.0 if value is None else value,
            "metrics_list": [{"name": "graded", "value": float(value is not None), "type": "Metric"}],
        }
        for sample, value in zip(batch, scores(pairs))
    ]


def item(sample):
    """The dataset row, wherever its fields arrive, with the prompt that was asked."""
    row = {**(sample.get("metadata") or {}), **{key: value for key, value in sample.items() if key != "metadata"}}
    return {**row, "messages": sample["messages"][:-1]}
'''


def nova(project: Project, folder: Path) -> list[str]:
    """`train.jsonl`, `valid.jsonl`, and `lambda_function.py` with what it needs."""
    write(folder, "train.jsonl", [_row(row) for row in project.train])
    write(folder, "valid.jsonl", [_row(row) for row in project.valid])
    write_scoring(project, folder)
    write(folder, "lambda_function.py", HANDLER)
    asked = project.asked
    effort = {"default": "low", "low": "low", "medium": "high", "high": "high"}[asked.reasoning_effort]
    write(
        folder,
        "hyperparameters.json",
        {
            "epochCount": asked.n_epochs,
            "batchSize": asked.batch_size,
            "evalInterval": asked.eval_interval,
            "reasoningEffort": effort,
        },
    )
    return _losses(project)


def _row(row: Row) -> dict[str, Any]:
    """The row, with an id and a reference_answer where it has none: then everything it holds beside its messages."""
    item = item_of(row)
    messages = [{"role": m["role"], "content": text_of(m.get("content"))} for m in with_system(row["messages"])]
    return {"id": content_hash(row)[:16], "reference_answer": item, **item, "messages": messages}


def _losses(project: Project) -> list[str]:
    lost = [
        "a sample that could not be graded scores 0 there: the answer of a reward function has no other word for it",
        "learning_rate_multiplier, compute_multiplier and eval_samples have no counterpart",
    ]
    if project.asked.reasoning_effort in ("default", "medium"):
        lost.append(f"reasoning_effort: {project.asked.reasoning_effort} becomes another: there are none, low and high")
    rows = (*project.train, *project.valid)
    if many := sum(len([m for m in row["messages"] if m["role"] == "user"]) > 1 for row in rows):
        lost.append(f"{many} of {len(rows)} rows have several user messages; Nova takes one turn")
    if any(row.get("tools") for row in rows):
        lost.append("tools of rows are left out: the documented rows have none")
    if project.job.response_format is not None:
        lost.append("response_format is only graded, not enforced")
    return lost
