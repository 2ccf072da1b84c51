"""What can go wrong in grading, in the vocabulary of the hosted `graders/run`, and whose fault each is.

Whose fault it is decides what becomes of the episode. What a policy can provoke scores the configured
`error_score`, or failing the grader on purpose would be a way out of a bad score. What the row lacks and
what the machinery broke leaves the episode unscored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Blame = Literal["sample", "row", "machinery"]
"""Whose fault: the model's output, the dataset row's, or ours and our servers'."""

FLAGS = (
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
    "model_grader_exceeded_max_tokens_error",
    "endpoint_grader_internal_error",
    "endpoint_grader_server_error",
    "endpoint_grader_safety_check_error",
)
"""The boolean keys of `metadata.errors`."""

DETAILS = {
    "formula_parse_error": "formula_parse_error_details",
    "sample_parse_error": "sample_parse_error_details",
    "invalid_variable_error": "invalid_variable_error_details",
    "other_error": "other_error_details",
    "python_grader_server_error": "python_grader_server_error_type",
    "python_grader_runtime_error": "python_grader_runtime_error_details",
    "model_grader_server_error": "model_grader_server_error_details",
    "model_grader_refusal_error": "model_grader_refusal_error_details",
    "model_grader_parse_error": "model_grader_parse_error_details",
    "model_grader_exceeded_max_tokens_error": "model_grader_parse_error_details",
    "endpoint_grader_internal_error": "endpoint_grader_internal_error_details",
    "endpoint_grader_server_error": "endpoint_grader_server_error_details",
}
"""Flag -> the key that says more. `formula_parse_error_details` and `other_error_details` are ours alone."""


class GradingError(Exception):
    """A sample could not be graded. Says which flag of `metadata.errors` it raises, and whose fault it is."""

    def __init__(self, flag: str, said: str, *, blame: Blame) -> None:
        super().__init__(said)
        self.flag, self.said, self.blame = flag, said, blame
        self.usage: Mapping[str, Mapping[str, int]] = {}
        """Model -> tokens that were used all the same."""

    def __str__(self) -> str:
        return f"{self.flag}: {self.said}"


def as_errors(errors: tuple[GradingError, ...]) -> dict[str, bool | str | None]:
    """`metadata.errors`: every key there is, with what went wrong in the grader or below it.

    Of several errors with one flag the first says more.
    """
    found: dict[str, bool | str | None] = dict.fromkeys(FLAGS, False) | dict.fromkeys(DETAILS.values())
    for error in errors:
        found[error.flag] = True
        key = DETAILS[error.flag]
        found[key] = found[key] or error.said
    return found
