"""Fields of a record by path: a name, or names joined by dots that reach into what is nested.

A name may have dots itself: the longest name that there is literally comes first, so that `"observation.image"` is that
field of a flat record, or else the field `image` in `observation`.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from grain_datarax.containers import (
    MISSING,
    Container,
    Record,
    as_pytree,
    class_of_objects,
    container_of,
    record_container_of,
)
from grain_datarax.wording import MissingField

# How many names an error lists.
_LISTED = 40


def get_field(data: Record, path: str) -> Any:
    """The field at `path`.

    Raises:
      KeyError: If it is missing; lists the fields that there are, and names the nearest.
    """
    if type(data) is dict and path in data:  # as nearly always, and fast
        return data[path]
    found = _find(data, record_container_of(data), path)
    if found is None:
        raise MissingField(
            f"`{path}` must be a field: got the fields {field_names(data)}. {_nearest(data, path)}Correct its name;"
            " dots reach into what is nested."
        )
    return found[1]


def has_field(data: Record, path: str) -> bool:
    """Whether there is a field at `path`."""
    return _find(data, record_container_of(data), path) is not None


def names_of(data: Record, path: str) -> tuple[str, ...] | None:
    """The names that lead to the field at `path`; None if there is none.

    Example:
      >>> names_of({"observation.images": {"top": 1}}, "observation.images.top")
      ('observation.images', 'top')
    """
    found = _find(data, record_container_of(data), path)
    return None if found is None else found[0]


def literal_names(data: Record, paths: Iterable[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The names that lead to these fields, of those paths alone that are not just split at their dots."""
    dotted = [(path, names_of(data, path)) for path in paths if "." in path]
    return tuple((path, names) for path, names in dotted if names and names != tuple(path.split(".")))


def set_field(data: Record, path: str, field: Any) -> Record:
    """A copy of `data` with the field at `path` set; everything beside that path is the same object.

    A new field goes into the deepest container on its path; there it keeps its dots if other names begin like it, and
    else becomes nested dicts.

    Example:
      >>> set_field({"a": 1, "b": {"c": 2}}, "b.d", 3)
      {'a': 1, 'b': {'c': 2, 'd': 3}}
      >>> set_field({"b.c": 2}, "b.d", 3)
      {'b.c': 2, 'b.d': 3}
    """
    if type(data) is dict and path in data:  # as nearly always, and fast
        return {**data, path: field}
    container = record_container_of(data)
    found = _find(data, container, path)
    return _put(data, container, _new_names(data, container, path) if found is None else found[0], field)


def set_fields(data: Record, fields: Mapping[str, Any]) -> Record:
    """A copy of `data` with the fields set that are given by path."""
    result = data
    for path, field in fields.items():
        result = set_field(result, path, field)
    return result


def replace_fields(data: Record, fields: Mapping[str, Any]) -> Record:
    """As `set_fields`, but that a field which is None is taken out.

    Example:
      >>> replace_fields({"a": 1, "b": {"c": 2}}, {"a": None, "a.d": 3, "b.c": None})
      {'b': {}, 'a': {'d': 3}}
    """
    result = data
    for path, field in fields.items():
        result = _without(result, path) if field is None else set_field(result, path, field)
    return result


def pick_fields(data: Record, paths: Iterable[str]) -> dict[str, Any]:
    """The nested dict of only these fields, under their own names."""
    return nested({path: get_field(data, path) for path in paths}, dict(literal_names(data, paths)))


def nested(fields: Mapping[str, Any], literal: Mapping[str, tuple[str, ...]] | None = None) -> dict[str, Any]:
    """The nested dict of fields that are given by path.

    Args:
      fields: The fields by path.
      literal: The names that lead to those whose paths are not just split at their dots; see `literal_names`.

    Example:
      >>> nested({"a": 1, "a.b": 2, "c.d": 3})
      {'a': 1, 'a.b': 2, 'c': {'d': 3}}
    """
    result: dict[str, Any] = {}
    for path, field in fields.items():
        names = (literal or {}).get(path) or tuple(path.split("."))
        if any(".".join(names[:end]) in fields for end in range(1, len(names))):  # no place below a field
            names = (path,)
        result = _put(result, container_of(result), names, field)
    return result


def field_names(data: Record) -> str:
    """The paths of all fields, to be read."""
    names = sorted(flatten(data))
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return ", ".join([*names[:_LISTED], *more])


def flatten(data: Record, *, lists: bool = True) -> dict[str, Any]:
    """All fields by path.

    Args:
      data: A record or a batch.
      lists: Whether the items of tuples and lists in it are fields, too; False: those of the record itself alone.
    """
    fields: dict[str, Any] = {}
    for path, field in _leaves(data, record_container_of(data), "", lists):
        # Two of one path, such as "a.b" and "b" in "a": the law says which it is.
        fields[path] = get_field(data, path) if path in fields else field
    return fields


def _find(node: Any, container: Container | None, path: str) -> tuple[tuple[str, ...], Any] | None:
    """The names that lead to a field, and the field."""
    end = len(path) if container is not None else -1
    while end >= 0:
        assert container is not None
        name = path[:end]
        child = container.get(node, name)
        if child is not MISSING:
            if end == len(path):
                return (name,), child
            found = _find(child, container_of(child), path[end + 1 :])
            if found is not None:
                return (name, *found[0]), found[1]
        end = path.rfind(".", 0, end)
    return None


def _new_names(node: Any, container: Container | None, path: str) -> tuple[str, ...]:
    """The names that are to lead to a field that is not there yet."""
    assert container is not None
    first, taken = path.partition(".")[0], None
    end = path.rfind(".")
    while end >= 0:
        name, rest = path[:end], path[end + 1 :]
        child = container.get(node, name)
        if container_of(child) is not None:
            return (name, *_new_names(child, container_of(child), rest))
        if child is not MISSING:
            taken = TypeError(
                f"`{name}` must be a mapping to hold `{rest}`: got {type(child).__name__}. Use another name."
            )
        end = path.rfind(".", 0, end)
    if any(name.startswith(f"{first}.") for name, _ in container.items(node)):
        return (path,)
    if taken is not None:
        raise taken
    return tuple(path.split("."))


def _put(node: Any, container: Container | None, names: tuple[str, ...], field: Any) -> Any:
    assert container is not None
    name, *rest = names
    if rest:
        child = container.get(node, name)
        child = {} if child is MISSING else child
        field = _put(child, container_of(child), tuple(rest), field)
    return container.put(node, name, field)


def _without(data: Record, path: str) -> Record:
    container = record_container_of(data)
    found = _find(data, container, path)
    return data if found is None else _drop(data, container, found[0])


def _drop(node: Any, container: Container | None, names: tuple[str, ...]) -> Any:
    assert container is not None
    name, *rest = names
    if not rest:
        return container.drop(node, names)
    child = container.get(node, name)
    return container.put(node, name, _drop(child, container_of(child), tuple(rest)))


def _leaves(node: Any, container: Container | None, prefix: str, lists: bool) -> Iterator[tuple[str, Any]]:
    assert container is not None
    for name, field in container.items(node):
        below = container_of(field)
        if below is None or (not lists and isinstance(field, list | tuple) and not hasattr(field, "_fields")):
            yield f"{prefix}{name}", field
        else:
            yield from _leaves(field, below, f"{prefix}{name}.", lists)


def _nearest(data: Record, path: str) -> str:
    """Words about what may be meant by a path that leads nowhere."""
    fields = flatten(data)
    for name, field in fields.items():
        if path.startswith(f"{name}.") and (cls := class_of_objects(field)):
            return f"Grain put objects of {cls} into `{name}`, as JAX does not look into them. {as_pytree(cls)} "
    last = path.rpartition(".")[2]
    same = [name for name in fields if name.rpartition(".")[2] == last]
    close = same[:3] or difflib.get_close_matches(path, list(fields), 3)
    return f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
