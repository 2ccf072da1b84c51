"""What a grader sees of a model's output: `sample`, in the shape that hosted graders get it in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn, TypeAlias

from pydantic_core import to_jsonable_python

from envs.errors import InputError
from envs.types import Completion, Episode, Message, ToolCall
from rewards.graders.errors import GradingError
from rewards.graders.settings import Settings

Sample = dict[str, Any]
Format: TypeAlias = Callable[[Any], str | None]
"""What is wrong with a JSON value; None if nothing is."""

DEPTH = 200
"""How deep the JSON that a model writes may nest."""

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
    try:
        value = dict(_plain(value))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no JSON value, or one that is nested too deeply ({error})") from error
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


def format_of(settings: Settings) -> Format | None:
    """What checks that a sample is what the job's response_format asks for; None where it asks for nothing.

    Raises:
        InputError: its schema is none, or the library that reads schemas is missing.
    """
    if settings.response_format is None:
        return None
    schema = settings.response_format.get("json_schema", {}).get("schema")
    if schema is None:
        return lambda value: None
    try:
        import jsonschema
    except ImportError as error:
        raise InputError("response_format needs jsonschema; run: pip install 'localrft[graders]'") from error
    kind = jsonschema.validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InputError(f"settings: response_format: not a JSON schema: {error.message}") from error
    validator = kind(schema)

    def check(value: Any) -> str | None:
        try:
            error = next(validator.iter_errors(value), None)
        except RecursionError:
            return "nested too deeply"
        return None if error is None else str(error.message)

    return check


def check_format(sample: Sample, format: Format | None) -> None:
    """Refuse a sample that is not of the format.

    Raises:
        GradingError: sample_parse_error.
    """
    if format is None:
        return
    value = sample["output_json"]
    wrong = "the output is not JSON" if value is None else format(value)
    if wrong is not None:
        raise GradingError("sample_parse_error", f"not what response_format asks for: {wrong}", blame="sample")


def read_json(text: str) -> Any:
    """What a text says as JSON, or None if it is none. NaN and Infinity are no JSON, and neither are deep nests."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    # What a model nests must not overflow the stack of whoever writes it down again.
    return None if text.count("[") + text.count("{") > DEPTH and _deeper(value, DEPTH) else value


def _deeper(value: Any, depth: int) -> bool:
    """Whether a value nests deeper than this; level by level, without recursion."""
    level = [value]
    for _ in range(depth):
        level = [
            inner for v in level if isinstance(v, (list, dict)) for inner in (v.values() if isinstance(v, dict) else v)
        ]
    return bool(level)


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
