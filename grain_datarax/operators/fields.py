"""Fields of a record by path: dots reach into nested mappings."""

from collections.abc import Iterable, Mapping
from typing import Any


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
