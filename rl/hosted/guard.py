"""Who may ask: whoever has the token; without one, programs on this machine, and no web page that is open on it."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rl.hosted.errors import ApiError
from rl.hosted.wire import Json

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Answers 401 to a wrong token, 403 to a web page of another place.

    A page in a browser on this machine can send requests to it, and a name server can make any name lead here; both
    show in the headers.

    Args:
        token: what `Authorization: Bearer` must hold; None lets everybody on this machine in.
    """

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._refusal(Headers(scope=scope))) is not None:
            await Json(error.body(), status_code=error.status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> ApiError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return ApiError(403, f"Requests of pages of {origin[:200]} are not answered")
        if self._token is None:
            if _name(host) not in LOOPBACK:
                return ApiError(403, f"This server is not {host[:200]}; ask it by localhost or 127.0.0.1")
            return None
        given = headers.get("authorization", "")
        if not given:
            return ApiError(401, "You didn't provide an API key: send it as Authorization: Bearer KEY")
        scheme, _, key = given.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self._token.encode()):
            return ApiError(401, "Incorrect API key provided; it is the token that rft serve was started with")
        return None


def _name(host: str) -> str:
    """The host without its port; empty if it is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
