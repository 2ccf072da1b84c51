"""JSON values compared and addressed by dotted paths, as in `orders.4711.status` or `orders.*.status`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Leaves = Mapping[tuple[str, ...], Any]


def at(value: Any, path: str) -> Any:
    """What lies at a dotted path; list elements by their index.

    Raises:
        KeyError: nothing does; the key is the part of the path that failed.
    """
    for key in path.split("."):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, (list, tuple)) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise KeyError(key)
    return value


def leaves(value: Any, *, only: Sequence[str] = (), ignore: Sequence[str] = ()) -> Leaves:
    """Everything in a value by its path: numbers, texts, and the kind of each object and array.

    Args:
        value: JSON.
        only: patterns of what to keep, with all that is below; everything if empty.
        ignore: patterns of what to leave out, with all that is below.
    """
    keep, drop = [p.split(".") for p in only], [p.split(".") for p in ignore]

    def wanted(path: tuple[str, ...]) -> bool:
        return (not keep or any(_under(path, p) for p in keep)) and not any(_under(path, p) for p in drop)

    return {path: leaf for path, leaf in _walk(value, ()) if wanted(path)}


def same(a: Leaves, b: Leaves, tolerance: float = 0.0) -> bool:
    """Whether two values are equal. True is not 1, 1 is 1.0, and a NaN equals nothing."""
    return a.keys() == b.keys() and all(_same(a[path], b[path], tolerance) for path in a)


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        yield path, Mapping
        for key, child in value.items():
            yield from _walk(child, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        yield path, Sequence
        for index, child in enumerate(value):
            yield from _walk(child, (*path, str(index)))
    else:
        yield path, value


def _under(path: tuple[str, ...], pattern: Sequence[str]) -> bool:
    return len(path) >= len(pattern) and all(p in ("*", key) for p, key in zip(pattern, path, strict=False))


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b or _near(a, b, tolerance)
    return type(a) is type(b) and bool(a == b)


def _near(a: float, b: float, tolerance: float) -> bool:
    try:
        return tolerance > 0 and abs(a - b) <= tolerance
    except OverflowError:  # a whole number beyond all floats is near none
        return False
