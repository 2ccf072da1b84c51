"""The server put together: what it knows, what it runs, and the paths by which it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI
from pydantic import BaseModel, ValidationError

from envs.errors import InputError, reasons
from rewards.graders import GraderPool, Judge, JudgeConfig, SandboxPool, Services, Settings, UnsafeSubprocess
from rewards.hosted import sandbox_settings
from rl.config import ChatConfig, EngineConfig
from rl.hosted import completions, errors, files, grading, jobs_api, models
from rl.hosted.base import ServedBase
from rl.hosted.files import Files
from rl.hosted.grading import Grading
from rl.hosted.guard import Guard
from rl.hosted.jobs import Jobs
from rl.hosted.local import Local
from rl.hosted.models import Models
from rl.hosted.places import Places
from rl.hosted.store import Store
from rl.hosted.voice import Voice
from rl.hosted.wire import BodyLimit, Json
from rl.hosted.worker import Worker
from rl.lock import Lock
from rl.machine import installed

Section = TypeVar("Section", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Everything that lives as long as the server does."""

    lock: Lock
    store: Store
    jobs: Jobs
    worker: Worker
    base: ServedBase
    voice: Voice
    grading: Grading

    @classmethod
    def open(cls, home: Path, local: Local) -> Server:
        """Open a home, which no other server may have open.

        Raises:
            InputError: another server has, the home can't be made, or something in the settings can't be used.
        """
        model = _one_base(local)
        engine, chat = _parsed(EngineConfig, local.engine, "engine"), _parsed(ChatConfig, local.chat, "chat")
        judge = Judge(JudgeConfig.read(local.judge)) if local.judge is not None else None
        places = Places.make(home)
        lock = Lock(places.home / ".lock")
        store = Store(places.store)
        kept = Files(places.files, store)
        base = ServedBase(model=model, section=local.tiny, places=places)
        known = Models(base=model, local=local, places=places, store=store)
        voice = Voice(engine=engine, chat=chat, lora=local.lora, base=base.ready)
        return cls(
            lock=lock,
            store=store,
            jobs=Jobs(store=store, files=kept, models=known, places=places, local=local),
            worker=Worker(
                store=store, files=kept, places=places, base=base, make_room=voice.make_room, done=voice.resume
            ),
            base=base,
            voice=voice,
            grading=Grading(services=Services(pool=_pool(local), judge=judge), settings=Settings.read(local.settings)),
        )

    async def close(self) -> None:
        """Stop what runs. A job that runs goes on when the server is started again."""
        await self.worker.close()
        await self.base.close()
        await self.voice.close()
        self.store.close()
        self.lock.close()


def make(server: Server, *, token: str | None = None) -> FastAPI:
    """The app. Its lifespan runs the jobs and, at the end, closes the server.

    Args:
        token: what requests must bear; None takes those of this machine without.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(server.worker.run())
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await server.close()

    app = FastAPI(
        title="LocalRFT",
        version=installed("localrft") or "unknown",
        lifespan=lifespan,
        default_response_class=Json,
        redirect_slashes=False,
    )
    errors.install(app)
    for router in (
        files.router(server.jobs.files, server.store),
        grading.router(server.grading),
        jobs_api.router(server.jobs),
        completions.router(server.jobs.models, server.voice),
        models.router(server.jobs.models),
    ):
        app.include_router(router)
    app.add_middleware(BodyLimit)
    app.add_middleware(Guard, token=token)
    return app


def _one_base(local: Local) -> str:
    """The model that all names of the settings stand for: there is one engine, and adapters belong to one base.

    Raises:
        InputError: there are several.
    """
    found = {base.model for base in local.models.values()}
    if len(found) != 1:
        raise InputError(f"models: one server has one base model, not {len(found)} ({', '.join(sorted(found))})")
    return found.pop()


def _pool(local: Local) -> GraderPool:
    if local.unsafe_python is not None:
        return UnsafeSubprocess(local.unsafe_python)
    return SandboxPool(sandbox_settings(local.sandbox))


def _parsed(kind: type[Section], tree: Mapping[str, Any], where: str) -> Section:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{where}: {reasons(error)}") from error
