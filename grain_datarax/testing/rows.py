"""A pipeline -> the records that come out of it: on the host, copied, and told apart by a key."""

import contextlib
import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import grain
import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.containers import Record, as_path, record_container_of, require_record
from grain_datarax.device import DeviceLoader
from grain_datarax.fields import flatten, get_field
from grain_datarax.shutdown import close_at_exit, ends_within
from grain_datarax.sources import may_have_workers

# What tells records apart: a field or several, by path, or a function of a record.
Key: TypeAlias = str | int | Sequence[str | int] | Callable[[Record], Any]

# An iterator's state as a checkpoint holds it, bytes or JSON; or why none can.
Stored: TypeAlias = bytes | str | TypeError

# How many seconds an iterator may take to end its worker processes.
_PATIENCE = 30


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A record: what tells it apart, and what of it is compared, by path."""

    key: Hashable
    leaves: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What came out of a pipeline.

    Attributes:
      rows: The records in their order, at most as many as were asked for.
      sizes: How many records each batch had.
      states: The iterator's state behind each batch, as a file holds it; None if it has none.
      ended: Whether there were no more records.
      workers: How many worker processes are known to have read.
    """

    rows: tuple[Row, ...]
    sizes: tuple[int, ...]
    states: tuple[Stored, ...] | None
    ended: bool
    workers: int = 0

    @property
    def largest(self) -> int:
        """The size of the largest batch."""
        return max(self.sizes, default=0)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How records are read.

    Attributes:
      key: What tells them apart; None: their place. A function may return None for a row that is no record.
      taken: What of a record is compared; None: all of it.
      batched: Whether they come in batches.
    """

    key: Key | None
    taken: Callable[[Record], Any] | None = None
    batched: bool = True

    def rows(self, element: Any, start: int) -> list[Row]:
        """The records of what a pipeline hands out, of which there were `start` before; not those without a key."""
        records = self._records(jax.tree.map(_on_host, element))
        keys = itertools.count(start) if self.key is None else map(self._identity, records)
        return [Row(key, self._leaves(record)) for key, record in zip(keys, records, strict=False) if key is not None]

    @property
    def _paths(self) -> tuple[str, ...]:
        if self.key is None or callable(self.key):
            return ()
        return tuple(map(as_path, [self.key] if isinstance(self.key, str | int) else self.key))

    def _records(self, element: Any) -> list[Record]:
        if not self.batched:
            return [element]
        count = self._count(element)

        def row(place: int) -> Record:
            return jax.tree.map(lambda leaf: leaf[place] if _length(leaf) == count else leaf, element)

        return [row(place) for place in range(count)]

    def _count(self, element: Any) -> int:
        """How many records a batch has."""
        if self._paths:
            require_record(element)
            length = _length(get_field(element, self._paths[0]))
            if length is None:
                raise ValueError(
                    f"`key` must name a field with a value for each row of a batch: got one value in"
                    f' "{self._paths[0]}". Pass batched=False if `make_pipeline` returns single records.'
                )
            return length
        lengths = {_length(leaf) for leaf in jax.tree.leaves(element)} - {None}
        length = lengths.pop() if len(lengths) == 1 else None
        if length is None:
            raise ValueError(
                "`make_pipeline` must return batches whose arrays share axis 0: got arrays of shapes"
                f" {[np.shape(leaf) for leaf in jax.tree.leaves(element)]}. Name a field as `key`, whose length counts,"
                " or pass batched=False if these are single records."
            )
        return length

    def _identity(self, record: Record) -> Hashable:
        if callable(self.key):
            return _hashable(self.key(record))
        require_record(record)
        parts = [_hashable(get_field(record, path)) for path in self._paths]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _leaves(self, record: Record) -> Mapping[str, Any]:
        part = record if self.taken is None else self.taken(record)
        return flatten(part) if record_container_of(part) else {"": part}


@dataclasses.dataclass(frozen=True)
class Only:
    """Takes some of a record's fields, by path."""

    fields: tuple[str, ...]

    def __call__(self, record: Record) -> Record:
        """These fields."""
        return {path: get_field(record, path) for path in self.fields}


def read(pipeline: Any, reading: Reading, limit: int, *, state: Stored | None = None, start: int = 0) -> Run:
    """Reads the first `limit` records of a pipeline, or those behind a state, and closes its iterator."""
    with iterating(pipeline) as iterator:
        if state is not None:
            iterator.set_state(restored(state))
        return dataclasses.replace(take(iterator, reading, limit, start), workers=_workers_of(pipeline))


def take(iterator: Any, reading: Reading, limit: int, start: int = 0) -> Run:
    """The next `limit` records of an iterator; if they have no key, they are numbered from `start`."""
    rows: list[Row] = []
    sizes: list[int] = []
    states: list[Stored] | None = [] if has_states(iterator) else None
    ended = True
    for element in iterator:
        found = reading.rows(element, start + len(rows))
        rows += found
        sizes.append(len(found))
        if states is not None:
            states.append(stored(iterator.get_state()))
        if len(rows) > limit:
            ended = False
            break
    return Run(tuple(rows[:limit]), tuple(sizes), None if states is None else tuple(states), ended)


@contextlib.contextmanager
def passes_unsaid() -> Generator[None]:
    """Nothing is said, in this block, of passes that repeat every pixel: they are to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* which repeats every pixel", UserWarning)
        yield


@contextlib.contextmanager
def iterating(pipeline: Any) -> Generator[Any]:
    """An iterator over a pipeline, whose threads and worker processes end with the block."""
    if isinstance(pipeline, grain.MapDataset):
        # Its own iterator reads 500 elements ahead.
        pipeline = pipeline.to_iter_dataset(grain.ReadOptions(0, 0))
    iterator = iter(pipeline)
    # A DataLoaderIterator has no close of its own.
    owner = iterator._iterator if isinstance(iterator, grain.DataLoaderIterator) else iterator
    if isinstance(owner, grain.DatasetIterator):
        close_at_exit(owner, may_have_workers(pipeline))
    try:
        yield iterator
    finally:
        if hasattr(owner, "close"):
            ends_within(_PATIENCE, owner.close)


def has_states(iterator: Any) -> bool:
    """Whether an iterator can be resumed."""
    if not (hasattr(iterator, "get_state") and hasattr(iterator, "set_state")):
        return False
    try:
        iterator.get_state()
    except NotImplementedError:
        return False
    return True


def stored(state: Any) -> Stored:
    """A state as a checkpoint holds it."""
    if isinstance(state, bytes):
        return state
    try:
        return json.dumps(state)
    except TypeError as error:
        return TypeError(
            f"`get_state` must return bytes, or what JSON can hold: got {state!r}, and {error}. Grain's checkpoints"
            " hold nothing else."
        )


def restored(state: Stored) -> Any:
    """A state, from what `stored` made of it; raises the TypeError if it could not."""
    if isinstance(state, TypeError):
        raise state
    return state if isinstance(state, bytes) else json.loads(state)


def _workers_of(pipeline: Any) -> int:
    source = pipeline._source if isinstance(pipeline, DeviceLoader) else pipeline
    return int(source.multiprocessing_options.num_workers) if isinstance(source, grain.DataLoader) else 0


def _on_host(leaf: Any) -> Any:
    """A copy of an array: Grain's workers use their memory again, and others may."""
    if isinstance(leaf, jax.Array):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.device_get(jax.random.key_data(leaf) if is_key else leaf))
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf


def _length(leaf: Any) -> int | None:
    """The length of an array's axis 0; None of anything else."""
    return len(leaf) if isinstance(leaf, np.ndarray) and leaf.ndim else None


def _hashable(value: Any) -> Hashable:
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, list | tuple):
        return tuple(map(_hashable, plain))
    if not isinstance(plain, Hashable):
        raise TypeError(
            f"`key` must tell records apart by numbers, strings or tuples of them: got {plain!r}. Name a field such as"
            ' "id", or pass a function that returns one.'
        )
    return plain
