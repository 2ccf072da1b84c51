"""Messages <-> tokens: the only file that knows both.

What the model sampled is what is trained on. A turn's prompt is the previous prompt, the sampled ids, and
the ids of the tool results; nothing sampled is ever decoded and encoded again. `Chat` proves at
construction that a model's template can be extended this way, and refuses it by name when it can't.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.environment import ToolSpec
from envs.errors import InputError
from envs.types import Completion, Message, ToolCall, ToolResult
from rl.dialects import DIALECTS, Mark, Said, as_json, without_reasoning
from rl.template import GUARD, Cut, Template, Unfit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

STOPS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|return|>", "<|call|>")
"""Tokens that end a turn in every vocabulary that has them, whether or not a template writes them."""


class Chat:
    """One model's conversations as token ids.

    Args:
        tokenizer: a transformers tokenizer.
        template: a chat template to use in place of the tokenizer's own.
        template_kwargs: passed to the template each time, as in `{"enable_thinking": False}`.
        eos: more ids that end a turn, as a generation config lists them.
        today: the date that templates which tell it will tell, for as long as this object lives.

    Raises:
        InputError: there is no chat template, or it can't be extended turn by turn.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        eos: Sequence[int] = (),
        today: date | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.name = str(tokenizer.name_or_path or "this tokenizer")
        source = template or _own_template(tokenizer)
        if not source:
            raise InputError(
                f"{self.name} has no chat template: use the model's instruction-tuned version, "
                f"or give a template in Jinja of your own"
            )
        self._today = today or date.today()
        self._eos = [index for index in (tokenizer.eos_token_id, *eos) if index is not None]
        try:
            self._adopt(source, template_kwargs or {})
        except Unfit as reason:
            variant = _training_template(source)
            if variant is None:
                raise InputError(_refusal(self.name, reason)) from reason
            try:
                self._adopt(variant, template_kwargs or {})
            except Unfit as second:
                raise InputError(_refusal(self.name, second)) from second
            log.warning("%s: its own chat template can't be extended (%s); using TRL's variant", self.name, reason)

    @property
    def template(self) -> str:
        """The template in use, in Jinja: the model's own, or the variant that can be extended."""
        return self._template.source

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> list[int]:
        """The ids of a conversation up to where the model's turn begins.

        Raises:
            InputError: the template refuses these messages.
        """
        try:
            return list(self._prompt(tuple(messages), tuple(tools)))
        except Unfit as error:
            raise InputError(f"{self.name}: its chat template can't render this conversation: {error}") from error

    def extend(self, ids: Sequence[int], completion: Completion, results: Sequence[ToolResult]) -> list[int]:
        """The next turn's prompt: `ids` (prompt and sampled), the results' ids, and the model's turn begun.

        Raises:
            ValueError: the turn has no end-of-turn token, so nothing can follow it, or there are no results.
        """
        if not ids or ids[-1] not in self.stop_ids:
            raise ValueError(f"a turn that did not end in a stop token can't be extended (finish={completion.finish})")
        if not results:
            raise ValueError("a turn without tool results has nothing to be extended by")
        return [*ids, *self._suffix_ids(results)]

    def parse(self, token_ids: Sequence[int], tools: Sequence[ToolSpec] = (), *, turn: int = 0) -> Message:
        """Sampled ids as an assistant message; `arguments` exactly as the model wrote them.

        Never raises on what a model wrote: a malformed call is a call the environment will fault.
        Reasoning is left out of `content`. Calls get the ids `call_{turn}_{k}`. `tools` serve families
        that write arguments without types, where only the schema tells the number 7 from the text "7".
        """
        said = self._dialect(without_reasoning(self._pieces(token_ids), thinking=self._thinking))
        schemas = {tool.name: tool.parameters for tool in tools}
        calls = []
        for k, (name, written) in enumerate(said.calls):
            arguments = written if isinstance(written, str) else as_json(written, schemas.get(name, {}))
            calls.append(ToolCall(id=f"call_{turn}_{k}", name=name, arguments=arguments))
        return Message(role="assistant", content=said.content, tool_calls=tuple(calls))

    def write(self, message: Message, tools: Sequence[ToolSpec] = ()) -> list[int]:
        """An assistant message as the model would sample it, stop token included.

        Raises:
            ValueError: the template can't say this, or it would be read back as something else.
        """
        try:
            ids = self._reply_ids(message)
        except Unfit as error:
            raise ValueError(f"{self.name} can't write this message: {error}") from error
        if not self._same(self.parse(ids, tools), message):
            raise ValueError(f"{self.name}: its chat template would lose part of {message}")
        return ids

    def said(self, lead: str, text: str) -> list[int]:
        """The ids of a lead of ours, control tokens and all, and a text from outside, of which none becomes one."""
        return self._template.ids(lambda cut: lead + cut(text))

    def text(self, ids: Sequence[int]) -> str:
        """Ids as a person reads them, control tokens shown."""
        return self._decode(ids)

    def _adopt(self, source: str, kwargs: Mapping[str, Any]) -> None:
        """Take a template into use, once it is proven that it can be extended.

        Raises:
            Unfit: it can't.
        """
        self._template = Template(self.tokenizer, _dated(source, self._today), kwargs)
        # A group's episodes begin alike.
        self._prompt = lru_cache(maxsize=256)(
            lambda messages, tools: self._template.ids(
                lambda cut: self._template.render(messages, tools, reply=True, cut=cut)
            )
        )
        self._stem = lru_cache(maxsize=256)(lambda called, cut: self._closed((_USER, called), cut))
        self._parallel = self._renders_parallel_calls()
        self._thinking = self._template.render((_USER,), reply=True).rstrip().endswith("<think>")
        replies = [*_CALLS[: 1 + self._parallel], _ANSWER]
        closers = [self._reply_ids(message)[-1] for message in replies]
        known = [index for index, text in self._template.controls.items() if text in STOPS]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([*closers, *self._eos, *known]))
        self._dialect = self._find_dialect(replies)
        for head in ((_USER,), (_SYSTEM, _USER)):
            self._prove(head, replies)

    def _prove(self, head: tuple[Message, ...], replies: Sequence[Message]) -> None:
        """Play a conversation and compare what we would build with what the template renders."""
        conversation = list(head)
        try:
            built = self._template.render(conversation, reply=True)
        except Unfit:
            if len(head) > 1:  # some templates know no system message; prompts with one are refused when they come
                return
            raise
        for message in replies:
            built += self._reply(message, self._template.guarded)
            conversation.append(message)
            rendered = self._template.render(conversation, reply=False)
            if not rendered.startswith(built):
                raise Unfit("how it renders a turn depends on the turns before")
            if not message.tool_calls:
                continue
            results = [
                ToolResult(call_id=call.id, name=call.name, content=text)
                for call, text in zip(message.tool_calls, self._odd_texts(), strict=False)
            ]
            conversation += [Message(role="tool", content=r.content, tool_call_id=r.call_id) for r in results]
            suffix = self._suffix(results, self._template.guarded)
            if suffix.count("probe_word") != len(results):
                raise Unfit("it does not render tool results")
            if self._decode(self._suffix_ids(results)) != suffix.replace(GUARD, ""):
                raise Unfit("its tokenizer does not keep tool results as they are")
            built += suffix
            if self._template.render(conversation, reply=True) != built:
                raise Unfit("what it adds after a turn depends on the turns before")

    def _odd_texts(self) -> list[str]:
        """Tool results that try to be more than text, each holding a word to be found again."""
        controls = list(self._template.controls.values())
        return [f"probe_word {''.join(controls)} \n", '\n {"probe_word": "<é漢😀>"}\n\n ']

    def _reply_ids(self, message: Message) -> list[int]:
        return self._template.ids(lambda cut: self._reply(message, cut))

    def _reply(self, message: Message, cut: Cut) -> str:
        """What the model would sample to say `message`, with guards, through its closing token."""
        opened = self._template.render((_USER,), reply=True, cut=cut)
        return _behind(opened, self._closed((_USER, message), cut))

    def _suffix_ids(self, results: Sequence[ToolResult]) -> list[int]:
        return self._template.ids(lambda cut: self._suffix(results, cut))

    def _suffix(self, results: Sequence[ToolResult], cut: Cut) -> str:
        """What stands behind the closing token of a turn whose calls came to `results`, with guards."""
        exchange = self._exchange(results)
        return _behind(self._stem(exchange[1], cut), self._template.render(exchange, reply=True, cut=cut))

    def _closed(self, messages: Sequence[Message], cut: Cut) -> str:
        return self._template.closed(self._template.render(messages, reply=False, cut=cut))

    def _exchange(self, results: Sequence[ToolResult]) -> list[Message]:
        """The shortest conversation in which these results come up."""
        called = _calling([r.name for r in (results if self._parallel else results[:1])])
        ids = [call.id for call in called.tool_calls]
        tools = [
            Message(role="tool", content=r.content, tool_call_id=ids[min(k, len(ids) - 1)])
            for k, r in enumerate(results)
        ]
        return [_USER, called, *tools]

    def _renders_parallel_calls(self) -> bool:
        try:
            text = self._template.render((_USER, _CALLS[1]), reply=False)
        except Unfit:
            return False
        return all(call.name in text for call in _CALLS[1].tool_calls)

    def _find_dialect(self, replies: Sequence[Message]) -> Callable[[Sequence[str]], Said]:
        """The dialect is the one that reads back what the template writes."""
        for dialect in DIALECTS.values():
            self._dialect = dialect
            if all(self._same(self.parse(self._reply_ids(message)), message) for message in replies):
                return dialect
        raise Unfit(f"its way of writing tool calls is none of those known here ({', '.join(DIALECTS)})")

    def _same(self, read: Message, meant: Message) -> bool:
        """Whether two messages say the same, up to the ids of their calls."""
        forms = [
            (
                m.content,
                [(c.name, c.arguments if self._template.verbatim else _untyped(c.arguments)) for c in m.tool_calls],
            )
            for m in (read, meant)
        ]
        return forms[0] == forms[1]

    def _pieces(self, token_ids: Sequence[int]) -> list[str]:
        """Sampled ids as marks and text, without the stop tokens at the end."""
        end = len(token_ids)
        while end and token_ids[end - 1] in self.stop_ids:
            end -= 1
        pieces: list[str] = []
        run: list[int] = []
        for index in token_ids[:end]:
            mark = self._template.controls.get(index)
            if mark is None:
                run.append(index)
                continue
            if run:
                pieces.append(self._decode(run))
            run = []
            pieces.append(Mark(mark))
        return [*pieces, self._decode(run)] if run else pieces

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The tokenizer's template; of several named ones, that for tools."""
    own = tokenizer.chat_template
    return own.get("tool_use", own.get("default")) if isinstance(own, dict) else own


def _dated(source: str, today: date) -> str:
    """A template that tells one date however long it is used: a prompt must not change at midnight."""
    return re.sub(r"""strftime_now\((["'])(.*?)\1\)""", lambda match: json.dumps(today.strftime(match[2])), source)


def _training_template(source: str) -> str | None:
    """TRL's variant of a known template that renders every turn as it was first rendered, if it has one."""
    trl = find_spec("trl")
    for folder in trl.submodule_search_locations or () if trl else ():
        for variant in Path(folder, "chat_templates").glob("*_training.jinja"):
            original = variant.with_name(variant.name.replace("_training", ""))
            if original.is_file() and original.read_text(encoding="utf-8") == source:
                return variant.read_text(encoding="utf-8")
    return None


def _refusal(name: str, reason: Unfit) -> str:
    return (
        f"the chat template of {name} can't be used for training over several turns: {reason}. "
        f"Give a template that appends to what it rendered before, or take another model"
    )


def _behind(stem: str, text: str) -> str:
    if not text.startswith(stem):
        raise Unfit("it renders earlier turns anew when a conversation goes on")
    return text[len(stem) :]


def _untyped(arguments: str) -> Any:
    """Arguments as families write them that have no types; text that is not JSON as it is."""
    try:
        items = json.loads(arguments)
    except ValueError:
        return arguments
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in items.items()}


def _calling(names: Sequence[str]) -> Message:
    calls = [ToolCall(id=f"call_0_{k}", name=name, arguments="{}") for k, name in enumerate(names)]
    return Message(role="assistant", tool_calls=tuple(calls))


_SYSTEM = Message(role="system", content="probe rules")
_USER = Message(role="user", content="probe question")
_ANSWER = Message(role="assistant", content="probe answer")
_CALLS = (
    Message(
        role="assistant",
        tool_calls=(ToolCall(id="call_0_0", name="probe_one", arguments='{"key": "value"}'),),
    ),
    Message(
        role="assistant",
        tool_calls=(
            ToolCall(id="call_1_0", name="probe_two", arguments='{"key": 1}'),
            ToolCall(id="call_1_1", name="probe_three", arguments='{"other": [true, null]}'),
        ),
    ),
)
