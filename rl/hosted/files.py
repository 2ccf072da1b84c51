"""Files: bytes on disk below an id, a row in the store; `/v1/files`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import FileResponse

from rl.hosted.errors import ApiError, missing
from rl.hosted.rows import FILE_BYTES
from rl.hosted.store import File, Store, new_id, now
from rl.hosted.wire import MEGABYTE, StrictRoute
from rl.whole import needs_space, sync

RESULTS = "fine-tune-results"
NAME_CHARACTERS = 255
Purpose = Literal["fine-tune"]


class Files:
    """The files of a server: whole and on disk once there is a row, gone once there is none."""

    def __init__(self, directory: Path, store: Store) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._store = directory, store
        self._sweep()

    def path(self, id: str) -> Path:
        """Where the bytes of a file lie. `id` is one of the store's, never a name that a client gave."""
        return self._directory / id

    def get(self, id: str) -> File:
        """The file of this id.

        Raises:
            ApiError: 404, there is none.
        """
        file = self._store.get(File, id)
        if file is None:
            raise missing("File object", id)
        return file

    def add(self, content: IO[bytes], *, filename: str, purpose: str, id: str | None = None) -> File:
        """Keep what `content` holds; after this returns it survives a kill.

        Args:
            filename: what it is called; nothing on the disk is.
            id: what it is known by, a new one unless given; the store keeps the first file of an id.

        Raises:
            ApiError: 413, it is longer than a file may be.
            InputError: no space left.
        """
        id = id or new_id("file")
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".incoming-", delete=False) as draft:
            try:
                with needs_space(self._directory):
                    shutil.copyfileobj(content, draft, MEGABYTE)
                    draft.flush()
                    os.fsync(draft.fileno())
                size = draft.tell()
                if size > FILE_BYTES:
                    raise ApiError(
                        413,
                        f"The file has {size:,} bytes, more than the {FILE_BYTES // MEGABYTE} MB of one file; split it",
                        param="file",
                        code="file_too_large",
                    )
                os.replace(draft.name, self.path(id))
            except BaseException:
                Path(draft.name).unlink(missing_ok=True)
                raise
        sync(self._directory)
        file = File(id=id, created_at=now(), bytes=size, filename=_shown(filename), purpose=purpose)
        self._store.add(file)
        return file

    def remove(self, id: str) -> None:
        """Forget a file, and its bytes.

        Raises:
            ApiError: 404, there is none; 400, a job that has not ended needs it.
        """
        self.get(id)
        for job in self._store.jobs_in("validating_files", "queued", "running", "paused"):
            if id in (job.body.get("training_file"), job.body.get("validation_file")):
                raise ApiError(
                    400, f"File {id} is in use by job {job.id}, which has not ended; cancel that first", param="id"
                )
        self._store.remove(File, id)
        self.path(id).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed server left: bytes without a row."""
        known = {file.id for file in self._store.all(File)}
        for path in self._directory.iterdir():
            if path.name not in known:
                path.unlink()


def as_json(file: File) -> dict[str, Any]:
    """A file as the service describes it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }


def router(files: Files, store: Store) -> APIRouter:
    """`/v1/files`."""
    api = APIRouter(prefix="/v1/files", route_class=StrictRoute, tags=["files"])

    @api.post("")
    def upload(file: UploadFile, purpose: Annotated[Purpose, Form()]) -> dict[str, Any]:
        """Keep a file."""
        return as_json(files.add(file.file, filename=file.filename or "file", purpose=purpose))

    @api.get("")
    def listed(
        purpose: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        """The files there are, newest first."""
        equal = {} if purpose is None else {"purpose": purpose}
        found = store.page(File, after=after, limit=limit + 1, newest_first=order == "desc", **equal)
        if found is None:
            raise ApiError(400, f"There is no file {after!r} to go on after", param="after")
        return page([as_json(file) for file in found], limit)

    @api.get("/{file_id}")
    def retrieved(file_id: str) -> dict[str, Any]:
        """One file."""
        return as_json(files.get(file_id))

    @api.get("/{file_id}/content", response_class=FileResponse)
    def content(file_id: str) -> FileResponse:
        """What it holds."""
        file = files.get(file_id)
        return FileResponse(files.path(file.id), media_type="application/octet-stream")

    @api.delete("/{file_id}")
    def deleted(file_id: str) -> dict[str, Any]:
        """Forget it."""
        files.remove(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    return api


def page(found: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """One page of a list, of which up to one more than `limit` was asked for."""
    shown = found[:limit]
    return {
        "object": "list",
        "data": shown,
        "has_more": len(found) > limit,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


def _shown(name: str) -> str:
    """A client's name for a file as it is given back: its last part, without what can't be printed or encoded."""
    last = name.replace("\\", "/").rpartition("/")[2]
    clean = "".join(letter for letter in last if letter.isprintable()).encode("utf-8", "ignore").decode()
    return clean[:NAME_CHARACTERS] or "file"
