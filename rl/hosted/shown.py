"""Jobs, events and checkpoints as the service describes them; the official client's models read them."""

from __future__ import annotations

from typing import Any

from rl.hosted.models import ORGANIZATION
from rl.hosted.store import Checkpoint, Event, Job


def job(found: Job) -> dict[str, Any]:
    """`fine_tuning.job`."""
    method = found.method
    body = found.body
    return {
        "id": found.id,
        "object": "fine_tuning.job",
        "model": found.model,
        "created_at": found.created_at,
        "finished_at": found.finished_at,
        "fine_tuned_model": found.fine_tuned_model if found.status == "succeeded" else None,
        "organization_id": ORGANIZATION,
        "result_files": list(found.result_files),
        "status": found.status,
        "training_file": body["training_file"],
        "validation_file": body.get("validation_file"),
        "hyperparameters": dict(method[method["type"]]["hyperparameters"]),
        "method": method,
        "trained_tokens": found.trained_tokens,
        "error": found.error,
        "seed": found.seed,
        "estimated_finish": None,
        "integrations": body.get("integrations") or [],
        "metadata": body.get("metadata"),
        "user_provided_suffix": body.get("suffix"),
        "usage_metrics": None,
        "shared_with_openai": False,
        "eval_id": None,
    }


def event(found: Event) -> dict[str, Any]:
    """`fine_tuning.job.event`."""
    return {
        "id": found.id,
        "object": "fine_tuning.job.event",
        "created_at": found.created_at,
        "level": found.level,
        "message": found.message,
        "type": found.type,
        "data": found.data,
    }


def checkpoint(found: Checkpoint) -> dict[str, Any]:
    """`fine_tuning.job.checkpoint`; its metrics are those of the step's event besides."""
    return {
        "id": found.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": found.created_at,
        "fine_tuned_model_checkpoint": found.model,
        "fine_tuning_job_id": found.job,
        "metrics": found.metrics,
        "step_number": found.step,
    }
