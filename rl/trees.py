"""Config trees as plain data: read from YAML, changed key by key, compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from envs.errors import InputError

Tree = dict[str, Any]


def read(path: str | Path) -> Tree:
    """The mapping in a YAML file.

    Raises:
        InputError: no such file, not YAML, or no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: can't read the config: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: can't read the config: it is not text in UTF-8") from error
    try:
        tree = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a config is a mapping of keys to values; this is {type(tree).__name__}")
    return tree


def apply(tree: Tree, override: str) -> None:
    """Change a tree by `key=value`, the value in YAML.

    Raises:
        InputError: it is not of that form, or leads through a value.
    """
    put(tree, *assignment(override))


def assignment(override: str) -> tuple[str, Any]:
    """Key and value of `trainer.learning_rate=1e-4`.

    Raises:
        InputError: it is not of that form, or the value is not YAML.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r}: an override is key=value, as in trainer.learning_rate=1e-4")
    try:
        return key, yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{override!r}: the value is not YAML: {error}") from error


def put(tree: Tree, key: str, value: Any) -> None:
    """Set what stands under a dotted key, and make the sections that lead there.

    Raises:
        InputError: it leads through a value.
    """
    *path, last = key.split(".")
    for name in path:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise InputError(f"{key}: {name!r} holds a value, not a section")
    tree[last] = value


def differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys, dotted, under which two config trees differ."""
    found = []
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differing(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string, where people mean a number; and of a key given twice it takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for twice in {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(
                problem=f"the key {twice!r} is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
