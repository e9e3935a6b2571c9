"""Fields of a record by path: dots reach into nested mappings."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np


def get_field(data: Mapping[str, Any], path: str) -> Any:
    """The field at `path`.

    Raises:
      KeyError: If it is missing; lists the fields that there are.
    """
    node: Any = data
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            raise KeyError(
                f"`{path}` must be a field: got the fields {field_names(data)}. Correct its name; dots reach into"
                " nested mappings."
            )
        node = node[name]
    return node


def has_field(data: Mapping[str, Any], path: str) -> bool:
    """Whether there is a field at `path`."""
    node: Any = data
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def set_field(data: Mapping[str, Any], path: str, field: Any) -> dict[str, Any]:
    """A copy of `data` with the field at `path` set; everything beside that path is the same object.

    Example:
      >>> set_field({"a": 1, "b": {"c": 2}}, "b.d", 3)
      {'a': 1, 'b': {'c': 2, 'd': 3}}
    """
    name, _, rest = path.partition(".")
    if rest and not isinstance(data.get(name, {}), Mapping):
        raise TypeError(
            f"`{name}` must be a mapping to hold `{rest}`: got {type(data[name]).__name__}. Use another name."
        )
    return {**data, name: set_field(data.get(name, {}), rest, field) if rest else field}


def set_fields(data: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `data` with the fields set that are given by path."""
    result = dict(data)
    for path, field in fields.items():
        result = set_field(result, path, field)
    return result


def replace_fields(data: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """As `set_fields`, but that a field which is None is taken out.

    Example:
      >>> replace_fields({"a": 1, "b": {"c": 2}}, {"a": None, "a.d": 3, "b.c": None})
      {'b': {}, 'a': {'d': 3}}
    """
    result = dict(data)
    for path, field in fields.items():
        result = _without(result, path) if field is None else set_field(result, path, field)
    return result


def _without(data: Mapping[str, Any], path: str) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    if rest and isinstance(data.get(name), Mapping):
        return {**data, name: _without(data[name], rest)}
    return {other: field for other, field in data.items() if rest or other != name}


def pick_fields(data: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """The nested mapping of only these fields."""
    return set_fields({}, {path: get_field(data, path) for path in paths})


def field_names(data: Mapping[str, Any]) -> str:
    """The paths of all fields, to be read."""
    return ", ".join(sorted(map(str, flatten(data))))


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All fields by path."""
    fields: dict[str, Any] = {}
    for name, field in data.items():
        path = f"{prefix}{name}"
        fields.update(flatten(field, f"{path}.") if isinstance(field, Mapping) else {path: field})
    return fields


def record_count(data: Any) -> int:
    """The length of axis 0 that all leaves share.

    Raises:
      ValueError: If there is no leaf, a leaf has no axis, or the lengths differ.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(data)
    lengths = {jax.tree_util.keystr(path, simple=True, separator="."): np.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(
            f"`data` must share the batch as axis 0: got lengths {lengths}. Stack the records' fields, as"
            " grain.transforms.Batch does behind SeedRecords."
        )
    return int(next(iter(lengths.values()))[0])
