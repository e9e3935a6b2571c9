"""record -> seeded record: every record takes 64 bits along, of its own generator, its identity or its parent."""

import hashlib
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, overload

import grain
import numpy as np

from grain_datarax.containers import (
    MISSING,
    Container,
    Record,
    SameRecord,
    as_path,
    carried,
    carrying,
    record_container_of,
    refusal_of,
    require_record,
    without,
)
from grain_datarax.containers import RECORD_DRAWS as RECORD_DRAWS
from grain_datarax.containers import RECORD_SEED as RECORD_SEED
from grain_datarax.fields import field_names, get_field
from grain_datarax.wording import MissingField, shown


class SeedRecords(grain.transforms.RandomMap):
    """Adds `record_seed`, uint32 `(2,)`, to each record: 64 bits of the generator that Grain gives it.

    Place it before `Batch`: Grain drops the generators there. Every augmentation of the record follows from its seed,
    and on that alone. Nothing else is drawn, copied or changed, and no JAX backend starts.

    A mapping carries its seed as the field `record_seed`, a tuple or a list as its last item, a NamedTuple or a
    dataclass as the attribute `record_seed`, which its class declares: `record_seed: Any = None`, and where seeds are
    kept behind an augmentation `record_draws: Any = None`, too. The augmentation
    takes it out again: `(image, label)` comes out as `(image, label)`. In a tuple or a list it is known by its type: a
    last item that is uint32 of shape `(2,)`, or `(B, 2)` in a batch, is taken for a seed.

    Grain seeds a record by the sum of the sampler's seed and the record's position in the epochs. So datasets that are
    seeded alike and mixed afterwards share seeds, and so do samplers with neighbouring seeds, shifted by one: place it
    behind `mix`, or give each a `salt`. Behind a `FlatMap` there are no generators: see `SeedChildren`.

    Args:
      key: The field, or fields, that say which record it is, such as `"id"` or `("episode", "frame")`: integers,
        strings, bytes, paths, or arrays of integers. The seed follows from these and the salt alone, whatever the order
        and the epoch: for noise that is the same in each evaluation. None: from the record's generator.
      salt: Another one gives other seeds throughout.

    Raises:
      TypeError: If `key` or `salt` has another type.
      ValueError: If `key` names no field.

    Example:
      >>> source = grain.MapDataset.source([{"label": 3}])
      >>> record = source.random_map(SeedRecords(), seed=7)[0]
      >>> record["label"], record["record_seed"].dtype, record["record_seed"].shape
      (3, dtype('uint32'), (2,))
      >>> SeedRecords(key="label", salt="validation")
      SeedRecords(key='label', salt='validation')
      >>> [type(part).__name__ for part in grain.MapDataset.source([("a", 3)]).random_map(SeedRecords(), seed=7)[0]]
      ['str', 'int', 'ndarray']
    """

    def __init__(self, *, key: str | int | Sequence[str | int] | None = None, salt: str = "") -> None:
        several = isinstance(key, list | tuple)
        given: Any = key if several else () if key is None else (key,)
        paths = tuple(map(as_path, given))
        if not all(isinstance(path, str) for path in paths):
            raise TypeError(
                f"`key` must be the name of a field, or a sequence of names: got {shown(key)}. Pass strings."
            )
        if key is not None and not all((paths, *paths)):
            raise ValueError(f'`key` must name a field: got {shown(key)}. Pass "id", for example, or leave it out.')
        if not isinstance(salt, str):
            raise TypeError(f'`salt` must be a string: got {shown(salt)}. Pass "train", for example.')
        self._key = paths if several else None if key is None else paths[0]
        self._paths = paths
        self._salt = salt
        self._salt_words = _digest(b"", salt.encode()) if salt else np.zeros(2, np.uint32)

    # Grain's own returns nothing: it is abstract.
    @overload
    def random_map(self, element: tuple[Any, ...], rng: np.random.Generator) -> Record: ...
    @overload
    def random_map(self, element: SameRecord, rng: np.random.Generator) -> SameRecord: ...
    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        """The record with its seed.

        Args:
          element: A mapping from field names to anything, a tuple, a list, a NamedTuple or a dataclass.
          rng: The record's own generator; not looked at with a `key`.

        Returns:
          A new record of the same type and fields, the same objects, and `record_seed`.

        Raises:
          TypeError: If the record has no fields, or no place for its seed, or its identity can't be read.
          KeyError: If a field of its identity is missing.
          ValueError: If the record has a `record_seed` already, or there is no generator.
        """
        place = _place_in(element)
        if self._key is None:
            # Which is a bijection, so that different draws stay different.
            return place.put(element, RECORD_SEED, draw_seed(rng) ^ self._salt_words)
        parts = [_identity(get_field(element, path), path) for path in self._paths]
        return place.put(element, RECORD_SEED, _digest(b"".join(parts), self._salt.encode()))

    def __repr__(self) -> str:
        given = {"key": self._key, "salt": self._salt}
        return f"SeedRecords({', '.join(f'{name}={value!r}' for name, value in given.items() if value)})"

    def output_spec(self, input_spec: Record) -> Record:
        """The spec of a seeded record, for `grain.experimental.get_element_spec`."""
        return carrying(input_spec, RECORD_SEED, grain.experimental.ShapeDtypeStruct(shape=(2,), dtype=np.uint32))


class SeedChildren(grain.experimental.FlatMapTransform):
    """A `FlatMap` behind `SeedRecords`, of whose records each child has a seed of its own.

    Grain gives children no generator, and what was drawn before is the same for all of them. Here a child's seed
    follows from its parent's and its place among the children: `child_seed`.

    Args:
      flat_map: What makes children of a record; it is given the record without its `record_seed`.

    Raises:
      TypeError: If it is no `FlatMap`.

    Example:
      >>> class Views(grain.experimental.FlatMapTransform):  # two of each record, augmented apart
      ...     max_fan_out = 2
      ...
      ...     def flat_map(self, element):
      ...         return [element] * self.max_fan_out
      >>> record = {"label": 3, "record_seed": np.array([1, 2], np.uint32)}
      >>> [child["record_seed"].tolist() for child in SeedChildren(Views()).flat_map(record)]
      [[1349549071, 2547359471], [344084000, 1008467199]]
    """

    def __init__(self, flat_map: grain.experimental.FlatMapTransform) -> None:
        if not isinstance(flat_map, grain.experimental.FlatMapTransform):
            raise TypeError(
                f"`flat_map` must be a FlatMap transform: got {shown(flat_map)}. Pass the one to be wrapped."
            )
        self._flat_map = flat_map
        self.max_fan_out = flat_map.max_fan_out

    def flat_map(self, element: Record) -> list[Record]:
        """The children, each with its seed.

        Raises:
          TypeError: If the record or a child has no fields, or no place for a seed.
          KeyError: If the record has no seed.
        """
        require_record(element)
        seed = carried(element, RECORD_SEED)
        if seed is None:
            raise MissingField(
                f"`{RECORD_SEED}` must be in the record before SeedChildren: got the fields {field_names(element)}."
                " Place SeedRecords() in front of it."
            )
        children = []
        for place, child in enumerate(self._flat_map.flat_map(without(element, RECORD_SEED, RECORD_DRAWS))):
            require_record(child)
            children.append(carrying(child, RECORD_SEED, child_seed(seed, place)))
        return children

    def __repr__(self) -> str:
        return f"SeedChildren({self._flat_map!r})"


def child_seed(seed: np.ndarray, place: int) -> np.ndarray:
    """The seed of a record that is made of another one, which of them `place` says.

    Args:
      seed: The parent's, uint32 `(2,)`.
      place: 0 or more, below 2**64.

    Returns:
      uint32 `(2,)`; neither the parent's nor that of another place.

    Example:
      >>> parent = np.array([1, 2], np.uint32)
      >>> views = [{"label": 3, "record_seed": child_seed(parent, view)} for view in range(4)]
      >>> len({tuple(view["record_seed"]) for view in views})
      4
    """
    if np.shape(seed) != (2,) or getattr(seed, "dtype", None) != np.uint32:
        raise ValueError(f"`seed` must be uint32 of shape (2,): got {shown(seed)}. Pass the parent's `{RECORD_SEED}`.")
    if not 0 <= operator.index(place) < 2**64:
        raise ValueError(f"`place` must be 0 or more, below 2**64: got {shown(place)}. Pass the child's number.")
    parent = np.asarray(seed).astype("<u4").tobytes()
    return _digest(parent + operator.index(place).to_bytes(8, "little"), b"child")


def draw_seed(rng: np.random.Generator) -> np.ndarray:
    """64 bits of a record's generator, as uint32 `(2,)`.

    Two words, not one of 64 bits: JAX cuts 64-bit integers to 32 by default.
    """
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"`rng` must be the record's generator: got {shown(rng)}. Give the sampler or dataset a seed, such as"
            " grain.samplers.IndexSampler(..., seed=0), and draw before Batch; for a FlatMap wrap it,"
            " SeedRecords() and then SeedChildren(flat_map); or name what tells records apart, SeedRecords(key=...)."
        )
    # The bit generator itself: Generator.integers takes 4 us, where this takes half a microsecond.
    return rng.bit_generator.random_raw(1).view(np.uint32)


def _place_in(element: Record) -> Container:
    """How a record is written into; raises unless it has fields, and a place for a seed that is free."""
    container = record_container_of(element)
    if container is None:
        raise refusal_of(element)
    if container.get(element, RECORD_SEED) is not MISSING:
        raise ValueError(
            f"`{RECORD_SEED}` must not be in the record before SeedRecords: got the fields"
            f" {', '.join(name for name, _ in container.items(element))}. Apply SeedRecords once, or rename that field."
        )
    if type(element) is dict and {*map(type, element)} <= {str}:  # as nearly always, and fast
        return container
    if isinstance(element, Mapping) and not all(isinstance(name, str) for name in element):
        raise TypeError(
            f"`element` must have names that are strings, to be sorted beside `{RECORD_SEED}`: got {list(element)}."
            " Rename them before: .map(lambda record: {str(name): field for name, field in record.items()})."
        )
    return container


def _digest(identity: bytes, salt: bytes) -> np.ndarray:
    """64 bits that follow from both, as uint32 `(2,)`: the same on every machine."""
    key = hashlib.blake2b(salt, digest_size=32).digest()
    return np.frombuffer(hashlib.blake2b(identity, digest_size=8, key=key).digest(), "<u4").astype(np.uint32)


def _identity(value: Any, path: str) -> bytes:
    """What tells a value from all others, also where several stand in a row."""
    plain = value.tolist() if hasattr(value, "tolist") else value  # an array, of JAX too
    if isinstance(plain, os.PathLike):
        plain = os.fspath(plain)
    if isinstance(plain, list | tuple):
        parts = [_identity(each, path) for each in plain]
        return b"list %d:" % len(parts) + b"".join(parts)
    if isinstance(plain, bool | int):
        text = b"%d" % plain
        return b"int %d:" % len(text) + text
    if isinstance(plain, str | bytes):
        text = plain.encode(errors="surrogateescape") if isinstance(plain, str) else plain  # as paths are
        return b"str %d:" % len(text) + text
    raise TypeError(
        f'`key` must name fields of integers, strings, bytes or paths: got {type(value).__name__} in field "{path}".'
        " Name one that tells records apart, such as an id."
    )
