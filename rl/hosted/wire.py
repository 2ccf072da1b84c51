"""JSON as it comes in and goes out: nothing that can't be written again, and no body larger than its path may have."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rl.hosted.rows import FILE_BYTES

MEGABYTE = 1 << 20
ENVELOPE = MEGABYTE
"""What a form may hold around its file."""
BODY_BYTES = 16 * MEGABYTE
"""Of any other request."""
DRAINED = 4
"""How many times its limit a body may have and still be read to its end before it is refused: a client that is cut
off while it sends never sees the answer."""


class Json(JSONResponse):
    """JSON in ASCII: a lone surrogate that came in goes out again."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class StrictRequest(Request):
    """A request whose JSON has finite numbers only: NaN is no JSON, and could be put into no answer."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            self._json = parsed(body)
        return self._json


class StrictRoute(APIRoute):
    """A route that reads `StrictRequest`s."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def parsed(body: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        json.JSONDecodeError: it is none, or has numbers that are not finite.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("not text in UTF-8", "", error.start) from None

    def refuse(name: str) -> NoReturn:
        raise json.JSONDecodeError(f"{name} is no number of JSON", text, max(text.find(name), 0))

    def finite(digits: str) -> float:
        number = float(digits)
        return number if math.isfinite(number) else refuse(digits)

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # an integer of more digits than Python reads
        raise json.JSONDecodeError(str(error), text, 0) from None


class BodyLimit:
    """Refuses bodies that are too large, in the hosted shape, without ever holding one."""

    def __init__(self, app: ASGIApp, *, file_bytes: int = FILE_BYTES, body_bytes: int = BODY_BYTES) -> None:
        self._app, self._file_bytes, self._body_bytes = app, file_bytes, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = scope["path"].rstrip("/") == "/v1/files"
        limit = self._file_bytes + ENVELOPE if upload else self._body_bytes
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        length = int(said) if said.isdigit() else 0
        if length > limit:
            if length <= limit * DRAINED:
                await _drain(receive, length)
            await self._refuse(upload, scope, receive, send)
            return
        await self._counted(scope, receive, send, limit, upload)

    async def _counted(self, scope: Scope, receive: Receive, send: Send, limit: int, upload: bool) -> None:
        """A body of unknown length (or a lie about it) is cut off where it is too long."""
        taken, over = 0, False

        async def counting() -> Message:
            nonlocal taken, over
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                over = True
                await _drain(receive, limit * DRAINED)
                return {"type": "http.disconnect"}
            return message

        async def sending(message: Message) -> None:
            if not over:
                await send(message)

        try:
            await self._app(scope, counting, sending)
        except ClientDisconnect:
            if not over:
                raise
        if over:
            await self._refuse(upload, scope, receive, send)

    async def _refuse(self, upload: bool, scope: Scope, receive: Receive, send: Send) -> None:
        if upload:
            what = (
                f"The file is larger than {self._file_bytes // MEGABYTE} MB, which is the limit of one file; split it"
            )
        else:
            what = f"The body of this request is larger than {self._body_bytes // MEGABYTE} MB"
        error = {"message": what, "type": "invalid_request_error", "param": None, "code": "request_too_large"}
        if upload:
            error |= {"param": "file", "code": "file_too_large"}
        await Json({"error": error}, status_code=413, headers={"connection": "close"})(scope, receive, send)


async def _drain(receive: Receive, most: int) -> None:
    """Read a body to its end and keep nothing; give up beyond `most` bytes."""
    taken = 0
    while taken <= most:
        message = await receive()
        taken += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
