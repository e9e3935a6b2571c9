"""Nested data, of JSON's types or nearly so: not deeper and not larger than what comes out of a file should be."""

from collections.abc import Iterable, Mapping
from typing import Any

from grain_datarax.wording import shown

# More than anything needs, and less than stops a program: a line of YAML may say one part a million times.
_MOST_LEVELS, _MOST_PARTS = 200, 1_000_000


def require_shallow(name: str, tree: Any, remedy: str) -> None:
    """Raises `ValueError` if mappings, lists and tuples are nested too deeply, or hold too much."""
    level, count = [tree], 0
    for _ in range(_MOST_LEVELS):
        count += len(level)
        if count > _MOST_PARTS:
            raise ValueError(f"`{name}` must have at most {_MOST_PARTS} parts: got {shown(tree)}. {remedy}")
        level = [part for node in level for part in _parts_of(node)]
    if level:
        raise ValueError(f"`{name}` must be nested at most {_MOST_LEVELS} deep: got {shown(tree)}. {remedy}")


def _parts_of(node: Any) -> Iterable[Any]:
    if isinstance(node, Mapping):
        return node.values()
    return node if isinstance(node, list | tuple) else ()
