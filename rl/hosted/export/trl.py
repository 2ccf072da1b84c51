"""TRL: a script with GRPOTrainer, rows with `prompt` and `item`, and the grader as its reward function.

Checked against TRL 1.16.0: how reward functions are called, the fields of GRPOConfig.
"""

from __future__ import annotations

import json
from pathlib import Path

from rl.hosted import auto
from rl.hosted.export.files import Project, with_system, write, write_scoring
from rl.hosted.plan import LEARNING_RATE

SCRIPT = '''"""GRPO on the rows of {name}, scored by grader.json: python train.py"""

import json
from pathlib import Path

from scoring import scores

HERE = Path(__file__).parent
MODEL = {model!r}


def reward(completions, item, **_):
    """One score a completion; None where it can't be graded, which TRL leaves out."""
    return scores([(json.loads(row), said[-1]) for said, row in zip(completions, item)])


def main():
    from datasets import load_dataset
    from trl import GRPOConfig, GRPOTrainer

    files = {{name: str(HERE / f"{{name}}.jsonl") for name in ("train", "valid")}}
    rows = load_dataset("json", data_files=files)
    args = GRPOConfig(
        output_dir="out",
        {settings}
    )
    trainer = GRPOTrainer(
        model=MODEL, reward_funcs=reward, args=args, train_dataset=rows["train"], eval_dataset=rows["valid"]
    )
    trainer.train()


if __name__ == "__main__":
    main()
'''


def trl(project: Project, folder: Path) -> list[str]:
    """`train.jsonl`, `valid.jsonl` and `train.py` with what it needs."""
    for file, rows in (("train.jsonl", project.train), ("valid.jsonl", project.valid)):
        packed = [{"prompt": with_system(row["messages"]), "item": json.dumps(row)} for row in rows]
        write(folder, file, packed)
    write_scoring(project, folder)
    asked, size = project.asked, auto.group(float(project.asked.compute_multiplier))
    batch = int(asked.batch_size)
    settings = {
        "max_steps": auto.steps(len(project.train), batch, int(asked.n_epochs)),
        "learning_rate": LEARNING_RATE * float(asked.learning_rate_multiplier),
        "num_generations": size,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": batch,
        "eval_strategy": "steps",
        "eval_steps": asked.eval_interval,
        "num_generations_eval": asked.eval_samples,
        "per_device_eval_batch_size": asked.eval_samples,
        "save_steps": asked.eval_interval,
        "seed": project.body.seed or 0,
    }
    lines = "\n        ".join(f"{name}={value!r}," for name, value in settings.items())
    write(folder, "train.py", SCRIPT.format(name=project.name, model=project.body.model, settings=lines))
    lost = ["checkpoints: the newest are kept, not the three best"]
    if project.asked.reasoning_effort != "default":
        lost.append("reasoning_effort has no counterpart")
    if any(row.get("tools") for row in (*project.train, *project.valid)):
        lost.append("tools of rows are left out: tools are Python functions, the same for all rows, there")
    if project.job.response_format is not None:
        lost.append("response_format is only graded, not enforced")
    return lost
