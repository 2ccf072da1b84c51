"""The sandboxes of an event loop, shared by whatever runs code in it: environments and graders.

A run says at its start which it wants, and opens them, so that a machine where none holds is refused before anything is
played. Where nobody did, who needs one first opens them. They end with the event loop.

    share(settings)
    async with (await shared()).episode(files) as sandbox:
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from weakref import WeakKeyDictionary

from envs.sandbox.pool import Sandboxes
from envs.sandbox.settings import SandboxSettings

_USUAL: WeakKeyDictionary[asyncio.AbstractEventLoop, SandboxSettings] = WeakKeyDictionary()
_OPENED: dict[tuple[asyncio.AbstractEventLoop, SandboxSettings], _Opened] = {}


def share(settings: SandboxSettings) -> None:
    """Settle which sandboxes `shared` gives to the running event loop; the best that hold here unless it is said."""
    _USUAL[asyncio.get_running_loop()] = settings


async def shared(settings: SandboxSettings | None = None) -> Sandboxes:
    """The sandboxes of the running event loop, opened when they are first asked for.

    They are closed when the loop ends its generators, as `asyncio.run` and `asyncio.Runner` have it do.

    Args:
        settings: others than the usual ones, for who needs an interpreter of its own.

    Raises:
        InputError: no tier holds here, or not the one that was asked for; the message says what to install.
        InfraError: the machinery failed; the next call tries again.
    """
    loop = asyncio.get_running_loop()
    key = loop, settings or _USUAL.get(loop) or SandboxSettings()
    if key not in _OPENED:
        _OPENED[key] = _Opened(key)
    return await asyncio.shield(_OPENED[key].opening)


class _Opened:
    """Sandboxes from when they are asked for to the end of their event loop."""

    def __init__(self, key: tuple[asyncio.AbstractEventLoop, SandboxSettings]) -> None:
        self._life = _live(key)  # held here, or it would be collected, and they closed
        self.opening = asyncio.ensure_future(anext(self._life))


async def _live(key: tuple[asyncio.AbstractEventLoop, SandboxSettings]) -> AsyncGenerator[Sandboxes]:
    try:
        async with Sandboxes(key[1]) as sandboxes:
            yield sandboxes
    finally:
        _OPENED.pop(key, None)
