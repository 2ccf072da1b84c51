"""A job that can't be done as it was asked for, in the vocabulary of hosted services."""

from __future__ import annotations

from typing import Any

from envs.errors import InputError

TYPE = "invalid_request_error"


class Refused(InputError):
    """Something in a job, or in a file it names, can't be used. The command line treats it as any bad input.

    Args:
        message: what is wrong and what to do about it.
        param: the field of the job it is about, dotted.
        code: which kind of mistake, for programs: "unknown_parameter", "invalid_value", "invalid_training_file" ...
    """

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code

    def error(self) -> dict[str, Any]:
        """The `error` of an HTTP answer, or of a job that failed for it."""
        return {"message": self.message, "type": TYPE, "param": self.param, "code": self.code}
