"""The embedded policy as the base of all jobs: made once, in a process of its own, when it is first needed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rl import cli
from rl.engines import EngineError
from rl.hosted.child import Child
from rl.hosted.places import Places


@dataclass(slots=True, kw_only=True)
class ServedBase:
    """The model that all adapters belong to.

    Args:
        model: a directory, a name on the Hub, or "tiny".
        section: `tiny` of the local settings.
    """

    model: str
    section: Mapping[str, Any]
    places: Places
    _making: asyncio.Task[None] | None = field(default=None)
    _child: Child | None = None

    async def ready(self) -> str:
        """Where it is; makes it if it is the embedded policy and not there yet, which takes minutes.

        Raises:
            EngineError: it could not be made.
        """
        if self.model != "tiny":
            return self.model
        if not self.places.base.exists():
            if self._making is None or self._making.done():
                self._making = asyncio.create_task(self._make())
            await asyncio.shield(self._making)  # who stops waiting does not stop it for the others
        return str(self.places.base)

    async def close(self) -> None:
        """Stop making it. Idempotent."""
        child, self._child = self._child, None
        if child is not None:
            await child.end()

    async def _make(self) -> None:
        for left in self.places.home.glob(f".{self.places.base.name}.*"):
            shutil.rmtree(left)
        log = self.places.home / "base.txt"
        child = self._child = await Child.start(log, "base", str(self.places.base), json.dumps(dict(self.section)))
        code = await child.wait()
        self._child = None
        if code != cli.OK:
            raise EngineError(f"the embedded policy could not be made: {child.reason()}")
