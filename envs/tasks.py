"""Tasks from files, from the Hub and from rows of hosted fine-tuning; and splits that can't overlap.

A row is an object with `messages` (as hosted RFT has it) or `prompt` (a text, or messages). The whole
row becomes the task's `item`, which graders read and the model never sees. `id` names the task, or
else a hash of its content does; `files` is what the environment starts with, text by path.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from envs.errors import InputError, reasons
from envs.types import Message, Task, ToolCall, content_id

READERS = (".jsonl", ".parquet")


class _Text(BaseModel):
    type: Literal["text", "input_text"]
    text: str


class _Function(BaseModel):
    name: str
    arguments: str = "{}"


class _Call(BaseModel):
    id: str
    function: _Function


class _Message(BaseModel):
    """A message of the chat APIs. Keys that say nothing to a model (name, weight, refusal) are passed over."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | list[_Text] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None

    def record(self) -> Message:
        content = self.content or ""
        calls = (ToolCall(id=c.id, name=c.function.name, arguments=c.function.arguments) for c in self.tool_calls or ())
        return Message(
            role="system" if self.role == "developer" else self.role,  # open models know no developer
            content=content if isinstance(content, str) else "".join(part.text for part in content),
            tool_calls=tuple(calls),
            tool_call_id=self.tool_call_id,
        )


_MESSAGES = TypeAdapter(Annotated[list[_Message], Field(min_length=1)])
_FILES = TypeAdapter(dict[str, str])
_ID: TypeAdapter[str | int] = TypeAdapter(Annotated[str, Field(min_length=1)] | int)


def load(source: str | Path, *, split: str = "train", prompt: str = "prompt", system: str | None = None) -> list[Task]:
    """The tasks of a `.jsonl` or `.parquet` file, or of a data set on the Hub named `hub:owner/name`.

    Args:
        source: the file, or the data set.
        split: of a data set on the Hub; a file is one split.
        prompt: the column that holds the prompt, in rows without `messages`.
        system: a system message to put before prompts that have none.

    Raises:
        InputError: the file is missing or empty, a line or row can't be used (named by file and line),
            or two tasks have one id.
    """
    source = str(source)
    if source.startswith("hub:"):
        rows, unit = _hub_rows(source.removeprefix("hub:"), split), "row"
    elif source.endswith(".jsonl"):
        rows, unit = jsonl_rows(Path(source)), "line"
    elif source.endswith(".parquet"):
        rows, unit = _parquet_rows(Path(source)), "row"
    else:
        raise InputError(f"{source}: tasks come from {' or '.join(READERS)} files, or from hub:owner/name")
    return collect(((f"{source}, {unit} {n}", row) for n, row in rows), source, prompt=prompt, system=system)


def collect(
    rows: Iterable[tuple[str, Any]], source: str, *, prompt: str = "prompt", system: str | None = None
) -> list[Task]:
    """Tasks of rows, each with the place it came from, for messages.

    Raises:
        InputError: no rows, a row that can't be used, or two tasks with one id.
    """
    tasks: dict[str, Task] = {}
    places: dict[str, str] = {}
    for where, row in rows:
        task = from_row(row, where, prompt=prompt, system=system)
        if task.id in tasks:
            said = "has the id" if "id" in row else "is the same task as"
            rest = f"{task.id!r} of {places[task.id]}" if "id" in row else places[task.id]
            raise InputError(f"{where} {said} {rest}; remove one, or give each an id of its own")
        tasks[task.id], places[task.id] = task, where
    if not tasks:
        raise InputError(f"{source} holds no tasks")
    return list(tasks.values())


def from_row(row: Any, where: str, *, prompt: str = "prompt", system: str | None = None) -> Task:
    """One task of one row.

    Raises:
        InputError: the row is no object, has no prompt, or has a prompt no model can be given.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected an object, found {type(row).__name__}")
    messages = _prompt(row, where, prompt)
    if system is not None and messages[0].role != "system":
        messages = (Message(role="system", content=system), *messages)
    files = _valid(_FILES, row.get("files") or {}, f"{where}: files")
    return Task(id=_id(row, where, messages), prompt=messages, item=dict(row), files=files)


def _id(row: Mapping[str, Any], where: str, messages: tuple[Message, ...]) -> str:
    given = row.get("id")
    if given is None:
        try:
            return content_id(messages, row)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return str(_valid(_ID, given, f"{where}: id"))


def _prompt(row: Mapping[str, Any], where: str, column: str) -> tuple[Message, ...]:
    key = "messages" if row.get("messages") is not None else column
    said = row.get(key)
    if said is None:
        raise InputError(
            f"{where}: no prompt; a row needs 'messages' or {column!r}, this one has {', '.join(row) or 'nothing'}"
        )
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    messages = messages_of(said, f"{where}: {key}")
    if messages[-1].role not in ("user", "tool"):
        raise InputError(f"{where}: {key} ends with the {messages[-1].role}; the last word must be the user's")
    if not any(message.content.strip() for message in messages):
        raise InputError(f"{where}: {key} is empty; a task needs a prompt")
    return messages


def messages_of(said: Any, where: str) -> tuple[Message, ...]:
    """A conversation in the shape of the chat APIs as messages; `developer` becomes `system`.

    Raises:
        InputError: something in it is no message, or no text.
    """
    return tuple(message.record() for message in _valid(_MESSAGES, said, where))


def _valid(adapter: TypeAdapter[Any], value: Any, where: str) -> Any:
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise InputError(f"{where}: {reasons(error)}") from error


def jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers from 1, and what each line holds; blank lines are passed over.

    Raises:
        InputError: the file can't be read, or a line is not JSON.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    row = json.loads(text, parse_constant=_no_constant) if text else None
                    if "\\u" in text:  # half of a surrogate pair is valid JSON that no tokenizer takes
                        json.dumps(row, ensure_ascii=False).encode()
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}, line {number}: not JSON ({error})") from error
                if text:
                    yield number, row
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name a file that can be read") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(f"{path}: parquet needs pyarrow; run: pip install pyarrow") from error
    try:
        with path.open("rb") as file:
            rows = (row for batch in parquet.ParquetFile(file).iter_batches() for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name a file that can be read") from error
    except ArrowInvalid as error:
        raise InputError(f"{path}: not a parquet file ({error})") from error


def _hub_rows(name: str, split: str) -> Iterator[tuple[int, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"hub:{name} needs the datasets library; run: pip install datasets") from error
    try:
        data = datasets.load_dataset(name, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"hub:{name}, split {split!r}: can't be loaded ({error})") from error
    yield from enumerate(data, 1)


def split_of(id: str, shares: Mapping[str, float]) -> str:
    """Which split a task is in: by a hash of its id, so it stays there whatever tasks come or go.

    Args:
        id: the task's.
        shares: what part of all tasks each split gets; they sum to 1.

    Raises:
        InputError: the shares are negative or do not sum to 1.
    """
    if any(share < 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1):
        raise InputError(f"the shares of splits must be 0 or more and sum to 1, not {dict(shares)}")
    point = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8]) / 2**64
    for name, share in shares.items():
        point -= share
        if point < 0:
            return name
    return next(name for name in reversed(list(shares)) if shares[name])  # rounding left a crumb


def split(tasks: Iterable[Task], shares: Mapping[str, float]) -> dict[str, list[Task]]:
    """Tasks by split, disjoint and in their order; every split is there, if need be empty.

    Example: `split(tasks, {"train": 0.9, "validation": 0.1})`.

    Raises:
        InputError: the shares are negative or do not sum to 1.
    """
    found: dict[str, list[Task]] = {name: [] for name in shares}
    for task in tasks:
        found[split_of(task.id, shares)].append(task)
    return found


def check_disjoint(splits: Mapping[str, Sequence[Task]]) -> None:
    """Refuse splits that share a task, by id or by prompt: what was trained on can't be tested on.

    Raises:
        InputError: with both splits and the task.
    """
    seen: dict[Any, tuple[str, str]] = {}
    for name, tasks in splits.items():
        for task in tasks:
            for key in (task.id, task.prompt):
                other, id = seen.setdefault(key, (name, task.id))
                if other != name:
                    raise InputError(f"task {task.id!r} of {name} is also in {other} (as {id!r}); remove it from one")
