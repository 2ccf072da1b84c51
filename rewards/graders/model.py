"""score_model and label_model: what is asked of a judge, and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewards.graders.errors import GradingError
from rewards.graders.judge import Answer, Judge, JudgeError
from rewards.graders.sample import read_json
from rewards.graders.spec import InputAudio, InputImage, InputText, Judged, JudgeMessage, LabelModel, ScoreModel

_STEPS = {
    "type": "array",
    "description": "The reasoning, a step at a time.",
    "items": {
        "type": "object",
        "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
        "required": ["description", "conclusion"],
        "additionalProperties": False,
    },
}


def score_schema() -> dict[str, Any]:
    """What a score_model answers in: `steps`, then `result`, a number."""
    return _schema("float_score_classification", {"type": "number"})


def label_schema(labels: Sequence[str]) -> dict[str, Any]:
    """What a label_model answers in: `steps`, then `result`, one of the labels."""
    return _schema("label_classification", {"type": "string", "enum": list(labels)})


async def ask(judge: Judge, grader: Judged, texts: Mapping[str, str]) -> Answer:
    """The judge's answer to a grader's messages, with the texts that its templates became.

    Raises:
        GradingError: it can't be reached: the machinery's.
    """
    schema = label_schema(grader.labels) if isinstance(grader, LabelModel) else score_schema()
    messages = [_message(message, i, texts) for i, message in enumerate(grader.input)]
    try:
        return await judge.ask(grader.model, messages, schema, **_params(grader))
    except JudgeError as error:
        raise GradingError("model_grader_server_error", str(error), blame="machinery") from error


def read(grader: ScoreModel | LabelModel, answer: Answer) -> float:
    """What a judge's answer comes to: a number cut off at the ends of the range, or 1 for a passing label.

    Raises:
        GradingError: it refuses, ran into its token limit, or holds no result.
    """
    if answer.refusal is not None:
        raise GradingError("model_grader_refusal_error", answer.refusal, blame="sample")
    if answer.cut_off:
        said = "the judge ran into its token limit before it came to a result"
        raise GradingError("model_grader_exceeded_max_tokens_error", said, blame="sample")
    result = _result(answer)
    return _score(grader, result) if isinstance(grader, ScoreModel) else _label(grader, result)


def _score(grader: ScoreModel, result: Any) -> float:
    if isinstance(result, bool) or not isinstance(result, (int, float)):
        raise _unreadable(f"result is no number: {result!r}")
    low, high = grader.limits
    return float(min(max(result, low), high))


def _label(grader: LabelModel, result: Any) -> float:
    if not isinstance(result, str) or result not in grader.labels:
        raise _unreadable(f"result is none of the labels: {result!r}")
    return float(result in grader.passing_labels)


def _result(answer: Answer) -> Any:
    tree = read_json(answer.text)
    if not isinstance(tree, Mapping) or "result" not in tree:
        raise _unreadable(f"expected an object with steps and result, found {answer.text[:200]!r}")
    return tree["result"]


def _unreadable(said: str) -> GradingError:
    return GradingError("model_grader_parse_error", said, blame="sample")


def _schema(name: str, result: dict[str, Any]) -> dict[str, Any]:
    properties = {"steps": _STEPS, "result": result}
    body = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"name": name, "strict": True, "schema": body}


def _params(grader: Judged) -> dict[str, Any]:
    params = grader.sampling_params.model_dump(exclude_none=True)
    if "max_completions_tokens" in params:
        params["max_completion_tokens"] = params.pop("max_completions_tokens")
    return params


def _message(message: JudgeMessage, i: int, texts: Mapping[str, str]) -> dict[str, Any]:
    # Open models know no developer, and the service treats the two alike.
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": texts[f"input.{i}.0"]}
    return {"role": role, "content": [_part(part, texts[f"input.{i}.{j}"]) for j, part in enumerate(message.parts)]}


def _part(part: InputText | InputImage | InputAudio, text: str) -> dict[str, Any]:
    match part:
        case InputText():
            return {"type": "text", "text": text}
        case InputImage():
            return {"type": "image_url", "image_url": {"url": text} | ({"detail": part.detail} if part.detail else {})}
        case InputAudio():
            return {"type": "input_audio", "input_audio": {"data": text, "format": part.input_audio.format}}
