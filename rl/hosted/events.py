"""What happens to a job, told once: an event's identity is its cause, so that no kill loses or doubles one."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from rl.hosted.store import Event, Level, now


def event(
    job: str,
    message: str,
    *,
    cause: str | None = None,
    level: Level = "info",
    metrics: Mapping[str, Any] | None = None,
) -> Event:
    """An event of a job.

    Args:
        cause: what happened, as "step/3": the same cause is the same event, which the store keeps once. None for what
            is kept together with the change that it tells of.
        metrics: of a step; without any it is a message.
    """
    cause = cause or f"change/{uuid.uuid4().hex}"
    return Event(
        id=f"ftevent-{hashlib.sha256(f'{job}/{cause}'.encode()).hexdigest()[:24]}",
        job=job,
        cause=cause,
        created_at=now(),
        level=level,
        message=message,
        type="message" if metrics is None else "metrics",
        data=metrics,
    )
