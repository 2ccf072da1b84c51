"""The models there are, by name: the base by all its names, and what jobs have made of it; `/v1/models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter

from envs.errors import unknown
from rl.config import ADAPTER
from rl.hosted.errors import ApiError
from rl.hosted.local import Local
from rl.hosted.places import Places
from rl.hosted.store import Checkpoint, Job, Store, now
from rl.hosted.wire import StrictRoute

ORGANIZATION = "org-local"
"""Whose everything is: there is one user."""


class Models:
    """Names of models and what they stand for.

    Args:
        base: the model on this machine that all adapters belong to.
        local: what clients call it, or an adapter of it that was made elsewhere.
    """

    def __init__(self, base: str, local: Local, places: Places, store: Store) -> None:
        self.base = base
        self._given = {name: one.adapter for name, one in local.models.items()}
        self._places, self._store = places, store
        self._started = now()

    def adapter(self, name: str) -> Path | None:
        """Where the adapter of a model lies; None is the base itself.

        Raises:
            ApiError: 404, there is no such model.
        """
        if name in self._given:
            return self._given[name]
        for checkpoint in self._store.all(Checkpoint, model=name):
            return self._places.checkpoint(checkpoint.job, checkpoint.step)
        for job in self._store.all(Job, fine_tuned_model=name, status="succeeded"):
            return self._places.run(job.id) / ADAPTER
        raise ApiError(404, self._said(name), param="model", code="model_not_found")

    def listed(self) -> list[dict[str, Any]]:
        """All of them, the newest first and the base last."""
        made = [(one.model, one.created_at) for one in self._store.all(Checkpoint)]
        made += [(str(one.fine_tuned_model), one.finished_at or one.created_at) for one in self._tuned()]
        newest = sorted(made, key=lambda one: -one[1])
        return [_model(name, at) for name, at in newest] + [_model(name, self._started) for name in self._given]

    def _tuned(self) -> list[Job]:
        return self._store.all(Job, status="succeeded")

    def _said(self, name: str) -> str:
        known = [model["id"] for model in self.listed()]
        return f"The model {name[:200]!r} does not exist: {unknown('model', name[:200], known)}"


def router(models: Models) -> APIRouter:
    """`/v1/models`."""
    api = APIRouter(prefix="/v1/models", route_class=StrictRoute, tags=["models"])

    @api.get("")
    def listed() -> dict[str, Any]:
        """The models there are."""
        return {"object": "list", "data": models.listed()}

    @api.get("/{model:path}")
    def retrieved(model: str) -> dict[str, Any]:
        """One model."""
        models.adapter(model)
        return next(one for one in models.listed() if one["id"] == model)

    return api


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": ORGANIZATION}
