"""What records are made of: mappings, tuples and lists, NamedTuples and dataclasses, each looked into by names.

Names are strings whatever the keys are: `"0"` is an item's index, or the key 0 of a mapping. Needs no JAX.
"""

import abc
import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np

# A record, or a batch of them.
Record: TypeAlias = Any
# One that comes out in the type that it came in; of tuples that have seeds no checker knows that they lose one.
SameRecord = TypeVar("SameRecord")

# The field in which a record carries its seed through Batch.
RECORD_SEED = "record_seed"
# Beside a seed that is kept: who has drawn from it already, each a field of its own, so that it is seen under jit too.
RECORD_DRAWS = "record_draws"

# Of a tuple or a list.
_MOST_ITEMS = 2**63

# What is nowhere in a record, where None may be.
MISSING: Final = object()


class Container(abc.ABC):
    """A kind of containers. None of these functions writes into the container that it is given."""

    @abc.abstractmethod
    def items(self, node: Any) -> Iterable[tuple[str, Any]]:
        """What is in it, by name."""

    @abc.abstractmethod
    def get(self, node: Any, name: str) -> Any:
        """What is in it under a name, or else `MISSING`."""

    @abc.abstractmethod
    def put(self, node: Any, name: str, field: Any) -> Any:
        """One of the same type with `field` in it; raises `TypeError` if it has no place under that name."""

    @abc.abstractmethod
    def drop(self, node: Any, names: Sequence[str]) -> Any:
        """One of the same type without these; where places are fixed, with None in theirs."""


class _Mapping(Container):
    """Types that JAX, and so Grain's `Batch`, looks into stay what they are; all others become dicts."""

    def items(self, node: Any) -> Iterable[tuple[str, Any]]:
        return [(str(key), field) for key, field in node.items()]

    def get(self, node: Any, name: str) -> Any:
        field = node.get(name, MISSING)
        if field is MISSING and name.isdecimal() and _is_index(name):
            return node.get(int(name), MISSING)
        return field

    def put(self, node: Any, name: str, field: Any) -> Any:
        fields = dict(node)
        fields[self._key(node, name)] = field
        return fields if type(node) is dict else self._of_type(node, fields)

    def drop(self, node: Any, names: Sequence[str]) -> Any:
        fields = dict(node)
        for name in names:
            fields.pop(self._key(node, name), None)
        return fields if type(node) is dict else self._of_type(node, fields)

    def _key(self, node: Any, name: str) -> Any:
        return int(name) if _is_index(name) and name not in node and int(name) in node else name

    def _of_type(self, node: Any, fields: dict[Any, Any]) -> Any:
        kind = type(node)
        if kind is collections.defaultdict:
            return kind(node.default_factory, fields)
        # By its name, so as not to import it.
        is_frozen_dict = (kind.__module__, kind.__name__) == ("flax.core.frozen_dict", "FrozenDict")
        return kind(fields) if kind is collections.OrderedDict or is_frozen_dict else fields


class _Sequence(Container):
    """Tuples and lists."""

    def items(self, node: Any) -> Iterable[tuple[str, Any]]:
        return [(str(index), field) for index, field in enumerate(node)]

    def get(self, node: Any, name: str) -> Any:
        return node[int(name)] if _is_index(name) and int(name) < len(node) else MISSING

    def put(self, node: Any, name: str, field: Any) -> Any:
        if self.get(node, name) is MISSING:
            raise TypeError(
                f"`{name}` must be an item that there is: got a {type(node).__name__} of {len(node)}. Make the record a"
                " dict to write new fields into it."
            )
        return self._of_type(node, [*node[: int(name)], field, *node[int(name) + 1 :]])

    def drop(self, node: Any, names: Sequence[str]) -> Any:
        return self._of_type(node, [None if str(index) in names else field for index, field in enumerate(node)])

    def _of_type(self, node: Any, fields: list[Any]) -> Any:
        return fields if isinstance(node, list) else tuple(fields)


class _Seeded(_Sequence):
    """Tuples and lists that are records: behind their items they carry their seed, and who has drawn from it."""

    def items(self, node: Any) -> Iterable[tuple[str, Any]]:
        items, carried = self._parts(node)
        return [*super().items(items), *carried.items()]

    def get(self, node: Any, name: str) -> Any:
        items, carried = self._parts(node)
        return carried.get(name, MISSING) if name in (RECORD_SEED, RECORD_DRAWS) else super().get(items, name)

    def put(self, node: Any, name: str, field: Any) -> Any:
        items, carried = self._parts(node)
        if name in (RECORD_SEED, RECORD_DRAWS):
            carried = {**carried, name: field}
        else:
            items = super().put(items, name, field)
        return self._of_type(node, [*items, *carried.values()])

    def drop(self, node: Any, names: Sequence[str]) -> Any:
        items, carried = self._parts(node)
        kept = [field for name, field in carried.items() if name not in names]
        return self._of_type(node, [*super().drop(items, names), *kept])

    def _parts(self, node: Any) -> tuple[Any, dict[str, Any]]:
        if node and _is_seed(node[-1]):
            return node[:-1], {RECORD_SEED: node[-1]}
        if len(node) > 1 and _is_seed(node[-2]) and _are_draws(node[-1]):
            return node[:-2], {RECORD_SEED: node[-2], RECORD_DRAWS: node[-1]}
        return node, {}


class _Attributes(Container):
    """NamedTuples and dataclasses, whose attributes are declared; one that is None is not there."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def items(self, node: Any) -> Iterable[tuple[str, Any]]:
        fields = [(name, getattr(node, name)) for name in self._names]
        return [(name, field) for name, field in fields if field is not None]

    def get(self, node: Any, name: str) -> Any:
        field = getattr(node, name) if name in self._names else None
        return MISSING if field is None else field

    def put(self, node: Any, name: str, field: Any) -> Any:
        if name not in self._names:
            line = f"`{name}: Any = None`" if name.isidentifier() else "a name of its own, without dots,"
            raise TypeError(
                f"`{type(node).__name__}` must declare `{name}` to hold it: got a class of {', '.join(self._names)}."
                f" Add {line} to its fields, or make the record a dict."
            )
        return self._replaced(node, {name: field})

    def drop(self, node: Any, names: Sequence[str]) -> Any:
        present = [name for name in names if name in self._names]
        return self._replaced(node, dict.fromkeys(present)) if present else node

    def _replaced(self, node: Any, fields: dict[str, Any]) -> Any:
        return node._replace(**fields) if hasattr(node, "_replace") else dataclasses.replace(node, **fields)


_MAPPING, _SEQUENCE, _SEEDED = _Mapping(), _Sequence(), _Seeded()


def container_of(node: Any) -> Container | None:
    """How a part of a record is looked into; None if it is a field."""
    cls: Any = type(node)
    container: Container | None = _container_for(cls)
    return container


def record_container_of(record: Record) -> Container | None:
    """How a record itself is looked into, with what it carries; None if it has no fields."""
    cls: Any = type(record)
    container: Container | None = _record_container_for(cls)
    return container


def carried(record: Record, name: str) -> Any:
    """What a record carries, its `RECORD_SEED` or `RECORD_DRAWS`; None if it does not."""
    container = record_container_of(record)
    field = MISSING if container is None else container.get(record, name)
    return None if field is MISSING else field


def carrying(record: Record, name: str, value: Any) -> Record:
    """The record, and with it what it is to carry; raises `TypeError` if it has no place for that."""
    container = record_container_of(record)
    assert container is not None  # callers have asked
    return container.put(record, name, value)


def without(record: Record, *names: str) -> Record:
    """The record without these of its fields, and of what it carries."""
    container = record_container_of(record)
    assert container is not None  # callers have asked
    return container.drop(record, names)


def require_record(element: Any) -> None:
    """Raises `TypeError` unless a record or batch has fields."""
    if container_of(element) is None:
        raise refusal_of(element)


def refusal_of(element: Any) -> TypeError:
    """The error for a record or batch without fields."""
    if name := class_of_objects(element):
        return TypeError(f"`element` must have fields that JAX looks into: got an array of {name}. {as_pytree(name)}")
    line = '{"image": image}' if hasattr(element, "shape") else '{"image": image, "label": label}'
    return TypeError(
        f"`element` must be a mapping from field names, a tuple, a list, a NamedTuple or a dataclass: got"
        f" {type(element).__name__}. Return a dict from the transform before, such as .map(lambda image: {line})."
    )


def class_of_objects(field: Any) -> str | None:
    """The class of the records that Grain's `Batch` put into an array, as JAX does not look into them; or None."""
    if not isinstance(field, np.ndarray) or field.dtype != object or not field.size:
        return None
    first = field.flat[0]
    return type(first).__name__ if container_of(first) is not None else None


def as_pytree(name: str) -> str:
    """What makes a class one that JAX, and so Grain's `Batch`, looks into."""
    return (
        f"Decorate {name} with flax.struct.dataclass, or with jax.tree_util.register_dataclass above"
        " dataclasses.dataclass; of a mapping make a dict."
    )


@functools.cache
def _container_for(cls: type) -> Container | None:
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        named: Any = cls
        return _Attributes(named._fields)
    if issubclass(cls, list | tuple):
        return _SEQUENCE
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
        return None if {"shape", "dtype"} <= set(names) else _Attributes(names)  # an array, or the spec of one
    return _MAPPING if issubclass(cls, Mapping) else None


@functools.cache
def _record_container_for(cls: type) -> Container | None:
    hashable: Any = cls
    container: Container | None = _container_for(hashable)
    return _SEEDED if container is _SEQUENCE else container


def as_path(path: Any) -> Any:
    """An index as the name that it is among paths; anything else as it is."""
    is_index = isinstance(path, int | np.integer) and not isinstance(path, bool) and 0 <= path < _MOST_ITEMS
    return str(path) if is_index else path


def _is_index(name: str) -> bool:
    """Whether a name is an index as `str` writes it; longer numbers Python may not even read."""
    return name.isdecimal() and name.isascii() and (name == "0" or name[0] != "0") and len(name) < 20


def _is_seed(field: Any) -> bool:
    shape = getattr(field, "shape", None)
    return shape is not None and len(shape) in (1, 2) and shape[-1] == 2 and getattr(field, "dtype", None) == np.uint32


def _are_draws(field: Any) -> bool:
    return isinstance(field, Mapping) and bool(field) and all("@" in str(name) for name in field)
