"""A chat template as a function from messages to token ids, in which only the template writes control tokens.

Text from outside (users, tools, schemas) may contain `<|im_start|>` or `<tool_call>`. Wherever the
string of an added token occurs in it, a guard character is put after the first letter before the template sees
it; the rendering is then encoded guard by guard. Text without such strings is encoded exactly as
`apply_chat_template` would, and a template that trims or JSON-escapes what it is given does so as usual.

transformers has `sanitize_control_tokens` for the same danger. It knows only the tokens a template names, leaves
the keys of tool schemas, and encodes whole conversations; here the part behind a turn is needed alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from envs.tools import Signature, ToolSpec
from envs.types import Message, ToolCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Cut = Callable[[str], str]
"""Puts guards into text from outside."""
GUARD = "\ufdd0"
"""Parts what must not become one token. A code point that Unicode keeps for uses like this one."""
SLOT = "\ufdd1"
"""Stands where a call's arguments go, since templates would parse and rewrite the text itself."""


class Unfit(ValueError):
    """The template can't do what is asked of it; the message says what."""


class Template:
    """One tokenizer with one template.

    Raises:
        Unfit: the template does not render tool calls.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str, kwargs: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.source = source
        self.kwargs = dict(kwargs)
        # runs of blanks are added tokens in some vocabularies, but they control nothing
        added = {text: index for text, index in tokenizer.get_added_vocab().items() if len(text) > 1 and text.strip()}
        longest_first = "|".join(map(re.escape, sorted(added, key=len, reverse=True))) or r"(?!)"
        self.controls: dict[int, str] = {index: text for text, index in added.items()}
        self._control = re.compile(longest_first)
        self._start = re.compile(rf"(?s)(?={longest_first})(.)")
        self._heads: tuple[str, ...] = ()
        self._tails: tuple[str, ...] = ()
        self._arguments = self._arguments_style()
        self._find_seams()

    @property
    def verbatim(self) -> bool:
        """True if the template can write a call's arguments as the very text they are."""
        return self._arguments is not _as_items

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        reply: bool,
        cut: Cut | None = None,
    ) -> str:
        """The conversation as text with guards; with `reply`, up to where the model's turn begins.

        Raises:
            Unfit: the template refuses these messages.
        """
        from jinja2 import TemplateError  # comes with transformers, which playing against a server does not need

        cut = cut or self.guarded
        slots: list[str] = []
        rows = self._rows(messages, cut, slots)
        schemas = [_each_text(tool.schema, cut) for tool in tools] or None
        try:
            text = self.tokenizer.apply_chat_template(
                rows,
                tools=schemas,
                chat_template=self.source,
                add_generation_prompt=reply,
                tokenize=False,
                **self.kwargs,
            )
        except (TemplateError, TypeError) as error:
            raise Unfit(f"it fails with {type(error).__name__}: {error}") from error
        return _SLOT.sub(lambda match: slots[int(match[1])], str(text))

    def ids(self, rendered: Callable[[Cut], str]) -> list[int]:
        """The ids of what is rendered with a way to cut text from outside: the mildest that is safe.

        Raises:
            Unfit: none is.
        """
        for cut in (self.guarded, _apart):
            ids = self.encode(rendered(cut))
            if ids is not None:
                return ids
        raise Unfit("text from outside becomes control tokens, even letter by letter")

    def encode(self, text: str) -> list[int] | None:
        """The ids of guarded text, or None if a piece of text became a control token on the way."""
        ids: list[int] = []
        for piece in text.split(GUARD):
            if piece:
                ids += self.tokenizer.encode(piece, add_special_tokens=False)
        meant = sum(1 for _ in self._control.finditer(text))
        return ids if sum(index in self.controls for index in ids) == meant else None

    def guarded(self, text: str) -> str:
        """Text in which no control token is left whole."""
        text = self._start.sub(rf"\1{GUARD}", clean(text))
        return GUARD * text.startswith(self._heads) + text + GUARD * text.endswith(self._tails)

    def closed(self, text: str) -> str:
        """A rendering that ends in an assistant message, cut behind the token which closes it.

        Raises:
            Unfit: no control token closes it.
        """
        end = max((match.end() for match in self._control.finditer(text)), default=0)
        if not end or text[end:].strip():
            raise Unfit("an assistant message does not end in a token of its own")
        return text[:end]

    def _rows(self, messages: Sequence[Message], cut: Cut, slots: list[str]) -> list[dict[str, Any]]:
        names = {call.id: cut(call.name) for message in messages for call in message.tool_calls}
        rows = []
        for message in messages:
            row: dict[str, Any] = {"role": message.role, "content": cut(message.content)}
            if message.tool_call_id is not None:
                row |= {"tool_call_id": message.tool_call_id, "name": names.get(message.tool_call_id, "")}
            calls = []
            for call in message.tool_calls:
                function = {"name": names[call.id], "arguments": self._arguments(call.arguments, cut, slots)}
                calls.append({"type": "function", "id": call.id, "function": function})
            if calls:
                row["tool_calls"] = calls
            rows.append(row)
        return rows

    def _arguments_style(self) -> Callable[[str, Cut, list[str]], Any]:
        """Find the form in which the template takes arguments: the first one whose words come out."""
        call = ToolCall(id="call_0_0", name="probe_name", arguments='{"probe_key": "probe_value"}')
        messages = (Message(role="user", content="probe"), Message(role="assistant", tool_calls=(call,)))
        reason = ""
        for style in (_as_slot, _as_text_slot, _as_items):
            self._arguments = style
            try:
                text = self.render(messages, reply=False)
            except Unfit as error:
                reason = f": {error}"
                continue
            if all(word in text for word in ("probe_name", "probe_key", "probe_value")):
                return style
        raise Unfit(f"it does not render tool calls{reason}")

    def _find_seams(self) -> None:
        """Find the beginnings and ends of text that would make a control token with what the template puts around."""
        called = ToolCall(id="call_0_0", name=_WORD, arguments=json.dumps({_WORD: _WORD}))
        messages = (
            Message(role="user", content=_WORD),
            Message(role="assistant", tool_calls=(called,)),
            Message(role="tool", content=_WORD, tool_call_id="call_0_0"),
        )
        nothing = Signature(create_model(_WORD))
        spec = ToolSpec(name=_WORD, description=_WORD, arguments=nothing, timeout=1.0, method=clean)
        text = self.render(messages, [spec], reply=True)
        heads, tails = set[str](), set[str]()
        for word in re.finditer(_WORD, text):
            before, after = text[: word.start()], text[word.end() :]
            for control in self.controls.values():
                halves = [(control[:k], control[k:]) for k in range(1, len(control))]
                heads |= {end for start, end in halves if before.endswith(start)}
                tails |= {start for start, end in halves if after.startswith(end)}
        self._heads, self._tails = tuple(sorted(heads)), tuple(sorted(tails))


def clean(text: str) -> str:
    """Text that can be encoded: no lone surrogates, and none of our own marks."""
    return text.translate(_OURS).encode("utf-8", "replace").decode()


def _apart(text: str) -> str:
    """Every letter on its own: for normalizers that make control tokens of text that held none."""
    return GUARD.join(clean(text))


def _as_slot(arguments: str, cut: Cut, slots: list[str]) -> Any:
    slots.append(cut(arguments))
    return {SLOT: len(slots) - 1}


def _as_text_slot(arguments: str, cut: Cut, slots: list[str]) -> Any:
    return json.dumps(_as_slot(arguments, cut, slots), ensure_ascii=False)


def _as_items(arguments: str, cut: Cut, slots: list[str]) -> Any:
    try:
        items = json.loads(arguments)
    except ValueError:
        items = None
    if not isinstance(items, dict):
        raise Unfit(f"it can only write arguments that are a JSON object, not {arguments!r}")
    return _each_text(items, cut)


def _each_text(value: Any, cut: Cut) -> Any:
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, Mapping):
        return {cut(str(key)): _each_text(item, cut) for key, item in value.items()}
    return [_each_text(item, cut) for item in value] if isinstance(value, list | tuple) else value


_OURS = {ord(GUARD): "\ufffd", ord(SLOT): "\ufffd"}
_SLOT = re.compile(rf'\{{\s*"{SLOT}"\s*:\s*(\d+)\s*\}}')
_WORD = "probe_word"
