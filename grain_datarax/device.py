"""host batches -> augmented device batches, ahead of the training step, with the state of Grain's own iterators."""

import atexit
import copy
import functools
import gc
import json
import threading
import warnings
import weakref
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, Self

import grain
import jax
from jax.sharding import NamedSharding

from grain_datarax.operators.fingerprint import differences, fingerprint
from grain_datarax.operators.modality import ModalityOperator
from grain_datarax.placement import RowSharding
from grain_datarax.seeding import RECORD_SEED, require_mapping
from grain_datarax.transforms import AugmentBatch, as_chain

# The one key that is added to Grain's state.
STATE_KEY = "grain_datarax"
# How many seconds `close` waits for threads and worker processes.
PATIENCE = 30


class DeviceLoader:
    """Augmented batches on the devices, from a Grain loader or dataset of seeded host batches.

    Every process places its rows on its own devices, augments them there by one compiled function, its input donated,
    and puts the global arrays together: without copies, and without a word to other processes. A thread of Grain's
    does so ahead of the training step. Arrays of numbers become `jax.Array`s that are sharded over axis 0; those of 64
    bits take 32, as everywhere in JAX, but images that an operator treats must not have 64. Anything else stays on the
    host, in step with its batch. On the CPU, arrays may share the memory of those of the source, as with
    `jax.device_put`.

    Over several processes give each its own records: `shard_options=grain.sharding.ShardByJaxProcess()` in the
    `grain.DataLoader`, and a sampler without shards. Processes whose devices hold the same rows, because another axis
    of the mesh spans them, must be given the same records.

    An iterator's state is that of Grain's iterator after the batch that was handed out last: bytes over a
    `grain.DataLoader`, a dict over a dataset. Either restores the other's. It has one more key, a fingerprint of the
    operators, so that a checkpoint is refused where the augmentation would go on as another. `close` an iterator, or
    use it or the loader in a `with` statement, to end its thread and its workers at once. As with all of Grain's, an
    iterator and its states belong to one thread.

    Args:
      source: A `grain.DataLoader`, `grain.IterDataset` or `grain.MapDataset` of batches that carry the seeds of
        `SeedRecords`. A `MapDataset` is read by `buffer_size` threads, at most 16. Grain's workers need a program under
        `if __name__ == "__main__":` that has parsed absl's flags: `absl.flags.FLAGS.mark_as_parsed()` does.
      operators: One operator or a list of them, applied in that order; none: the batches are placed only.
      sharding: How rows are spread: a `NamedSharding` whose spec names axes of the mesh for axis 0 alone. None spreads
        them over all devices of all processes.
      buffer_size: How many batches are made ahead; one more is in the making. 0 starts no thread.
      keep_seed: Keep `record_seed` in the batch, for `grain_datarax.augment` in the training step.
      pad_last_batch: Fill up batches that are smaller than those before, or don't divide over the devices, with rows of
        zeros, and mark the rows that are records in a boolean field `valid`. Fields on the host are not filled up.
      fingerprint: Keep the fingerprint in the state. Without it the state equals that of Grain's iterator, byte for
        byte, and a restored one is not compared; nor can a dataset's then go on with other processes or workers, and
        padding takes its size from the batches after it.
      strict: A state with another fingerprint is an error; False: a warning.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or value.

    Example:
      >>> import numpy as np
      >>> import grain_datarax as gdx
      >>> from flax import nnx
      >>> noise = gdx.NoiseOperator(gdx.NoiseOperatorConfig(field_key="image", stochastic=True), rngs=nnx.Rngs(0))
      >>> source = grain.MapDataset.source([{"image": np.zeros((8, 8, 3), np.uint8), "label": 3}] * 32)
      >>> with DeviceLoader(source.random_map(gdx.SeedRecords(), seed=7).batch(16), noise) as loader:
      ...     for batch in loader:
      ...         print(type(batch["image"]).__name__, batch["image"].shape, batch["label"].dtype)
      ArrayImpl (16, 8, 8, 3) int32
      ArrayImpl (16, 8, 8, 3) int32
    """

    def __init__(
        self,
        source: grain.DataLoader | grain.IterDataset | grain.MapDataset,
        operators: ModalityOperator | Sequence[ModalityOperator] = (),
        *,
        sharding: NamedSharding | None = None,
        buffer_size: int = 2,
        keep_seed: bool = False,
        pad_last_batch: bool = False,
        fingerprint: bool = True,
        strict: bool = True,
    ) -> None:
        if not isinstance(source, grain.DataLoader | grain.IterDataset | grain.MapDataset):
            raise TypeError(
                f"`source` must be a grain.DataLoader, IterDataset or MapDataset: got {type(source).__name__}. Pass the"
                " loader or dataset itself, not its iterator."
            )
        if isinstance(buffer_size, bool) or not isinstance(buffer_size, int):
            raise TypeError(f"`buffer_size` must be an int: got {buffer_size!r}. Pass a number of batches.")
        if not buffer_size >= 0:
            raise ValueError(f"`buffer_size` must not be negative: got {buffer_size}. Pass 0 to make nothing ahead.")
        self._source = source
        self._operators = () if isinstance(operators, Sequence) and not operators else as_chain(operators)
        self._rows = RowSharding(sharding)
        for operator in self._operators:
            # Its collectives must not run beside those of the training step: that gives wrong values, silently.
            if operator.batch_stats_fn is not None and (pad_last_batch or self._rows.sharding.num_devices > 1):
                raise ValueError(
                    "`batch_stats_fn` must be None over several devices or with padding: got"
                    f" {operator.batch_stats_fn}. Use grain_datarax.augment in the training step, which has the whole"
                    " batch."
                )
        if isinstance(source, grain.IterDataset) and _is_above_an_elastic_iterator(source):
            raise ValueError(
                f"`source` must not be built on an ElasticIterator, whose one iterator cannot be read ahead: got"
                f" {source}. Pass the ElasticIterator itself, and map its dataset before."
            )
        self._buffer_size = buffer_size
        self._keep_seed = keep_seed
        self._pad_last_batch = pad_last_batch
        self._fingerprint = fingerprint
        self._strict = strict
        self._open: weakref.WeakSet[DeviceDatasetIterator] = weakref.WeakSet()

    @property
    def sharding(self) -> NamedSharding:
        """That of the batches. Put a model that was restored on `sharding.mesh` too: JAX mixes no other devices."""
        return self._rows.sharding

    def __iter__(self) -> "DeviceIterator | DeviceDatasetIterator":
        """A new iterator: a `grain.DatasetIterator` over a dataset; over a `DataLoader` one whose states are bytes."""
        stage = _Stage(self._rows, self._operators, self._keep_seed, self._pad_last_batch)
        dataset = _host_batches(self._source, self._buffer_size).map(stage)
        if self._buffer_size > 0:  # with a size of 0 Grain's thread would fill a buffer without bounds
            dataset = grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=self._buffer_size)
        entry = fingerprint(self._operators) if self._fingerprint else None
        batches = DeviceDatasetIterator(iter(dataset), stage, entry, self._strict, self._source)
        self._open.add(batches)
        _still_open.add(batches)
        _close_at_exit()
        global _workers_may_have_run
        _workers_may_have_run |= _may_have_workers(self._source)
        return DeviceIterator(batches) if isinstance(self._source, grain.DataLoader) else batches

    def close(self) -> None:
        """Closes all iterators of this loader: ends their threads and worker processes, and waits for them."""
        for iterator in list(self._open):
            iterator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class _Stage:
    """host batch -> device batch -> augmented batch, for one iterator."""

    def __init__(
        self, rows: RowSharding, operators: tuple[ModalityOperator, ...], keep_seed: bool, pad_last_batch: bool
    ) -> None:
        self._rows = rows
        self._augment = AugmentBatch(operators, keep_seed=keep_seed, donate=True) if operators else None
        self._keep_seed = keep_seed
        self._pad_last_batch = pad_last_batch
        self.group_count = rows.group_count
        self.largest = 0  # how many records the largest batch had: to that length others are padded

    def __call__(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The batch, and how many records of this process are in it."""
        require_mapping(batch)
        if self._augment is not None:
            self._augment.check_values(batch)
        elif not self._keep_seed:
            batch = {name: field for name, field in batch.items() if name != RECORD_SEED}
        placed, count = self._rows.place(batch, self.largest if self._pad_last_batch else None)
        self.largest = max(self.largest, count)
        if self._augment is not None:
            with jax.set_mesh(self._rows.local_mesh):  # not that of the training step, which may be set
                placed = self._augment.augment(placed, counted=count)
        return self._rows.assemble(placed), count


def _is_above_an_elastic_iterator(dataset: grain.IterDataset) -> bool:
    return any(
        isinstance(parent, grain.experimental.ElasticIterator)
        or (isinstance(parent, grain.IterDataset) and _is_above_an_elastic_iterator(parent))
        for parent in dataset.parents
    )


def _host_batches(source: Any, buffer_size: int) -> grain.IterDataset:
    """The source as an `IterDataset`, whose iterators are in nobody else's hands."""
    if isinstance(source, grain.DataLoader):
        return _LoaderDataset(source)
    if isinstance(source, grain.MapDataset):
        # Grain's default reads 500 elements ahead, which are batches here.
        return source.to_iter_dataset(grain.ReadOptions(min(buffer_size, 16), buffer_size))
    if isinstance(source, grain.experimental.ElasticIterator):
        # It has one iterator for all who ask, which the thread would run ahead with.
        own = copy.copy(source)
        vars(own).pop("_default_iterator", None)
        own.set_state(source.get_state())
        return own
    return source


class _LoaderDataset(grain.IterDataset):
    """A `grain.DataLoader` as a dataset."""

    def __init__(self, loader: grain.DataLoader) -> None:
        super().__init__()
        self._loader = loader

    def __iter__(self) -> grain.DatasetIterator:
        return _LoaderDatasetIterator(iter(self._loader))


class _LoaderDatasetIterator(grain.DatasetIterator):
    """A `grain.DataLoaderIterator` whose states are dicts, the JSON of its own."""

    def __init__(self, iterator: grain.DataLoaderIterator) -> None:
        super().__init__()
        self._iterator = iterator

    def __next__(self) -> Any:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        return json.loads(self._iterator.get_state())

    def set_state(self, state: dict[str, Any]) -> None:
        self._iterator.set_state(json.dumps(state, indent=4).encode())

    def start_prefetch(self) -> None:
        self._iterator.start_prefetch()

    def close(self) -> None:
        super().close()
        self._iterator._iterator.close()  # a DataLoaderIterator has no close of its own


class DeviceDatasetIterator(grain.DatasetIterator):
    """Augmented batches of a `DeviceLoader` over a dataset. Its states are dicts, as those of `grain.DatasetIterator`.

    Not to be made by users: `iter(DeviceLoader(...))` does.
    """

    def __init__(
        self, batches: grain.DatasetIterator, stage: _Stage, entry: dict[str, Any] | None, strict: bool, source: Any
    ) -> None:
        super().__init__(batches)
        self.source = source
        self.group_count = stage.group_count
        self._stage = stage
        self._entry = entry
        self._strict = strict
        self._last_state: dict[str, Any] | None = None
        self._batches: int | None = 0  # handed out since the start; unknown after a state of Grain's own
        self._batch_size = 0  # of all processes together, the largest so far

    def __next__(self) -> dict[str, Any]:
        self._require_open()
        try:
            element = next(self._parent)
        except StopIteration:
            if _may_have_workers(self.source):
                _free_shared_memory()
            raise
        if element is None:  # Grain passes it by our stage
            require_mapping(element)
        batch, count = element
        if self._batches is not None:
            self._batches += 1
        self._batch_size = max(self._batch_size, count * self.group_count)
        return batch

    def get_state(self) -> dict[str, Any]:
        """The state of Grain's iterator after the batch that was handed out last, and the fingerprint."""
        state = copy.deepcopy(self._parent.get_state() if self._last_state is None else self._last_state)
        if self._entry is None:
            return state
        return {**state, STATE_KEY: {**self._entry, "batches": self._batches, "batch_size": self._batch_size}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on behind the batch that was last when `state` was taken, from this iterator or from Grain's own.

        Raises:
          ValueError: If the operators are others than those of `state`, or Grain refuses it. The iterator stays where
            it was then.
        """
        self._require_open()
        saved = state.get(STATE_KEY, {})
        self._compare(saved)
        before = self._parent.get_state()
        try:
            # Copied: Grain keeps its parts, and writes into them.
            self._parent.set_state(copy.deepcopy({name: part for name, part in state.items() if name != STATE_KEY}))
        except Exception as error:
            self._parent.set_state(before)
            error.add_note("If only the numbers of processes or workers are others, see grain_datarax.checkpoint.")
            raise
        self._batches = saved.get("batches")
        self._batch_size = saved.get("batch_size", 0)
        self._stage.largest = self._batch_size // self.group_count

    def close(self) -> None:
        """Ends the thread and the worker processes, waits for them, and frees the shared memory of their batches.

        It waits for `PATIENCE` seconds, and warns if something goes on then.
        """
        if self._closed:
            return
        self._last_state = self._parent.get_state()
        # Grain waits without end for a worker that was killed, by Ctrl-C for one, while it was started. A thread can
        # be left to that.
        closing = threading.Thread(target=super().close, daemon=True)
        try:
            closing.start()
        except RuntimeError:  # Python 3.12 starts none when the interpreter goes down; a second Ctrl-C ends the wait
            super().close()
        else:
            closing.join(PATIENCE)
            if closing.is_alive():
                warnings.warn(
                    f"`iterator` must end within {PATIENCE} seconds when it is closed: got no end of {self.source}. It"
                    " is left to the end of the program.",
                    stacklevel=2,
                )
                return
        self._parents = ()  # whose __del__ fails when the interpreter goes down
        if _may_have_workers(self.source):
            _free_shared_memory()

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("`iterator` must be open: this one was closed. Make another by iter(loader).")

    def _compare(self, saved: dict[str, Any]) -> None:
        if not saved or self._entry is None:
            return
        if found := differences(saved, self._entry):
            message = f"`operators` must be those of the checkpoint: got {', '.join(found)}."
            if self._strict:
                raise ValueError(
                    f"{message} Restore with the operators that it was saved with, or pass strict=False to DeviceLoader"
                    " to go on with these."
                )
            caller = 4 if isinstance(self.source, grain.DataLoader) else 3  # over a loader, DeviceIterator calls
            warnings.warn(f"{message} Going on with these, as strict=False.", stacklevel=caller)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class DeviceIterator(Iterator[dict[str, Any]]):
    """Augmented batches of a `DeviceLoader` over a `grain.DataLoader`. Its states are bytes, as those of the loader's.

    Not to be made by users: `iter(DeviceLoader(...))` does.
    """

    def __init__(self, batches: DeviceDatasetIterator) -> None:
        self.batches = batches

    def __next__(self) -> dict[str, Any]:
        return next(self.batches)

    def get_state(self) -> bytes:
        """As `DeviceDatasetIterator.get_state`, as JSON."""
        return json.dumps(self.batches.get_state(), indent=4).encode()

    def set_state(self, state: bytes) -> None:
        """As `DeviceDatasetIterator.set_state`, from JSON."""
        self.batches.set_state(json.loads(state))

    def start_prefetch(self) -> None:
        """Starts to make batches ahead, before the first is asked for."""
        self.batches.start_prefetch()

    def close(self) -> None:
        """Ends the thread and the worker processes, and waits for them."""
        self.batches.close()

    # For Orbax's API v1.
    async def save(self, directory: Any) -> Awaitable[None]:
        return await self.batches.save(directory)

    async def load(self, directory: Any) -> Awaitable[None]:
        return await self.batches.load(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _may_have_workers(source: Any) -> bool:
    if isinstance(source, grain.DataLoader):
        return source.multiprocessing_options.num_workers > 0
    return not isinstance(source, grain.MapDataset)


_shared_memory: list[Any] = []


def _free_shared_memory() -> None:
    """Frees the shared memory of batches in reference cycles, as the end of Grain's iterators leaves them."""
    # Held, since otherwise the garbage collector closes it while Grain's thread does, which fails then, and leaves the
    # file.
    shared = grain.multiprocessing.SharedMemoryArray
    _shared_memory[:] = [array.shm for array in gc.get_objects() if type(array) is shared]
    if _shared_memory:
        gc.collect()


# Threads that still use JAX while the interpreter goes down make noise, or crash it.
_still_open: weakref.WeakSet[DeviceDatasetIterator] = weakref.WeakSet()
_workers_may_have_run = False


@functools.cache
def _close_at_exit() -> None:
    atexit.register(_close_all)


def _close_all() -> None:
    for iterator in list(_still_open):
        iterator.close()
    if _workers_may_have_run:
        _free_shared_memory()
        # Grain's thread frees one after the other, and ends with the interpreter: it has to come to the last first.
        if pool := grain.multiprocessing.SharedMemoryArray._del_thread_pool:
            pool.apply_async(bool).wait(timeout=10)
