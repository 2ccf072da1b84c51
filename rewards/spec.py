"""Rewards from configs.

    reward:
      outcome: {use: state_equal, require: [done, answered, no_violations]}
      process: {use: progress, weight: 0.2}
      tidy:    {use: no_repeats, weight: 0.1, per_turn: false}

A spec is a name (`exact`, or `module:attribute`), or a mapping with `use` and the options of what it
names, or a mapping of names to specs: those are summed, each with its `weight`, and with `per_turn:
false` a part is credited to the episode as a whole. Options that are rewards themselves are specs.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from envs.errors import InputError, reasons, unknown
from envs.named import load_attribute
from envs.sandbox.settings import SandboxSettings
from rewards.compose import capped, gated, min_form, shaped, weighted, whole
from rewards.hosted import grader, runs_python, sandbox_settings
from rewards.judge import relative, rubric
from rewards.outcome import contains, exact, json_equal, numeric, state_equal
from rewards.process import (
    Gold,
    call_bonus,
    flagged,
    in_order,
    information_gain,
    no_repeats,
    policy_kept,
    progress,
    valid_calls,
)
from rewards.score import GroupReward, Reward, reward

PART_KEYS = ("weight", "per_turn")
"""What a part of a sum says beside its own options."""


def build(spec: Any, where: str = "reward") -> Reward:
    """The reward a config describes.

    What is named is either a function of an episode, whose keywords are the options, or something
    annotated to return a `Reward`, which is called with the options and makes one.

    Args:
        spec: a name or a mapping, see above.
        where: the key it came from, for messages.

    Raises:
        InputError: an unknown name or option, a value that does not fit, a mapping without meaning.
    """
    if isinstance(spec, str):
        spec = {"use": spec}
    if not isinstance(spec, Mapping) or not spec:
        raise InputError(f"{where}: expected a name or a mapping with 'use', found {spec!r}")
    if "use" not in spec:
        return weighted({str(name): _part(part, f"{where}.{name}") for name, part in spec.items()})
    for key in PART_KEYS:
        if key in spec:
            raise InputError(f"{where}.{key} has a meaning only among several parts; write {where}: {{name: {{...}}}}")
    return _named(dict(spec), where)


def sandboxes(spec: Any) -> set[SandboxSettings | None]:
    """The sandboxes that the graders of a reward run in, None for those that all share; of one that `build` accepted.

    Rewards of one's own are not looked into: they open what they need when they need it.
    """
    graders = (one for one in _named_specs(spec) if one["use"] == "grader" and one.get("unsafe_python") is None)
    return {sandbox_settings(one.get("sandbox")) for one in graders if runs_python(**one)}


def golds(spec: Any) -> set[Gold]:
    """The answers whose likelihood `information_gain` reads, of one that `build` accepted."""
    named = (one for one in _named_specs(spec) if one["use"] == "information_gain")
    return {Gold(**{name: one[name] for name in ("field", "lead") if name in one}) for one in named}


def owned(spec: Any) -> bool:
    """Whether a reward, or a part of it, is one of the user's own, named `module:attribute`."""
    return any(":" in one["use"] for one in _named_specs(spec))


def named(spec: Any, name: str) -> list[Mapping[str, Any]]:
    """Every mapping in a reward's spec that names this reward, with its options."""
    return [one for one in _named_specs(spec) if one["use"] == name]


def _named_specs(spec: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping with `use` in a reward's spec, outermost first; what is inside a grader's JSON is not one."""
    if isinstance(spec, str):
        yield {"use": spec}
    elif isinstance(spec, Mapping) and "use" not in spec:
        for part in spec.values():
            yield from _named_specs(part)
    elif isinstance(spec, Mapping):
        yield spec
        for option in spec.values():
            if isinstance(option, Mapping) and spec["use"] != "grader":
                yield from _named_specs(option)


def _part(spec: Any, where: str) -> tuple[Reward, float]:
    """A part of a sum, with its weight."""
    if isinstance(spec, str):
        spec = {"use": spec}
    if not isinstance(spec, Mapping):
        raise InputError(
            f"{where}: expected a name or a mapping with 'use', found {spec!r}; is {where} meant as an option?"
        )
    rest = dict(spec)
    weight, per_turn = rest.pop("weight", 1.0), rest.pop("per_turn", True)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
        raise InputError(f"{where}.weight: expected a number, found {weight!r}")
    if not isinstance(per_turn, bool):
        raise InputError(f"{where}.per_turn: expected true or false, found {per_turn!r}")
    made = build(rest, where)
    return made if per_turn else whole(made), float(weight)


def _named(spec: dict[str, Any], where: str) -> Reward:
    name = spec.pop("use")
    if not isinstance(name, str):
        raise InputError(f"{where}.use: expected a name, found {name!r}")
    try:
        target: Any = load_attribute(name) if ":" in name else REWARDS[name]
    except KeyError:
        raise InputError(
            f"{where}.use: {unknown('reward', name, REWARDS)}; name your own as module:attribute"
        ) from None
    except InputError as error:
        raise InputError(f"{where}.use: {error}") from error
    if not callable(target):
        raise InputError(f"{where}.use: {name} is no function")
    makes_one = _hints(target, where).get("return") in (Reward, GroupReward)
    options = _options(target, spec, where, given=0 if makes_one else 1)
    if isinstance(target, GroupReward) and not isinstance(target, type):
        return target
    if makes_one:
        made: Reward = target(**options)
        return made
    return reward(target, name=name.rpartition(":")[2], **options)


def _options(target: Callable[..., Any], given_options: Mapping[str, Any], where: str, *, given: int) -> dict[str, Any]:
    """The options checked against a signature, after so many positional parameters given by us."""
    parameters = list(inspect.signature(target).parameters.values())[given:]
    known = {p.name: p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    hints = _hints(target, where)
    for name in given_options:
        if name not in known:
            raise InputError(f"{where}: {unknown('option', name, known)}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given_options:
            raise InputError(f"{where}: the option {name!r} is missing")
    return {name: _option(hints.get(name, Any), value, f"{where}.{name}") for name, value in given_options.items()}


def _option(hint: Any, value: Any, where: str) -> Any:
    if hint is Reward:
        return build(value, where)
    try:
        return TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        raise InputError(f"{where}: {reasons(error)}") from error


def _hints(target: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(target if inspect.isroutine(target) else type(target).__call__)
    except NameError as error:
        raise InputError(f"{where}.use: a type hint can't be read ({error}); import the name at the top") from error


REWARDS: dict[str, Callable[..., Any]] = {
    "exact": exact,
    "contains": contains,
    "numeric": numeric,
    "json_equal": json_equal,
    "state_equal": state_equal,
    "valid_calls": valid_calls,
    "progress": progress,
    "call_bonus": call_bonus,
    "in_order": in_order,
    "no_repeats": no_repeats,
    "policy_kept": policy_kept,
    "flagged": flagged,
    "information_gain": information_gain,
    "gated": gated,
    "capped": capped,
    "shaped": shaped,
    "min_form": min_form,
    "grader": grader,
    "rubric": rubric,
    "relative": relative,
}
"""Rewards by the name configs call them."""
