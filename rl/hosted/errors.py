"""What goes wrong in a request, in the shape of the hosted service: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from envs.errors import InputError
from rl.hosted.refusal import Refused
from rl.hosted.wire import Json

log = logging.getLogger(__name__)

CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "unavailable",
}


class ApiError(Exception):
    """A request that gets no answer but this.

    Args:
        status: of HTTP.
        message: what is wrong and what to do about it.
        param: the field of the request that is meant.
        code: a word that programs can tell it by; the status has one where none is given.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or CODES[status]

    @property
    def type(self) -> str:
        """Whose it is: the request's or the server's."""
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        """The answer."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def missing(kind: str, id: str) -> ApiError:
    """There is nothing of this id."""
    return ApiError(404, f"No such {kind}: {id}", param="id", code="not_found")


def install(app: FastAPI) -> None:
    """Answer every failure of an app in the hosted shape."""

    def answer(error: ApiError) -> Json:
        return Json(error.body(), status_code=error.status)

    @app.exception_handler(ApiError)
    async def _api(_: Request, error: ApiError) -> Json:
        return answer(error)

    @app.exception_handler(InputError)
    async def _input(_: Request, error: InputError) -> Json:
        if isinstance(error, Refused):
            return answer(ApiError(400, error.message, param=error.param, code=error.code))
        return answer(ApiError(400, str(error)))

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> Json:
        return answer(_explained(error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Json:
        said = str(error.detail)
        if error.status_code in (404, 405):
            said = f"{said}: {request.method} {request.url.path}"
        code = CODES.get(error.status_code, "invalid_request")
        return answer(ApiError(error.status_code, said, code=code))

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Json:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(ApiError(500, "The server failed on this request; its log says how."))


def _explained(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong with a request, by the name of its field."""
    item = error.errors()[0]
    where = [str(part) for part in item["loc"] if part not in ("body", "query", "path")]
    if item["type"] == "json_invalid":
        return ApiError(400, f"The body is not JSON: {item['ctx']['error']} at character {where[-1]}")
    param = ".".join(where) or None
    if item["type"] == "missing":
        said = f"Missing required parameter: '{param}'." if param else "The request has no body; send JSON."
        return ApiError(400, said, param=param, code="missing_required_parameter")
    if item["type"] == "extra_forbidden":
        return ApiError(400, f"Unrecognized request argument: {param}", param=param, code="unknown_parameter")
    said = item["msg"].removeprefix("Value error, ")
    return ApiError(400, f"Invalid value for '{param}': {said}" if param else said, param=param, code="invalid_value")
