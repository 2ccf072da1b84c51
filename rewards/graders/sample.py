"""What a grader sees of a model's output: `sample`, in the shape that hosted graders get it in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from pydantic_core import to_jsonable_python

from envs.errors import InputError
from envs.types import Completion, Episode, Message, ToolCall
from rewards.graders.errors import GradingError
from rewards.graders.settings import Settings

Sample = dict[str, Any]

_FINISH = {"stop": "stop", "length": "length", "context": "length"}


def of_text(text: str) -> Sample:
    """The sample of a bare text, as `graders/run` takes it: `output_json` is what it says if it is JSON."""
    return _sample(text, [], finish="stop")


def of_json(value: Any, where: str = "sample") -> Sample:
    """A sample given as an object: what it leaves out follows from the rest.

    Raises:
        InputError: it is neither a text nor an object with `output_text` or `choices`.
    """
    if isinstance(value, str):
        return of_text(value)
    if not isinstance(value, Mapping) or not ({"output_text", "choices"} & value.keys()):
        raise InputError(f"{where}: expected a text, or an object with 'output_text' or 'choices'")
    value = dict(_plain(value))
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = _object(_object(first).get("message"))
    text = value.get("output_text", message.get("content"))
    if text is not None and not isinstance(text, str):
        raise InputError(f"{where}: output_text: expected a text, found {type(text).__name__}")
    tools = value.get("output_tools", message.get("tool_calls")) or []
    if not isinstance(tools, list):
        raise InputError(f"{where}: output_tools: expected a list, found {type(tools).__name__}")
    return {**_sample(text or "", tools, finish="stop"), **value}


def of_episode(
    episode: Episode, tools: Literal["last_calls", "last_message", "all"] = "last_calls", *, trajectory: bool = True
) -> Sample:
    """The sample of an episode: its last message and its calls, and beyond the hosted one its whole `trajectory`.

    `trajectory` has `messages` (all, in chat-completions shape), `turns` (of each: `content`, `tool_calls`,
    `results` with `name`, `content`, `fault`, `seconds`), `stop`, `state`, `context` and `cost`.
    """
    last = episode.turns[-1].completion if episode.turns else None
    with_calls = [turn for turn in episode.turns if turn.completion.message.tool_calls]
    turns = {"last_calls": with_calls[-1:], "last_message": episode.turns[-1:], "all": with_calls}[tools]
    calls = [_call(call) for turn in turns for call in turn.completion.message.tool_calls]
    text = last.message.content if last else ""
    sample = _sample(_clean(text), _plain(calls), finish=_FINISH[last.finish] if last else "stop")
    return sample | {"trajectory": _trajectory(episode)} if trajectory else sample


def of_row(episode: Episode) -> dict[str, Any]:
    """`item` for an episode: the dataset row, with the prompt as `messages` where the row has none."""
    item: dict[str, Any] = _plain(dict(episode.task.item))
    return {"messages": [_message(message) for message in episode.task.prompt]} | item


def check_format(sample: Sample, settings: Settings) -> None:
    """Refuse a sample that is not what the job's response_format asks for.

    Raises:
        GradingError: sample_parse_error.
    """
    if settings.response_format is None:
        return
    if sample["output_json"] is None:
        raise GradingError(
            "sample_parse_error", "the output is not JSON, and response_format asks for it", blame="sample"
        )
    schema = settings.response_format.get("json_schema", {}).get("schema")
    if schema is None:
        return
    import jsonschema

    try:
        jsonschema.validate(sample["output_json"], schema)
    except jsonschema.ValidationError as error:
        raise GradingError("sample_parse_error", f"not of response_format: {error.message}", blame="sample") from error


def read_json(text: str) -> Any:
    """What a text says as JSON, or None if it is none. NaN and Infinity are no JSON."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _sample(text: str, tools: list[Any], *, finish: str) -> Sample:
    text = _clean(text)
    message = {"role": "assistant", "content": text, "tool_calls": tools}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if tools and not text else finish}],
        "output_text": text,
        "output_json": read_json(text),
        "output_tools": tools,
        "output_reasoning_summary": None,
    }


def _trajectory(episode: Episode) -> dict[str, Any]:
    turns = [_turn(turn.completion) | {"results": [_result(r) for r in turn.results]} for turn in episode.turns]
    plain: dict[str, Any] = _plain(
        {
            "messages": [_message(message) for message in episode.messages],
            "turns": turns,
            "stop": str(episode.stop) if episode.stop else None,
            "state": dict(episode.state),
            "context": dict(episode.context),
            "cost": episode.cost,
        }
    )
    return plain


def _turn(said: Completion) -> dict[str, Any]:
    return {"content": said.message.content, "tool_calls": [_call(call) for call in said.message.tool_calls]}


def _result(result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("name", "content", "fault", "seconds")}


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": _clean(message.content)}
    if message.tool_calls:
        body["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _plain(value: Any) -> Any:
    """JSON values alone, with texts that can be encoded: what a model wrote may hold half a surrogate pair."""
    text = json.dumps(to_jsonable_python(value, fallback=str, bytes_mode="base64", inf_nan_mode="constants"))
    return json.loads(text) if "\\ud" not in text.lower() else _cleaned(json.loads(text))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, list):
        return [_cleaned(part) for part in value]
    if isinstance(value, dict):
        return {_clean(key): _cleaned(part) for key, part in value.items()}
    return value


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
